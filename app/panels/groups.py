"""Panels of two groups of a prompt set: means, difference, every prompt, and the sign over conventions of alpha."""

from typing import Any, Literal

import numpy as np
import pandas as pd

from analysis.groups import GroupComparison
from analysis.outliers import robust_z
from app.figures.groups import difference_line, mean_lines, prompt_heatmap, sign_curve
from app.figures.spectra_layers import METRICS
from app.groups import GroupAsk, compared, measured, specified
from app.panels.panel import POINT, Drawn, Option, Place, panel
from app.text import markdown, plot_label, printable
from app.view import Gap, View
from probes.errors import BadRequest
from probes.prompts.library import find_set
from probes.request import DEFAULT_PROBES, RunRequest
from probes.set_sweep import SetAsk
from probes.set_values import set_values

__all__ = ["SIDES", "ask_of", "headline", "options_of", "titled"]

SIDES: dict[str, Option] = {
    "prompts": Option(str, "sets-set"), "first": Option(str, "groups-first"), "second": Option(str, "groups-second"),
    "metric": Option(str, "groups-metric"), "n": Option(int, "groups-n"), "chat": Option(bool),
    "bos": Option(bool, "sets-bos"),
}  # fmt: skip
_SPECIFIED = {name: option for name, option in SIDES.items() if name != "metric"} | {
    "layer": Option(int),
    "overall": Option(bool),
}
_NULLS = {"alpha_null": "permuted columns", "alpha_null_iid": "Gaussian"}


def options_of(ask: GroupAsk) -> dict[str, Any]:
    """A comparison as options of its panels; model and mask are those of the run they are drawn beside."""
    names = {"prompts": ask.asked.prompts.name, "first": ask.first, "second": ask.second, "metric": ask.metric}
    return {**names, "n": ask.n, "chat": ask.asked.chat, "bos": ask.asked.bos}


def ask_of(view: View, prompts: str, first: str, second: str, metric: str, n: int, chat: bool, bos: bool) -> GroupAsk:
    """The comparison that options mean, on the model and mask of a run. Raises Gap for a set that is not there."""
    try:
        found = find_set(view.services.store, prompts)
    except BadRequest as problem:
        raise Gap(markdown(str(problem))) from None
    like = RunRequest(view.info.model, (0,), DEFAULT_PROBES, mask=view.info.mask, dtype=view.info.dtype)
    return GroupAsk(SetAsk(found, like, chat, bos), first, second, metric, n)


@panel("groups-means", "groups", "Both groups by layer", "Where along the model do the groups differ?",
       ("statistics", "Two groups"), options=SIDES)  # fmt: skip
def means(
    view: View, prompts: str = "", first: str = "", second: str = "", metric: str = "alpha_sigma", n: int = 0,
    chat: bool = False, bos: bool = True,
) -> Drawn:  # fmt: skip
    ask = ask_of(view, prompts, first, second, metric, n, chat, bos)
    comparison, found = _compared(view, ask)
    nulls = None
    if metric.startswith("alpha_sigma"):
        own = [(group, found.values.part(found.of(group)).run_ids) for group in (first, second)]
        nulls = pd.concat([_null(view, runs, metric, name, group) for name in _NULLS for group, runs in own])
    figure = mean_lines(comparison.table, (first, second), titled(metric), nulls)
    return Drawn(figure, note=headline(ask, comparison), csv=comparison.table, place=POINT)


@panel("groups-difference", "groups", "Difference by layer", "How large is it, and how sure?",
       ("statistics", "Two groups"), options=SIDES)  # fmt: skip
def difference(
    view: View, prompts: str = "", first: str = "", second: str = "", metric: str = "alpha_sigma", n: int = 0,
    chat: bool = False, bos: bool = True,
) -> Drawn:  # fmt: skip
    ask = ask_of(view, prompts, first, second, metric, n, chat, bos)
    comparison, _ = _compared(view, ask)
    table = comparison.table
    tested = table["p_bh"].notna()
    below = int((table["p_bh"] < 0.05).sum())
    note = (
        f"{markdown(first)} − {markdown(second)}; 95 % intervals of Welch's t. {below} of {int(tested.sum())} points have "
        "p below .05 after Benjamini-Hochberg (filled)."
        if tested.any()
        else markdown(_sentence(comparison.refusal or "no point can be tested"))
    )
    return Drawn(difference_line(table, f"difference of {titled(metric)}"), note=note, csv=table, place=POINT)


@panel("groups-prompts", "groups", "Every prompt", "Is it the groups, or a few prompts?",
       ("statistics", "Two groups"), options={**SIDES, "colour": Option(("value", "z"), "groups-colour")})  # fmt: skip
