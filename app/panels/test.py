"""Panels of a test: what taking something away cost, what it did to the sinks, and which tokens lose it."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from app.figures.effect import effect_bars, effect_by_position, sink_shares
from app.panels.panel import POINT, POSITION, Click, Drawn, Option, Pick, panel
from app.text import markdown
from app.trial import EFFECTS, Found, Test, make_test, summary
from app.view import Gap, View
from probes.checks import whole
from probes.errors import BadRequest
from probes.runner import RunResult
from probes.trials import HOW, How, Target, Trial

__all__ = ["as_target", "costs", "passes", "picks", "plan", "read_target", "told"]

Given = dict[str, Any] | None
_PARTS = ("layer", "position", "head", "dim")
_TEST = {"target": Option(dict, "test-target"), "how": Option(HOW, "test-how")}
_NOTHING = 'No test was asked for: give a target, such as `{"kind": "head", "layer": 3, "head": 1}`.'


def as_target(test: Test) -> dict[str, Any]:
    """What a test is of, as the option ``target``: the parts of its place, and the runner-up its controls know."""
    known = asdict(test.target) | {"runner_up": test.runner_up}
    return {name: value for name, value in known.items() if value is not None}


def read_target(target: Mapping[str, Any]) -> tuple[Target, int | None]:
    """A target as :func:`as_target` wrote it. Raises BadRequest for what cannot be meant."""
    unknown = [name for name in target if name not in ("kind", *_PARTS, "runner_up")]
    if unknown:
        raise BadRequest(f"A target has no {str(unknown[0])[:64]!r}; it has kind, {', '.join(_PARTS)} and runner_up.")
    for name in (*_PARTS, "runner_up"):
        if name in target and not whole(target[name]):
            raise BadRequest(f"{name} of a target must be a whole number from 0, not {str(target[name])[:64]!r}.")
    parts: dict[str, Any] = {"kind": str(target.get("kind"))} | {name: target.get(name) for name in _PARTS}
    return Target(**parts), target.get("runner_up")


def plan(view: View, target: Target, how: How, runner_up: int | None = None) -> Test:
    """A test of the run, planned once. Raises BadRequest as :func:`app.trial.make_test` does."""
    test: Test = view.memo(("test", target, how, runner_up), lambda: make_test(view.result, target, how, runner_up))
    return test


def passes(view: View, test: Test) -> Found:
    """Every pass of a test with its answer. Raises Gap unless all are there."""
    asked = [(trial, view.find_request(request)) for trial, request in zip(test.trials, test.requests, strict=True)]
    found = tuple((trial, result) for trial, result in asked if result is not None)
    if len(found) < len(asked):
        raise Gap(f"Of the {len(asked)} passes of this test {len(asked) - len(found)} are not stored: ask for it anew.")
    return found


def costs(view: View, test: Test) -> pd.DataFrame:
    """What each pass of a test cost, the clean run first, read once. Raises Gap as :func:`passes` does."""
    table: pd.DataFrame = view.memo(("costs", test.run_ids, view.answers), lambda: summary(passes(view, test)))
    return table


def picks(trials: tuple[Trial, ...]) -> Pick:
    """A click on the row of a pass, below that of the clean run, selects what the pass changes."""

    def pick(click: Click) -> dict[str, int | None]:
        row = round(click.y) - 1
        return _place(trials[row]) if 0 <= row < len(trials) else {}

    return pick


def told(test: Test) -> str:
    """What is tested, in Markdown."""
    verb = "" if test.target.kind in ("sink", "key") else " set to zero" if test.how == "zero" else " set to its mean"
    place = f" at point {test.target.layer}" if test.target.kind in ("entry", "dimension") else ""
    return f"{markdown(test.trials[0].label)}{place}{verb}"


@panel("test-perplexity", "interventions", "What the text costs", "Does it matter, and more than its controls?",
       ("interventions", "Test it"), options=_TEST)  # fmt: skip
def perplexity(view: View, target: Given = None, how: How = "zero") -> Drawn:
    test = _asked(view, target, how)
    table = costs(view, test)
    figure = view.figure("test-perplexity", lambda: effect_bars(table), test.run_ids, view.answers)
    return Drawn(figure, f"What the text costs: {told(test)}", csv=table, pick=picks(test.trials))


@panel("test-sinks", "interventions", "Sink heads", "Do the heads still rest on position 0?",
       ("interventions", "Sinks after a change"), options=_TEST)  # fmt: skip
def sinks(view: View, target: Given = None, how: How = "zero") -> Drawn:
    test = _asked(view, target, how)

    def read() -> list[tuple[str, str, pd.DataFrame]]:
        return [
            (trial.label, trial.role, _shares(result.table("layer_metrics"))) for trial, result in passes(view, test)
        ]

    clean = _shares(view.table("layer_metrics"))
    curves: list[tuple[str, str, pd.DataFrame]] = view.memo(("test sinks", test.run_ids, view.answers), read)
    if curves[0][2].empty:
        raise Gap("Below 32 tokens no head is called a sink.")
    figure = view.figure(
        "test-sinks", lambda: sink_shares(clean, curves, view.facts.n_layers), test.run_ids, view.answers
    )
    every = [("nothing (clean)", "clean", clean), *curves]
    tables = [rows.assign(changed=label, role=role) for label, role, rows in every if len(rows)]
    return Drawn(figure, f"Sink heads: {told(test)}", csv=lambda: pd.concat(tables, ignore_index=True), place=POINT)


@panel("test-along", "interventions", "Along the text", "Which tokens lose it?", ("interventions", "Effect measures"),
       options={**_TEST, "measure": Option(tuple(EFFECTS), "test-measure")})  # fmt: skip
def along(view: View, target: Given = None, how: How = "zero", measure: str = "nll") -> Drawn:
    test = _asked(view, target, how)

    def read() -> list[tuple[str, str, NDArray[np.float64]]]:
        found, count = passes(view, test), len(view.tokens)
        clean = _by_position(found[0][1], "nll_clean", count) if measure == "nll" else 0.0
        return [(t.label, t.role, _by_position(result, measure, count) - clean) for t, result in found]

    key = (test.run_ids, view.answers, measure)
    curves: list[tuple[str, str, NDArray[np.float64]]] = view.memo(("test along", *key), read)
    first, tokens = view.sight()
    seen = [(label, role, values[first : first + len(tokens)]) for label, role, values in curves]
    figure = view.figure(
        "test-along", lambda: effect_by_position(seen, tokens, EFFECTS[measure], first=first), *key, first
    )

    def numbers() -> pd.DataFrame:
        return pd.DataFrame(
            {"pos": range(len(view.tokens)), "token": view.tokens} | {label: values for label, _, values in curves}
        )

    return Drawn(figure, f"Along the text: {told(test)}", csv=numbers, place=POSITION)


def _asked(view: View, target: Given, how: How) -> Test:
    """The test of a panel. Raises Gap for none, and for one this run cannot be put to."""
    if not target:
        raise Gap(_NOTHING)
    chosen, runner_up = read_target(target)
    try:
        return plan(view, chosen, how, runner_up)
    except BadRequest as problem:
        raise Gap(markdown(str(problem))) from None


def _shares(layers: pd.DataFrame) -> pd.DataFrame:
    """Rows of the share of sink heads by point."""
    if layers.empty:
        return pd.DataFrame(columns=["layer", "metric", "value"])
    return layers[layers["metric"] == "sink_share"]


def _by_position(result: RunResult, metric: str, count: int) -> NDArray[np.float64]:
    rows = result.table("token_metrics")
    here = rows[rows["metric"] == metric].set_index("pos")["value"].astype(float)
    return np.asarray(here.reindex(range(count)), dtype=np.float64)


def _place(trial: Trial) -> dict[str, int | None]:
    """The parts of the selection that a pass changes, where it changes one of them."""
    edit = trial.edits[0]
    chosen: dict[str, int | None] = {"point": edit.layer if edit.site == "resid" else edit.layer + 1}
    heads = None if edit.site == "value" else edit.heads  # those of values are heads of keys and values
    for part, places in (("position", edit.positions or edit.keys), ("head", heads), ("dimension", edit.dims)):
        if isinstance(places, tuple) and len(places) == 1:
            chosen[part] = places[0]
    return chosen
