"""Several tokens on their way through the points at one position: the final answer, the target, any other, a control."""

from contextlib import suppress
from typing import cast

import pandas as pd

from app.figures.lens_lines import SUFFIX, Variant, metric_rows
from app.figures.lens_tokens import TokenLine, token_ranks
from app.panels.lens import LENS, TAIL, VARIANTS, of_variant
from app.panels.panel import POINT, Drawn, Option, panel
from app.text import markdown, visible
from app.view import Gap, View
from probes.errors import BadRequest
from probes.request import ProbeCall

__all__ = ["CONTROL", "token_calls", "token_id"]

CONTROL = " the"
"""A token that is frequent everywhere, as in Huginn's figure."""


def token_id(view: View, text: str) -> int:
    """The token that is all of ``text``, its leading space included. Raises Gap where the model reads it as several."""

    def read() -> tuple[int, ...]:
        tokenizer = view.services.tokenizer(view.info.model)
        return tuple(tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"])

    try:
        ids: tuple[int, ...] = view.memo(("token of", text), read)
    except (BadRequest, OSError):
        raise Gap("The tokenizer of this model is not here, so no token can be named.") from None
    if len(ids) != 1:
        parts = " ".join(markdown(visible(part)) for part in view.decode(ids))
        raise Gap(f"{markdown(visible(text))} is {len(ids)} tokens here ({parts}); give one, a leading space included.")
    return ids[0]


def token_calls(view: View, variant: str, tuned: str = "", tail: int = TAIL, token: str = "") -> dict[str, ProbeCall]:
    """The questions whose answers hold the ranks, by what each token is: its own run of the lens at this position.

    The control is left out where the model has no such token. Raises Gap for a ``token`` that is none.
    """
    targets: dict[str, object] = {"final answer": "final"}
    if view.selection.position < len(view.tokens) - 1:
        targets["next token"] = "next"
    if token:
        targets["chosen"] = token_id(view, token)
    with suppress(Gap):
        targets["control"] = token_id(view, CONTROL)
    params = {"positions": (view.selection.position,), **of_variant(variant, tuned, tail)}
    return {role: ProbeCall("lens", {**params, "targets": target}) for role, target in targets.items()}


@panel(
    "lens-tokens",
    "lens",
    "Ranks of several tokens",
    "Which candidates pass each other on the way?",
    ("lens", "Ranks of several tokens"),
    options={**LENS, "token": Option(str, "lens-token")},
)
def several(view: View, variant: str = "mean", tuned: str = "", tail: int = TAIL, token: str = "") -> Drawn:
    if variant == "tuned" and not tuned:
        raise Gap("No tuned lens was named: give one as the option `tuned`.")
    lines, suffix = [], SUFFIX[cast(Variant, variant)]
    for role, call in token_calls(view, variant, tuned, tail, token).items():
        read, target = view.beside(view.answer(call)), call.params["targets"]
        if target == "final":
            target = _final(read)
        elif target == "next":
            target = view.token_ids[view.selection.position + 1]
        lines.append(TokenLine(role, view.decode([target])[0], _ranks(read, suffix), control=role == "control"))
    figure = token_ranks(lines, view.facts.n_layers, view.facts.d_vocab)
    table = pd.concat([line.rows.assign(token=line.role, text=line.text) for line in lines], ignore_index=True)
    return Drawn(figure, f"Ranks of several tokens, {VARIANTS[variant]}", csv=table, place=POINT)


def _ranks(read: View, suffix: str) -> pd.DataFrame:
    metrics = read.table("token_metrics")
    rank, ce = (metric_rows(metrics, name + suffix).set_index("layer")["value"] for name in ("lens_rank", "lens_ce"))
    return pd.DataFrame({"rank": rank, "ce": ce}).reset_index()


def _final(read: View) -> int:
    """The model's own top token at the position that was read."""
    topk = read.table("lens_topk")
    return int(topk[(topk["layer"] == read.facts.n_layers) & (topk["rank"] == 1)]["token_id"].iloc[0])
