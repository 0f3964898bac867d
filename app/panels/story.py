"""Panels of the story of one number: its birth and writers, the sinks, what hangs on it, and other first tokens."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import pandas as pd

from app.figures.effect import effect_bars
from app.figures.massive import origin_bars
from app.figures.specification import specification_curve
from app.figures.trace import trace_lines
from app.panels import massive, sinks
from app.panels.interventions import heads_drawn
from app.panels.panel import POINT, Drawn, Option, panel
from app.panels.spectrum import convention_curve
from app.panels.test import costs, passes, picks
from app.story import Birth, Trace, damages, entry_points, entry_tests, followed, largest_birth, sink_test, traces
from app.text import markdown
from app.trial import Test
from app.view import Gap, View
from probes.checks import whole
from probes.errors import BadRequest
from probes.request import ProbeCall

__all__ = ["HEADS", "NO_STORY", "alpha_curve", "birth_of", "damage_table", "runners_of", "trace_table"]

T = TypeVar("T")
NO_STORY = "No block of this run writes a strictly massive activation: there is no such number to tell of."
HEADS = ProbeCall("head_effects", {"positions": "all"})
_NOT_STORED = "Not every pass of the story is stored: its page runs them."


def birth_of(view: View) -> Birth:
    """The number the story is of. Raises Gap where no block of the run writes one."""
    birth: Birth | None = view.memo("largest birth", lambda: largest_birth(view.result))
    if birth is None:
        raise Gap(NO_STORY)
    return birth


def runners_of(tests: Sequence[Test]) -> list[int]:
    """What the tests of the entry knew of the states beside it, as the option ``runners``."""
    return [test.runner_up for test in tests if test.runner_up is not None]


def damage_table(view: View, runners: Sequence[int] = ()) -> pd.DataFrame:
    """What each test of the entry cost, the clean run once. Raises Gap unless every pass is stored."""
    tests = _tests(view, tuple(runners))
    key = (tuple(test.run_ids for test in tests), view.answers)
    table: pd.DataFrame = view.memo(
        ("story damage", key), lambda: damages([(test, passes(view, test)) for test in tests])
    )
    return table


def trace_table(view: View) -> pd.DataFrame:
    """The dimension by reading and point. Raises Gap unless every reading is stored."""
    known = _readings(view)

    def read() -> pd.DataFrame:
        readings = [(trace, view.find_request(trace.request)) for trace in known]
        if any(result is None for _, result in readings):
            raise Gap(_NOT_STORED)
        return followed(readings)

    table: pd.DataFrame = view.memo(("story traces", tuple(trace.run_id for trace in known), view.answers), read)
    return table


def alpha_curve(view: View) -> tuple[int, pd.DataFrame]:
    """The point a fifth of the depth after the birth, and alpha there under every convention. Raises Gap without spectra."""
    depth = view.facts.n_layers
    point = min(birth_of(view).birth + round(depth / 5), depth)
    curve = convention_curve(view, point)
    if curve.empty or curve["alpha"].isna().all():
        raise Gap("There is no spectrum: this run did not ask for this point.")
    return point, curve


@panel("story-birth", "story", "Largest entries by point", "When is it born, and when does it die?",
       ("massive", "Largest entries by point"))  # fmt: skip
def birth(view: View) -> Drawn:
    birth_of(view)
    return massive.top(view)


@panel("story-writers", "story", "Writers", "Attention or MLP, and which neurons?",
       ("massive", "Birth, death and writers"))  # fmt: skip
def writers(view: View) -> Drawn:
    chosen = birth_of(view)
    events = view.table("massive_events")
    mine = events[
        (events["pos"] == chosen.position) & (events["dim"] == chosen.dim) & (events["birth"] == chosen.birth)
    ]
    return Drawn(
        view.figure("story-writers", lambda: origin_bars(mine.iloc[0], chosen.neurons)),
        f"Writers in block {chosen.block}",
        csv=lambda: massive.written(mine.iloc[0], chosen.neurons),
        pick=lambda click: {"point": chosen.birth, "position": chosen.position, "dimension": chosen.dim},
    )


@panel("story-sinks", "story", "Share of sink heads", "From which point on are there sinks?",
       ("sinks", "Share of sink heads"))  # fmt: skip
def sink_share(view: View) -> Drawn:
    return sinks.share(view)


@panel("story-damage", "story", "Perplexity after a change of one number", "Does it matter, and more than its controls?",
       ("interventions", "Test it"), options={"runners": Option(list)})  # fmt: skip
def damage(view: View, runners: list[Any] | None = None) -> Drawn:
    known = tuple(runners or ())
    if not all(map(whole, known)):
        raise BadRequest("runners must be dimensions, one for each point of a test.")
    table = damage_table(view, known)
    figure = view.figure("story-damage", lambda: effect_bars(table), known, view.answers)
    return Drawn(figure, csv=table, pick=picks(tuple(trial for test in _tests(view, known) for trial in test.trials)))


@panel("story-masked", "story", "Nobody may look at the position", "Are the sinks needed, or only there?",
       ("interventions", "Test it"))  # fmt: skip
def masked(view: View) -> Drawn:
    test = view.memo("story sink", lambda: _planned(lambda: sink_test(view.result, birth_of(view))))
    if test is None:
        raise Gap("No head of this run has its sink at position 0.")
    table = costs(view, test)
    return Drawn(
        view.figure("story-masked", lambda: effect_bars(table), view.answers),
        f"Nobody may look at position {test.target.position}, from block {test.target.layer} on",
        csv=table,
        pick=picks(test.trials),
    )


@panel("story-traces", "story", "The dimension under other first tokens", "Does the token make it, or the place?",
       ("story", "Position, not token"))  # fmt: skip
def other_tokens(view: View) -> Drawn:
    chosen, rows = birth_of(view), trace_table(view)
    depth = view.facts.n_layers
    return Drawn(
        view.figure("story-traces", lambda: trace_lines(rows, chosen.dim, depth), view.answers),
        f"Dimension {chosen.dim} under other first tokens",
        csv=rows,
        place=POINT,
    )


@panel("story-alpha", "story", "Alpha under every convention", "How much of the number is the convention?",
       ("spectra", "Specification curve"))  # fmt: skip
def alpha(view: View) -> Drawn:
    point, curve = alpha_curve(view)
    return Drawn(
        view.figure("story-alpha", lambda: specification_curve(curve), point),
        f"Alpha of point {point} under every convention",
        csv=curve,
        pick=lambda click: {"point": point},
    )


@panel("story-heads", "story", "Every head in turn", "Which head does the text need most?",
       ("interventions", "Heads"))  # fmt: skip
def heads(view: View) -> Drawn:
    largest = "Largest: head {head}, {value:.3f} nats a token over {n_used} tokens."
    drawn = heads_drawn(view, HEADS, "effect_nll", largest)
    return replace(drawn, question=drawn.note or "", note=None)


def _tests(view: View, runners: tuple[int, ...]) -> tuple[Test, ...]:
    chosen = birth_of(view)
    if runners and len(runners) != len(entry_points(view.result, chosen)):
        raise BadRequest(f"runners must be {len(entry_points(view.result, chosen))} dimensions, not {len(runners)}.")
    tests: tuple[Test, ...] = view.memo(
        ("story tests", runners), lambda: _planned(lambda: entry_tests(view.result, chosen, runners))
    )
    return tests


def _readings(view: View) -> tuple[Trace, ...]:
    """The readings of the text under other first tokens; its tokenizer is needed to make them."""

    def plan() -> tuple[Trace, ...]:
        view.services.tokenizer(view.info.model)
        return traces(view.services, view.result, birth_of(view))[0]

    found: tuple[Trace, ...] = view.memo("story readings", lambda: _planned(plan))
    return found


def _planned(plan: Callable[[], T]) -> T:
    """What can be planned of a run. Raises Gap, in a sentence, for what cannot."""
    try:
        return plan()
    except (BadRequest, OSError) as problem:
        raise Gap(markdown(str(problem))) from None
