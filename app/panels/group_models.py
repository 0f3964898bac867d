"""Panels of one prompt set in two models: both by layer, and the group difference in each."""

from typing import Any

import numpy as np

from analysis.reversal import Reversal
from app.figures.groups import mean_lines, reversal_lines
from app.group_models import ModelComparison, compared_models, in_model
from app.groups import measured
from app.panels.groups import SIDES, ask_of, titled
from app.panels.panel import POINT, Drawn, Option, panel
from app.text import markdown
from app.view import Gap, View
from probes.errors import BadRequest

__all__ = ["verdict"]

_MODELS = {**SIDES, "other": Option(str)}


@panel("groups-models", "groups", "Both models by layer", "What does the other model do with the same prompts?",
       ("statistics", "Pairs and reversal"), options=_MODELS)  # fmt: skip
def models(
    view: View, prompts: str = "", first: str = "", second: str = "", metric: str = "alpha_sigma", n: int = 0,
    chat: bool = False, bos: bool = True, other: str = "",
) -> Drawn:  # fmt: skip
    found = _found(view, other, prompts=prompts, first=first, second=second, metric=metric, n=n, chat=chat, bos=bos)
    row = found.change.overall
    note = (
        f"**B − A = {row['difference']:+.4g}**, 95 % interval {row['low']:.4g} to {row['high']:.4g}, p = {row['p']:.2g} "
        f"(paired t), mean over {found.change.n_layers} points of {found.n_prompts} prompts. A is {markdown(view.info.model)}, "
        f"B {markdown(other)}."
    )
    if found.refusal is not None:
        raise Gap(f"No test: {markdown(found.refusal)}.")
    if not found.by_layer:
        raise Gap(f"The models have different numbers of layers, so only means over points can be compared. {note}")
    names = (f"A {view.info.model}", f"B {other}")
    return Drawn(mean_lines(found.change.table, names, titled(metric)), note=note, csv=found.change.table, place=POINT)


@panel("groups-reversal", "groups", "The group difference in both models", "Does it turn round, or change at all?",
       ("statistics", "Pairs and reversal"), options=_MODELS)  # fmt: skip
def turned(
    view: View, prompts: str = "", first: str = "", second: str = "", metric: str = "alpha_sigma", n: int = 0,
    chat: bool = False, bos: bool = True, other: str = "",
) -> Drawn:  # fmt: skip
    found = _found(view, other, prompts=prompts, first=first, second=second, metric=metric, n=n, chat=chat, bos=bos)
    if found.turned is None:
        raise Gap("One of the groups has no prompt that was run on both models.")
    if found.refusal is not None:
        raise Gap(f"No test: {markdown(found.refusal)}.")
    note = f"{markdown(first)} − {markdown(second)}. {verdict(found.turned)}"
    if not found.by_layer:
        raise Gap(note)
    table = found.turned.table
    figure = reversal_lines(table, (view.info.model, other), f"difference of {titled(metric)}")
    return Drawn(figure, note=note, csv=table, place=POINT)


def verdict(found: Reversal) -> str:
    """Whether the difference turns round, in words."""
    before, after, moved = (one.overall for one in (found.base, found.instruct, found.interaction))
    told = (
        f"A {before['difference']:+.4g} [{before['low']:.4g}, {before['high']:.4g}], "
        f"B {after['difference']:+.4g} [{after['low']:.4g}, {after['high']:.4g}], "
        f"interaction B − A {moved['difference']:+.4g} [{moved['low']:.4g}, {moved['high']:.4g}], p = {moved['p']:.2g}."
    )
    if found.refusal is not None:
        return f"No test: {markdown(found.refusal)}."
    if found.reverses is None or np.isnan(moved["p"]):
        return f"Too few prompts for intervals. {told}"
    said = (
        "It **turns round**: opposite signs, both intervals exclude 0."
        if found.reverses
        else "It does **not** turn round."
    )
    return f"{said} {told}"


def _found(view: View, other: str, *, first: str, second: str, metric: str, **sides: Any) -> ModelComparison:
    if not other:
        raise Gap("No second model was chosen.")
    ask = ask_of(view, first=first, second=second, metric=metric, **sides)
    try:
        runs = [measured(view.services, one).values.run_ids for one in (ask, in_model(ask, other))]
        found: ModelComparison = view.services.memo.get(
            ("models", tuple(runs), first, second, metric), lambda: compared_models(view.services, ask, other)
        )
    except (BadRequest, OSError) as problem:
        raise Gap(markdown(str(problem))) from None
    return found
