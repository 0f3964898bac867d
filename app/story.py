"""One number in four million: the largest massive entry of a run, from birth to damage, told from runs of the store.

Nothing here is known beforehand: every number and sentence comes from the tables of the run and of the passes it plans.
No streamlit: the page and the article of docs/ tell the same.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pandas as pd

from app.jobs import Job
from app.services import Services
from app.trial import Found, Test, first_sink_block, largest_event, make_test, planned_test, summary
from probes.errors import BadRequest
from probes.model.edits import Edit
from probes.progress import Progress
from probes.request import ProbeCall, RunRequest, capture_id, run_id
from probes.runner import RunResult
from probes.trials import Target, Trial
from probes.variations import Variation

__all__ = [
    "Birth", "Plan", "Trace", "damage", "damages", "entry_points", "entry_tests", "followed", "largest_birth", "make_plan",
    "missing", "sink_test", "submit", "traced", "traces",
]  # fmt: skip

_FIRST = ("Hello",)  # one first token more, beside those of TRY: an ordinary word
_CHAT = "in a chat"
_NUDGE = 1.01


@dataclass(frozen=True)
class Birth:
    """The largest massive entry: where it is, from which point on (``death`` None: to the end), and who wrote it."""

    position: int
    dim: int
    birth: int
    death: int | None
    value: float
    median: float
    attn: float
    mlp: float
    neurons: pd.DataFrame

    @property
    def block(self) -> int:
        return self.birth - 1

    def writers(self, share: float = 0.95) -> pd.DataFrame:
        """The fewest neurons that write this share of what the MLP adds, the largest first; all known ones if too few."""
        ordered = self.neurons.sort_values("contribution", key=lambda c: c.abs(), ascending=False)
        enough = (ordered["contribution"].cumsum() / self.mlp).ge(share)
        return ordered.head(int(enough.to_numpy().argmax()) + 1 if enough.any() else len(ordered))


@dataclass(frozen=True)
class Trace:
    """The dimension followed in another reading of the text, at positions that hold the same first token.

    ``label`` holds the raw token: every surface escapes it itself.
    """

    label: str
    request: RunRequest
    run_id: str
    positions: tuple[int, ...]


@dataclass(frozen=True)
class Plan:
    """The passes the story is told from. ``skipped`` says which readings could not be made, and why."""

    birth: Birth
    points: tuple[int, ...]
    tests: tuple[Test, ...]
    sink: Test | None
    traces: tuple[Trace, ...]
    skipped: tuple[str, ...]

    def requests(self) -> tuple[tuple[str, RunRequest], ...]:
        """Every pass with the id its answer has."""
        tests = (*self.tests, *(() if self.sink is None else (self.sink,)))
        of_tests = [pair for test in tests for pair in zip(test.run_ids, test.requests, strict=True)]
        return (*of_tests, *((trace.run_id, trace.request) for trace in self.traces))


def largest_birth(result: RunResult) -> Birth | None:
    """The massive entry that grows largest; None if the run has none that a block wrote."""
    row = largest_event(result)
    if row is None:
        return None
    entries = result.table("massive")
    pos, dim, birth = int(row["pos"]), int(row["dim"]), int(row["birth"])
    at = entries[(entries["layer"] == birth) & (entries["pos"] == pos) & (entries["dim"] == dim)].iloc[0]
    neurons = result.table("massive_neurons")
    if neurons.empty:
        neurons = pd.DataFrame(columns=["pos", "dim", "layer", "neuron", "contribution"])
    mine = neurons[(neurons["pos"] == pos) & (neurons["dim"] == dim) & (neurons["layer"] == birth - 1)]
    death = None if pd.isna(row["death"]) else int(row["death"])
    deltas = float(row["attn_delta"]), float(row["mlp_delta"])
    return Birth(pos, dim, birth, death, float(at["value"]), float(at["median"]), *deltas, mine)


def make_plan(held: Services, result: RunResult, birth: Birth) -> Plan:
    """Plan the story of a run: its entry tested, position 0 masked as a key, and the dimension under other first tokens."""
    tests, sink = entry_tests(result, birth), sink_test(result, birth)
    found, skipped = traces(held, result, birth)
    return Plan(birth, entry_points(result, birth), tests, sink, found, skipped)


def entry_points(result: RunResult, birth: Birth) -> tuple[int, ...]:
    """Where the entry is tested: at its birth, and every fifth of the depth on while it lives."""
    depth = result.facts.n_layers
    end = depth + 1 if birth.death is None else birth.death
    return tuple(p for p in (birth.birth + i * round(depth / 5) for i in range(3)) if p < end)


def entry_tests(result: RunResult, birth: Birth, runners: Sequence[int] = ()) -> tuple[Test, ...]:
    """The entry to zero at each point, with controls, and to its mean; at its birth also 1 % more.

    ``runners`` are the runners-up of the tests at each point, where they are known. Raises BadRequest as
    :func:`app.trial.make_test` does.
    """
    tests = []
    for index, point in enumerate(entry_points(result, birth)):
        runner = runners[index] if index < len(runners) else None
        target = Target("entry", point, position=birth.position, dim=birth.dim)
        tests.append(make_test(result, target, "zero", runner))
        mean = make_test(result, target, "mean", tests[-1].runner_up)
        tests.append(planned_test(result, target, "mean", mean.trials[:1]))
        if point == birth.birth:
            nudged = Edit("resid", point, "set", birth.value * _NUDGE, positions=(birth.position,), dims=(birth.dim,))
            label = f"position {birth.position}, dimension {birth.dim}, 1 % more"
            tests.append(planned_test(result, target, "zero", (Trial(label, "variant", (nudged,)),)))
    return tuple(tests)


def sink_test(result: RunResult, birth: Birth) -> Test | None:
    """The position of the entry masked as a key from the first block with sinks on; None if there are no sinks."""
    start = first_sink_block(result)
    return None if start is None else make_test(result, Target("sink", start, position=birth.position), "zero")


def missing(held: Services, plan: Plan) -> int:
    """How many passes of the story the store does not have."""
    return sum(held.open(run) is None for run, _ in plan.requests())


def submit(held: Services, plan: Plan) -> Job:
    """Run what is missing, in the background."""

    def work(progress: Progress) -> int:
        wanted = plan.requests()
        for index, (_, request) in enumerate(wanted):
            part = progress.part(index / len(wanted), (index + 1) / len(wanted))
            part.step(0.0, f"pass {index + 1} of {len(wanted)}")
            held.runner.run(request, part)
        return len(wanted)

    first = plan.requests()[0]
    return held.desk.submit(first[1].model, ("story", first[0]), "The story's passes", work)


def damage(held: Services, plan: Plan) -> pd.DataFrame:
    """:func:`damages` of what is stored."""
    return damages([(test, test.found(held)) for test in plan.tests])


def damages(tests: Sequence[tuple[Test, Found]]) -> pd.DataFrame:
    """What every test of the entry cost: rows as :func:`app.trial.summary`, with the point, the clean run once."""
    frames: list[pd.DataFrame] = []
    for test, found in tests:
        table = summary(found).assign(point=test.target.layer)
        how = " to its mean" if test.how == "mean" else " to zero"
        target = table["role"] == "target"
        table.loc[target, "changed"] = f"point {test.target.layer}: entry" + how
        table.loc[~target, "changed"] = f"point {test.target.layer}: " + table["changed"]
        clean = table["role"] == "clean"
        table.loc[clean, "changed"] = "nothing (clean)"
        frames.append(table if not frames else table[~clean])
    return pd.concat(frames, ignore_index=True)


def traced(held: Services, plan: Plan) -> pd.DataFrame:
    """:func:`followed` of what is stored."""
    return followed([(trace, held.open(trace.run_id)) for trace in plan.traces])


def followed(readings: Sequence[tuple[Trace, RunResult | None]]) -> pd.DataFrame:
    """The dimension by reading and point: ``reading``, ``pos``, ``layer``, ``value``."""
    frames = []
    for trace, result in readings:
        if result is not None:
            rows = result.table("token_metrics")[["pos", "layer", "value"]]
            frames.append(rows.assign(reading=trace.label))
    return (
        pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=["reading", "pos", "layer", "value"])
    )


def traces(held: Services, result: RunResult, birth: Birth) -> tuple[tuple[Trace, ...], tuple[str, ...]]:
    """The dimension followed under other first tokens, and why some of these readings cannot be made."""
    wanted = (
        ("as it is", None),
        ("another special token", Variation("first_token")),
        ("without BOS", Variation("no_bos")),
        *(("a word in its place", Variation("first_token", text)) for text in _FIRST),
        (_CHAT, Variation("chat")),
    )
    found, skipped = [], []
    for reading, variation in wanted:
        try:
            request = result.info.request if variation is None else held.varied(result, variation)[0]
        except BadRequest as problem:
            skipped.append(str(problem))
            continue
        first = request.token_ids[0]
        again = [i for i, token in enumerate(request.token_ids) if token == first] if reading == _CHAT else [0]
        call = ProbeCall("trace", {"dim": birth.dim, "positions": tuple(again)})
        request = replace(request, probes=(call,), mask="all")
        [text] = held.decode(result.info.model, (first,))
        name = f"{reading}: {text}"
        key = run_id(capture_id(result.facts, request.token_ids, request.edits), request)
        found.append(Trace(name, request, key, tuple(again)))
    return tuple(found), tuple(skipped)
