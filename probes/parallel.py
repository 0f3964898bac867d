"""Many small decompositions on all cores: one single-threaded worker a core.

A matrix of a few hundred columns keeps one core busy. Two threads on one such matrix gain little when the machine is
idle, and when it is not they wait for each other: on two contended cores that is 20 times slower.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

__all__ = ["in_parallel", "n_workers"]

_MAX_WORKERS = 4

T = TypeVar("T")
R = TypeVar("R")


def n_workers() -> int:
    """How many items are in work at once: one for each thread torch may use, at most four."""
    return min(_MAX_WORKERS, torch.get_num_threads())


def in_parallel(work: Callable[[T], R], items: Sequence[T]) -> Iterator[R]:
    """``work`` of each item, in order. An exception, here or where results are taken, cancels what has not begun."""
    threads = torch.get_num_threads()
    with ThreadPoolExecutor(n_workers(), initializer=torch.set_num_threads, initargs=(1,)) as pool:
        futures = [pool.submit(work, item) for item in items]
        try:
            for future in futures:
                yield future.result()
        finally:
            for future in futures:
                future.cancel()
            # Torch hands the last number set by any thread to threads that start later.
            torch.set_num_threads(threads)
