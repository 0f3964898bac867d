"""Two pieces of work in turn, A B A B, and the ratio pair by pair: it holds when the machine's speed drifts."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

__all__ = ["Pair", "compare"]

ROUNDS = 9


@dataclass(frozen=True)
class Pair:
    """Median ratio ours / rival with its smallest and largest value, and both medians in seconds."""

    ratio: float
    lowest: float
    highest: float
    ours: float
    rival: float

    def __str__(self) -> str:
        return f"{self.ratio:.2f} ({self.lowest:.2f}-{self.highest:.2f}); {self.ours:.3f} s against {self.rival:.3f} s"


def compare(ours: Callable[[], Any], rival: Callable[[], Any], rounds: int = ROUNDS) -> Pair:
    """Run both once unmeasured, then in turn."""
    ours(), rival()
    times: list[tuple[float, float]] = [(_seconds(ours), _seconds(rival)) for _ in range(rounds)]
    ratios = sorted(a / b for a, b in times)
    return Pair(
        statistics.median(ratios),
        ratios[0],
        ratios[-1],
        statistics.median(a for a, _ in times),
        statistics.median(b for _, b in times),
    )


def _seconds(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
