"""Logit lens: what each point would predict, how a position gets to its answer, and who wrote that answer."""

from typing import cast

import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from app.components.attribution import attribution_panels
from app.components.explore import View, explore, extra
from app.components.panel import panel
from app.components.plot_clicks import PlotClick
from app.components.reading import choice
from app.figures.lens import COLOURS, lens_map
from app.figures.lens_lines import SUFFIX, Variant, layer_curves, rank_lines, trajectories
from app.methods import section
from app.state import select
from probes.request import ProbeCall

__all__ = ["page"]

_WINDOW = 256  # positions read at once
_BY_ITSELF = 300  # tokens up to which they are read without being asked for
_VARIANTS = {"mean": "mean-corrected", "raw": "raw", "no_norm": "without final norm"}
_SETTLING = {
    "lens_depth": "settled at point",
    "lens_first_nat": "below 1 nat from point",
    "lens_monotonicity": "monotone",
    "lens_convergence": "rate",
    "lens_ce_area": "area (nats)",
}


def page() -> None:
    """Draw the page."""
    explore("Logit lens", "What would the model predict if it stopped here?", panels, colour_by="lens_kl@mean")


def panels(view: View) -> None:
    """The map, the selected position, all positions, then attribution of the selected position."""
    with st.container(horizontal=True, vertical_alignment="bottom"):
        variant = cast(Variant, choice("Lens", _VARIANTS, "lens-variant"))
        colour = st.selectbox("Colour", list(COLOURS), key="lens-colour", label_visibility="collapsed")
    above = st.container()
    attribution_panels(view)  # asked for first: it is answered in a second, every position of the lens takes many
    with above:
        _lens(view, variant, colour)


def _lens(view: View, variant: Variant, colour: str) -> None:
    first, last = _window(view)
    read = _read(view, variant, first, last)
    if read is None:
        panel("lens-map", "The map", "What does each state read as?", None, note="This lens has not been read here.")
        return
    _map(read, variant, colour, first, last)
    _position(read, variant)
    _all(read)


def _window(view: View) -> tuple[int, int]:
    """The first and last position in sight: everything, or the stretch of 256 that holds the selected one."""
    count = len(view.tokens)
    if count <= _BY_ITSELF:
        return 0, count - 1
    first = view.selection.position // _WINDOW * _WINDOW
    return first, min(first + _WINDOW, count) - 1


def _read(view: View, variant: Variant, first: int, last: int) -> View | None:
    """The lens at every position in sight; until it is there, whatever the run itself has read."""
    count = len(view.tokens)
    params: dict[str, object] = {"positions": "all" if last - first + 1 == count else tuple(range(first, last + 1))}
    if variant == "no_norm":
        params["variants"] = ("no_norm",)
    label = "Read every position" if count <= _BY_ITSELF else f"Read positions {first} to {last}"
    answer = extra(view, ProbeCall("lens", params), label=label, auto=count <= _BY_ITSELF and variant != "no_norm")
    read = view if answer is None else View(view.services, answer, view.selection)
    rows = read.table("lens_topk")
    return read if not rows.empty and (rows["variant"] == variant).any() else None


def _map(read: View, variant: Variant, colour: str, first: int, last: int) -> None:
    tokens = read.tokens[first : last + 1]

    def build() -> go.Figure:
        topk = read.table("lens_topk")
        topk = topk[topk["variant"] == variant]
        ids = topk["token_id"].unique().tolist()
        texts = dict(zip(ids, read.decode(ids), strict=True))
        metrics = read.table("token_metrics")
        return lens_map(topk, metrics, tokens, read.facts.n_layers, texts, colour=colour, variant=variant, first=first)

    panel(
        "lens-map",
        f"The map, {_VARIANTS[variant]}",
        "What does each state read as? Dots: where it has settled on the final answer.",
        read.figure("lens-map", build, variant, colour, first),
        how=section("lens", "Raw and mean-corrected") + "\n\n" + section("lens", "The map"),
        csv=lambda: _readings(read),
        on_click=_go_cell,
        x=read.selection.position,
        y=read.selection.point,
    )


def _readings(read: View) -> pd.DataFrame:
    """The top tokens of every state, with their text."""
    topk = read.table("lens_topk")
    ids = topk["token_id"].unique().tolist()
    return topk.assign(text=topk["token_id"].map(dict(zip(ids, read.decode(ids), strict=True))))


def _position(read: View, variant: Variant) -> None:
    position, layers = read.selection.position, read.facts.n_layers
    rows = read.table("token_metrics")
    rows = rows[(rows["pos"] == position) & rows["metric"].str.startswith("lens_")]
    title, question = f"Position {position}", "How does the reading get to the answer?"
    if rows.empty:
        panel("lens-position", title, question, None, note="The lens was not read at this position.")
        return
    left, right = st.columns(2)
    with left:
        panel(
            "lens-position",
            title,
            question,
            read.figure("lens-position", lambda: trajectories(rows, position, layers), position),
            note=_settling(rows, variant),
            how=section("lens", "One position"),
            csv=rows,
            on_click=_go_point,
            x=read.selection.point,
        )
    with right:
        last = position == len(read.tokens) - 1
        panel(
            "lens-rank",
            f"Rank of the token after position {position}",
            "Is it known here, above chance?",
            None
            if last
            else read.figure("lens-rank", lambda: rank_lines(rows, position, layers, read.facts.d_vocab), position),
            note="The last token has no next one: there is no rank." if last else None,
            how=section("lens", "Rank of the target"),
            on_click=_go_point,
            x=read.selection.point,
        )


def _settling(rows: pd.DataFrame, variant: Variant) -> str | None:
    """How the position settles in the chosen lens, in one line."""
    values = rows[rows["layer"].isna()].set_index("metric")["value"]
    told = []
    for metric, name in _SETTLING.items():
        value = values.get(metric + SUFFIX[variant])
        if value is not None:
            told.append(f"{name} {value:.3g}" if pd.notna(value) else f"{name}: undefined")
    return f"{_VARIANTS[variant]}: {' · '.join(told)}" if told else None


def _all(read: View) -> None:
    metrics, layers = read.table("token_metrics"), read.facts.n_layers
    left, right = st.columns(2)

    def curve(which: int) -> go.Figure:
        return layer_curves(metrics, layers, read.facts.d_vocab)[which]

    with left:
        panel(
            "lens-kl",
            "KL to the end, all positions",
            "How far is each point from the answer?",
            read.figure("lens-kl", lambda: curve(0)),
            how=section("lens", "All positions"),
            csv=lambda: metrics[metrics["metric"].str.startswith("lens_")],
            on_click=_go_point,
            x=read.selection.point,
        )
    with right:
        panel(
            "lens-ranks",
            "Rank of the next token, median",
            "When does it pass the control?",
            read.figure("lens-ranks", lambda: curve(1)),
            how=section("lens", "Rank of the target"),
            on_click=_go_point,
            x=read.selection.point,
        )


def _go_cell(click: PlotClick) -> None:
    select(point=round(float(click.y)), position=round(float(click.x)))


def _go_point(click: PlotClick) -> None:
    select(point=round(float(click.x)))