def prompts_(
    view: View, prompts: str = "", first: str = "", second: str = "", metric: str = "alpha_sigma", n: int = 0,
    chat: bool = False, bos: bool = True, colour: Literal["value", "z"] = "value",
) -> Drawn:  # fmt: skip
    ask = ask_of(view, prompts, first, second, metric, n, chat, bos)
    found = _measured(view, ask)
    order = np.concatenate([np.flatnonzero(found.of(group)) for group in (first, second)])
    if not order.size:
        raise Gap("No prompt of either group was run yet.")
    groups = [found.groups[place] for place in order]
    ids = [found.ids[place] for place in order]
    values = found.values.values[order]
    if colour == "z":
        values = np.concatenate([robust_z(found.values.values[found.of(group)]) for group in (first, second)])
    figure = prompt_heatmap(values, ids, groups, titled(metric), standardised=colour == "z")
    runs = [found.runs[place] for place in order]
    points = np.arange(values.shape[1])
    table = pd.DataFrame(values, columns=[f"point {point}" for point in points])
    table.insert(0, "prompt", [printable(one) for one in ids])
    table.insert(1, "group", [printable(one) for one in groups])
    table.insert(2, "run_id", runs)
    return Drawn(figure, csv=table, place=Place(None, "point"))


@panel("groups-conventions", "groups", "The sign under every convention of alpha",
       "Would another way to compute alpha turn the difference round?",
       ("statistics", "Sign over conventions"), options=_SPECIFIED)  # fmt: skip
def conventions(
    view: View, prompts: str = "", first: str = "", second: str = "", n: int = 0, chat: bool = False, bos: bool = True,
    layer: int = 0, overall: bool = True,
) -> Drawn:  # fmt: skip
    if not n:
        raise Gap("Conventions are compared at a matched length only: choose one.")
    ask = ask_of(view, prompts, first, second, "alpha_sigma", n, chat, bos)
    try:
        found = specified(view.services, ask, None if overall else layer)
    except BadRequest as problem:
        raise Gap(markdown(str(problem))) from None
    signs = found.signs
    where = "means over points" if overall else f"point {layer}"
    note = (
        f"{where}, {n} tokens: {markdown(first)} is steeper under {signs.steeper} and flatter under {signs.flatter} of "
        f"{signs.n_used} conventions defined (of {len(found.table)}); {found.same_sign:.0%} have the sign of the headline, "
        f"{found.clear_same} of them with an interval without 0, and {found.clear_other} clearly the other sign."
    )
    return Drawn(sign_curve(found.table, "difference of alpha"), note=note, csv=found.table)


def headline(ask: GroupAsk, comparison: GroupComparison) -> str:
    """The difference of the means over points in a sentence."""
    row = comparison.overall
    apart = f"**{markdown(ask.first)} − {markdown(ask.second)} = {row['difference']:+.4g}**"
    over = f"mean over {comparison.n_layers} points, {row['n_first']:.0f} and {row['n_second']:.0f} prompts"
    length = f"at {ask.n} tokens each" if ask.n else f"mean lengths within {100 * (comparison.length_ratio - 1):.1f} %"
    if comparison.refusal is not None:
        return f"{apart} ({over}). No test: {markdown(comparison.refusal)}."
    told = (
        f"{apart}, 95 % interval {row['low']:.4g} to {row['high']:.4g}, p = {row['p']:.2g} (labels permuted "
        f"{row['p_permuted']:.2g}), Hedges g = {row['g']:.2f} [{row['g_low']:.2f}, {row['g_high']:.2f}]; {over}, {length}."
    )
    return told + (" Exploratory: fewer than 20 prompts in a group." if comparison.exploratory else "")


def titled(metric: str) -> str:
    """What a metric is called, with its preparation."""
    name, _, prep = metric.partition("@")
    return METRICS.get(name, name.replace("_", " ")) + (f" ({prep.replace('_', ' ')})" if prep else "")


def _compared(view: View, ask: GroupAsk) -> Any:
    try:
        return compared(view.services, ask)
    except BadRequest as problem:
        raise Gap(markdown(str(problem))) from None


def _measured(view: View, ask: GroupAsk) -> Any:
    try:
        return measured(view.services, ask)
    except BadRequest as problem:
        raise Gap(markdown(str(problem))) from None


def _null(view: View, run_ids: tuple[str, ...], metric: str, name: str, group: str) -> pd.DataFrame:
    """Alpha of a null at each point, the mean over the prompts of a group; nothing where the convention has none."""
    if metric != "alpha_sigma":
        return pd.DataFrame(columns=["layer", "value", "name"])
    values = set_values(view.services.store, run_ids, name).values
    defined = np.isfinite(values).any(axis=0)
    mean = np.full(values.shape[1], np.nan)
    mean[defined] = np.nanmean(values[:, defined], axis=0)
    return pd.DataFrame(
        {"layer": np.arange(values.shape[1]), "value": mean, "name": f"{_NULLS[name]}, {plot_label(group)}"}
    )


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + "."
