"""A test of "does it matter?": its passes as requests, the job that runs them, and what they found. No streamlit."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from app.jobs import Job, Key
from app.services import Services
from probes.errors import BadRequest
from probes.progress import Progress
from probes.request import ProbeCall, RunRequest, capture_id, run_id
from probes.runner import RunResult
from probes.trials import Background, How, Target, Trial, trials

__all__ = [
    "EFFECTS",
    "Found",
    "Test",
    "background",
    "edited_request",
    "first_sink_block",
    "make_test",
    "planned_test",
    "submit",
    "summary",
]

EFFECTS = {
    "nll": "loss of the token, edited - clean (nats)",
    "effect_kl": "KL (clean || edited), nats",
    "effect_dlp": "log-probability lost by the clean answer, nats",
    "effect_hellinger": "Hellinger distance",
    "effect_jsd": "Jensen-Shannon divergence / ln 2",
    "effect_flip": "share of changed answers",
}

Found = tuple[tuple[Trial, RunResult], ...]
"""Passes of a test and their answers, the target first."""


@dataclass(frozen=True)
class Test:
    """One question of one run. ``run_ids`` are where the answers are, or will be.

    ``runner_up`` is the largest entry beside the target that is not massive, where a control is made of it: with it a
    test is planned again where the states of the run are gone.
    """

    __test__ = False  # not for pytest

    target: Target
    how: How
    clean: str
    trials: tuple[Trial, ...]
    requests: tuple[RunRequest, ...]
    run_ids: tuple[str, ...]
    runner_up: int | None = None

    @property
    def key(self) -> Key:
        return ("test", self.clean, self.target, self.how)

    def found(self, held: Services) -> Found:
        """What the store has of it so far, target first."""
        opened = ((trial, held.open(run)) for trial, run in zip(self.trials, self.run_ids, strict=True))
        return tuple((trial, result) for trial, result in opened if result is not None)


def edited_request(result: RunResult, trial: Trial, *calls: ProbeCall) -> RunRequest:
    """The run's own request under the edits of a trial, after those it has."""
    request = result.info.request
    return replace(request, probes=calls or request.probes, edits=(*request.edits, *trial.edits))


def make_test(result: RunResult, target: Target, how: How, runner_up: int | None = None) -> Test:
    """Plan a test of a run; ``runner_up`` where it is known already. Raises BadRequest for a place the run does not have."""
    facts, n_tokens = result.facts, result.info.n_tokens
    ends = {
        "layer": facts.n_layers if target.kind in ("entry", "dimension") else facts.n_layers - 1,
        "position": n_tokens - 1,
        "head": facts.n_heads - 1,
        "dim": facts.d_model - 1,
    }
    for name, end in ends.items():
        given = getattr(target, name)
        if given is not None and given > end:
            raise BadRequest(f"{name} of a test lies in 0..{end} here, not {given}.")
    known = background(result, target, runner_up)
    test = planned_test(result, target, how, trials(target, how, facts, n_tokens, known))
    return replace(test, runner_up=known.runner_up)


def planned_test(result: RunResult, target: Target, how: How, planned: tuple[Trial, ...]) -> Test:
    """The test that makes these passes, each against the clean run."""
    call = ProbeCall("effect", {"against": result.info.run_id})
    requests = tuple(replace(edited_request(result, trial, call), mask="all") for trial in planned)
    ids = tuple(run_id(capture_id(result.facts, r.token_ids, r.edits), r) for r in requests)
    return Test(target, how, result.info.run_id, planned, requests, ids)


