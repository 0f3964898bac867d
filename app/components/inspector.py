"""The inspector: everything the run knows about the selected point and token, with a reason where it knows nothing."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import pandas as pd
import streamlit as st

from app.components.extra import extra
from app.sae_index import labels_of
from app.state import select
from app.text import printable, visible
from app.view import View
from probes.request import ProbeCall

__all__ = ["Section", "draw_sections", "facts", "inspector", "lens", "read_here"]

_HERE = Path(__file__).parent
_inspector = st.components.v2.component(
    "eigenscope.inspector",
    html='<div class="root"></div>',
    css=(_HERE / "inspector.css").read_text(encoding="utf-8"),
    js=(_HERE / "inspector.js").read_text(encoding="utf-8"),
)
_TOP = 5
_LABEL = 30
_PARTS = ("point", "position", "head", "dimension", "latent")


@dataclass(frozen=True, slots=True)
class Section:
    """A heading, column names where there are columns, rows of cells, and the reason why there are none.

    ``go`` says what a click on each row selects (parts of the selection); empty where rows select nothing.
    """

    title: str
    rows: tuple[tuple[str, ...], ...] = ()
    head: tuple[str, ...] = ()
    gap: str = ""
    go: tuple[Mapping[str, int], ...] = ()


def inspector(view: View) -> None:
    """Draw the inspector for ``view.selection``; the lens last, since it is read on the spot where the run did not."""
    place = st.container()
    draw_sections("inspector-facts", view, facts(view))
    with place:
        read = read_here(view)
        if read is view and view.at(view.table("lens_topk")).empty:
            more = extra(view, _lens_call(view), label="Read the lens at this token", auto=view.loaded)
            read = view if more is None else replace(view, result=more)
        draw_sections("inspector-lens", view, lens(read))


def read_here(view: View) -> View:
    """The view whose run read the lens at the selection: this one, or a stored answer beside it; this one if there is none."""
    if not view.at(view.table("lens_topk")).empty:
        return view
    found = view.find(ProbeCall("lens", {"positions": "all"})) or view.find(_lens_call(view))
    return view if found is None else view.beside(found)


def _lens_call(view: View) -> ProbeCall:
    return ProbeCall("lens", {"positions": (view.selection.position,)})


def lens(view: View) -> tuple[Section, ...]:
    """Where the inspector looks, and what the lens reads there, as plain text; the component shows it literally."""
    chosen = view.selection
    token = f"token {chosen.position} (id {view.token_ids[chosen.position]})"
    place = Section(f"Point {chosen.point} of {view.facts.n_layers} · {token}", ((view.token(chosen.position),),))
    return place, _readings(view), _lens_numbers(view)


def facts(view: View) -> tuple[Section, ...]:
    """What else the run knows of the selected token and point, as plain text."""
    return _latents(view), _attention(view), _state(view), _update(view)


def draw_sections(key: str, view: View, sections: tuple[Section, ...]) -> None:
    """Draw sections; a click on a row that selects something selects it."""

    def clicked() -> None:
        parts = st.session_state[key].clicked
        if isinstance(parts, dict):
            select(**{name: int(parts[name]) for name in _PARTS if isinstance(parts.get(name), int)})

    _inspector(key=key, data={"sections": [asdict(section) for section in sections]}, on_clicked_change=clicked)


def _readings(view: View) -> Section:
    title = "Logit lens: what the state reads as"
    rows = view.at(view.table("lens_topk"))
    if rows.empty:
        return Section(title, gap="The lens was not read at this point and position.")
    columns = [_top(view, rows[rows["variant"] == variant]) for variant in ("mean", "raw")]
    return Section(title, tuple(zip(*columns, strict=True)), ("mean-corrected", "raw"))


def _top(view: View, rows: pd.DataFrame) -> list[str]:
    top = rows.sort_values("rank").head(_TOP)
    texts = view.decode(top["token_id"].tolist())
    cells = [f"{visible(text)} {prob:.2f}" for text, prob in zip(texts, top["prob"], strict=True)]
    return cells + [""] * (_TOP - len(cells))


def _lens_numbers(view: View) -> Section:
    names = (("rank of the next", "lens_rank"), ("entropy, nats", "lens_entropy"), ("KL to the end", "lens_kl"))
    rows = [(name, *(_told(view.value(metric + variant)) for variant in ("@mean", ""))) for name, metric in names]
    return Section("", tuple(rows), ("", "mean-corrected", "raw"))


def _latents(view: View) -> Section:
    table = view.table("latents")
    if table.empty:
        return Section("SAE latents", gap="No SAE was read in this run.")
    title = f"SAE latents at point {int(table['layer'].iloc[0])} ({visible(str(table['sae'].iloc[0]))})"
    here = table[table["pos"] == view.selection.position].nlargest(_TOP, "activation")
    labels = labels_of(view, "")
    rows = [
        (f"latent {n} {_label(labels.get(int(n)))}".strip(), f"{a:.3g}")
        for n, a in zip(here["latent"], here["activation"], strict=True)
    ]
    go = tuple({"latent": int(n), "point": int(table["layer"].iloc[0])} for n in here["latent"])
    return Section(title, tuple(rows), gap="" if rows else "No latent is active at this token.", go=go)


def _label(label: str | None) -> str:
    shown = "" if label is None else printable(label)
    return shown if len(shown) <= _LABEL else shown[: _LABEL - 1] + "…"


def _attention(view: View) -> Section:
    block = max(view.selection.point - 1, 0)
    title = f"Attention paid to this token in block {block}"
    rows = view.table("position_head_metrics")
    if not rows.empty:
        rows = rows[(rows["layer"] == block) & (rows["pos"] == view.selection.position)]
        rows = rows[rows["metric"] == "column_score"]
    sinks = view.value("sink_heads", layered=False)
    told = [] if sinks is None else [("heads it is a sink of", _told(sinks))]
    if rows.empty:
        return Section(title, tuple(told), gap="Kept only for tokens that draw attention.")
    best = rows.nlargest(3, "value")
    heads = [(f"head {block}.{head}", f"{value:.3f}") for head, value in zip(best["head"], best["value"], strict=True)]
    go = (*({"head": int(head), "point": block + 1} for head in best["head"]), *({} for _ in told))
    return Section(title, (*heads, *told), go=go)


def _state(view: View) -> Section:
    rows = [("norm", _told(view.value("resid_norm")))]
    kinds = (("raw", "cosine to position 0"), ("centred", "centred"), ("nomassive", "massive dimensions out"))
    rows += [(name, _told(view.value(f"bos_cosine_{kind}"))) for kind, name in kinds]
    go: list[dict[str, int]] = [{} for _ in rows]
    entries = view.at(view.table("massive"))
    if not entries.empty:
        strict = entries[entries["strict"].astype(bool)]
        rows += [(f"massive dimension {d}", f"{v:,.4g}") for d, v in zip(strict["dim"], strict["value"], strict=True)]
        go += [{"dimension": int(d)} for d in strict["dim"]]
    return Section("State", tuple(rows), go=tuple(go))


def _update(view: View) -> Section:
    point = view.selection.point
    if point == 0:
        return Section("What this block added", gap="Point 0 is the embeddings: no block came before it.")
    title = f"What block {point - 1} added (mean over tokens)"
    rows = view.table("layer_metrics")
    here = {} if rows.empty else rows[rows["layer"] == point].set_index("metric")["value"].to_dict()
    share = here.get("update_attn_share")
    if share is None:
        return Section(title, gap="Updates were not measured in this run.")
    size = here.get("update_size", math.nan)
    return Section(
        title, (("share of attention | MLP", f"{share:.2f} | {1 - share:.2f}"), ("size over the state", _told(size)))
    )


def _told(value: float | None) -> str:
    if value is None:
        return "not asked"
    return "undefined" if math.isnan(value) else f"{value:,.4g}"
