"""P10: a set of 100 prompts of 64 tokens in a sweep, against as many single runs; both into stores of their own."""

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from cache.store import Store
from probes.memory import PeakMemory, release
from probes.model.catalog import EMBEDDED
from probes.model.shelf import Shelf
from probes.model.tokenise import text_ids
from probes.parallel import n_workers
from probes.plan import batch_bytes
from probes.progress import Progress
from probes.prompts.sets import built_in
from probes.request import DEFAULT_PROBES, RunRequest
from probes.runner import Runner
from probes.sweep import BATCH_TOKENS, sweep

__all__ = ["rows"]

PROMPTS, TOKENS, ROUNDS = 100, 64, 5


def rows(shelf: Shelf) -> list[tuple[str, str, str]]:
    """Rows ``what, goal, measured``."""
    model = shelf.get(EMBEDDED)
    model.mean_bank(Progress())
    passages = next(one for one in built_in() if one.name == "passages")
    ids = [token for prompt in passages.prompts for token in text_ids(model, prompt.shown)[1:]]
    cuts = range(0, PROMPTS * (TOKENS - 1), TOKENS - 1)
    requests = [RunRequest(EMBEDDED, (1, *ids[cut : cut + TOKENS - 1]), DEFAULT_PROBES) for cut in cuts]
    ratios: list[float] = []
    times: tuple[list[float], list[float]] = ([], [])
    peaks: tuple[list[int], list[int]] = ([], [])
    with (
        tempfile.TemporaryDirectory() as folder,
        Store.open(Path(folder) / "single.duckdb") as one,
        Store.open(Path(folder) / "swept.duckdb") as other,
    ):
        single, swept = Runner(one, shelf), Runner(other, shelf)
        share = PROMPTS // ROUNDS
        for start in range(0, PROMPTS, share):
            part = requests[start : start + share]
            works: tuple[Callable[[], object], ...] = (
                lambda part=part: [single.run(request) for request in part],
                lambda part=part: sweep(swept, part, Progress()),
            )
            took = [_measured(work) for work in works]
            ratios.append(took[1][0] / took[0][0])
            for side, (seconds, peak) in enumerate(took):
                times[side].append(seconds / share)
                peaks[side].append(peak)
        order = swept.order(requests[0], Progress())
        planned = batch_bytes([order.plan] * (BATCH_TOKENS // TOKENS), n_workers())
        assert len(other.runs()) == len(one.runs()) == PROMPTS
    spread = f"{statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})"
    seconds = [statistics.median(side) for side in times]
    megabytes = [max(side) >> 20 for side in peaks]
    return [
        (
            f"P10 {PROMPTS} prompts of {TOKENS} tokens, swept against single runs, {ROUNDS} rounds in turn",
            "< 1",
            f"{spread}; {seconds[1]:.2f} s against {seconds[0]:.2f} s a prompt",
        ),
        (
            "P10 peak memory above the model, swept against single",
            "<= planned",
            f"{megabytes[1]} MB (planned {planned >> 20}) against {megabytes[0]} MB",
        ),
    ]


def _measured(work: Callable[[], object]) -> tuple[float, int]:
    release()
    start = time.perf_counter()
    with PeakMemory("cpu") as memory:
        work()
    return time.perf_counter() - start, memory.bytes