def background(result: RunResult, target: Target, runner_up: int | None = None) -> Background:
    """What controls must avoid, from the tables of the clean run and the state at the target (or the runner-up there).

    Raises BadRequest where the run does not know it: controls drawn blindly would be none.
    """
    if target.kind in ("sink", "key"):
        tokens = result.table("token_metrics")
        counted = tokens[tokens["metric"] == "sink_heads"] if not tokens.empty else tokens
        if counted.empty:
            raise BadRequest(
                "This run did not ask for sinks, so no control can be drawn: run the text with the probe sinks."
            )
        return Background(sinks=frozenset(counted.loc[counted["value"] > 0, "pos"].astype(int)))
    massive = result.table("massive")
    strict = massive[massive["strict"].astype(bool)] if not massive.empty else massive
    pairs = (
        frozenset(zip(strict["pos"].astype(int), strict["dim"].astype(int), strict=True))
        if len(strict)
        else frozenset()
    )
    asked = target.kind == "entry" and runner_up is not None
    return Background(pairs, runner_up=runner_up if asked else _runner_up(result, target, pairs))


def largest_event(result: RunResult) -> pd.Series | None:
    """The birth (a row of massive_events) of the entry that grows largest in its life; None if a block wrote none."""
    events, entries = result.table("massive_events"), result.table("massive")
    born = events[events["birth"] > 0] if not events.empty else events
    if born.empty or entries.empty:
        return None
    sizes = entries.assign(size=entries["value"].abs())
    joined = born.reset_index().merge(sizes[["pos", "dim", "layer", "size"]], on=["pos", "dim"])
    death = pd.to_numeric(joined["death"], errors="coerce").fillna(float("inf"))  # missing: to the end
    alive = (joined["layer"] >= joined["birth"]) & (joined["layer"] < death)
    if not alive.any():
        return None
    return born.loc[joined[alive].groupby("index")["size"].max().idxmax()]


def first_sink_block(result: RunResult) -> int | None:
    """The first block in which a head has its sink at position 0; None if there is none, or nobody looked."""
    heads = result.table("head_metrics")
    flagged = heads[(heads["metric"] == "is_sink") & (heads["value"] == 1)] if not heads.empty else heads
    return None if flagged.empty else int(flagged["layer"].min())


def submit(held: Services, test: Test) -> Job:
    """Run what the store does not have yet, target first."""

    def work(progress: Progress) -> str:
        for index, request in enumerate(test.requests):
            part = progress.part(index / len(test.requests), (index + 1) / len(test.requests))
            part.step(0.0, test.trials[index].label)
            held.runner.run(request, part)
        return test.run_ids[0]

    return held.desk.submit(test.requests[0].model, test.key, "Test", work)


def summary(found: Found) -> pd.DataFrame:
    """One row a pass: what was changed, its role, perplexity, share of sink heads and the mean effect measures.

    The first row is the clean run, as the passes themselves saw it.
    """
    rows: list[dict[str, object]] = []
    for trial, result in found:
        values = _numbers(result)
        if not rows:
            clean = {"perplexity": values["perplexity_clean"], "sink_share_on": values["sink_share_on_clean"]}
            rows.append({"changed": "nothing (clean)", "role": "clean", **clean})
        rows.append({"changed": trial.label, "role": trial.role, **values})
    columns = ["changed", "role", "perplexity", "sink_share_on", *(e for e in EFFECTS if e != "nll")]
    return pd.DataFrame(rows).reindex(columns=columns)


def _numbers(result: RunResult) -> Mapping[str, float]:
    rows = result.table("layer_metrics")
    rows = rows[rows["layer"].isna()]
    return dict(zip(rows["metric"], rows["value"].astype(float), strict=True))


def _runner_up(result: RunResult, target: Target, massive: frozenset[tuple[int, int]]) -> int | None:
    if target.kind != "entry" or target.position is None:
        return None
    try:
        state = result.tensor(f"resid.{target.layer}")[target.position].abs().numpy().copy()
    except KeyError:
        raise BadRequest(
            "The states of this run are no longer kept: run the text again to test an entry of it."
        ) from None
    state[[d for at, d in massive if at == target.position] + [int(target.dim or 0)]] = -1.0
    return int(np.argmax(state))
