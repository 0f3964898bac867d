"""A set of prompts through one model: what is stored is left, the rest runs in right-padded batches, each prompt a run.

Every run has the keys of a single run and is written in a transaction of its own as soon as it is made, so a sweep that
was cancelled or killed goes on where it stopped.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import torch

from probes.errors import BadRequest, NonFinite, PlanRefused
from probes.memory import PeakMemory
from probes.model.forward import forward_batch
from probes.order import Order, Shared
from probes.parallel import in_parallel, n_workers
from probes.plan import batch_bytes, memory_limit
from probes.probe import Reduction, Site
from probes.probing import Made
from probes.progress import Cancelled, Progress
from probes.request import RunRequest
from probes.run import RunInfo
from probes.runner import Runner

__all__ = ["BATCH_TOKENS", "Swept", "in_batches", "sweep"]

BATCH_TOKENS = 1024  # padded tokens of one pass: beyond, a token costs no less (docs/methods/sets.md)
_WIDEST = 1.25  # longest over shortest prompt of a batch: at most a fifth of a pass is padding
_REFUSALS = (BadRequest, PlanRefused, NonFinite)


@dataclass(frozen=True, slots=True)
class Swept:
    """What became of a sweep: the run id of each request in order, None where it was refused; the ids of runs that are
    new; and, by the place of a request, why it was refused."""

    run_ids: tuple[str | None, ...]
    made: frozenset[str]
    refused: Mapping[int, Exception]


def sweep(runner: Runner, requests: Sequence[RunRequest], progress: Progress) -> Swept:
    """Answer requests that differ in their tokens alone; all stored runs are left, whatever became of their tensors.

    What cannot be answered is refused by itself and stops no other. Raises ModelRefused, a store error, and Cancelled
    saying how much is stored.
    """
    refused: dict[int, Exception] = {}
    orders: dict[int, Order] = {}
    planned: dict[int, Order] = {}
    for place, request in enumerate(requests):
        part = progress.part(0.05 * place / len(requests), 0.05 * (place + 1) / len(requests))
        part.step(0.0, f"looking at prompt {place + 1} of {len(requests)}")
        try:
            orders[place] = runner.order(request, part)
        except BadRequest as problem:
            refused[place] = problem.with_traceback(None)  # whose frames hold tensors
    once = {order.run_id: place for place, order in reversed(orders.items())}
    known = runner.store.known_runs(once)
    for run_id, place in once.items():
        try:
            if run_id not in known and orders[place].plan:
                planned[place] = orders[place]
        except (BadRequest, PlanRefused) as problem:
            refused[place] = problem.with_traceback(None)  # whose frames hold tensors
    work = _Work(runner, planned, refused, len(known), progress.part(0.05, 1.0))
    try:
        work.run()
    except Cancelled:
        done = f"{len(known) + len(work.made)} of {len(once)} prompts are stored"
        raise Cancelled(f"The sweep was stopped: {done}, and it can go on from there.") from None
    for place, order in orders.items():
        if once[order.run_id] in refused:
            refused[place] = refused[once[order.run_id]]
    ids = tuple(None if place in refused else orders[place].run_id for place in range(len(requests)))
    return Swept(ids, frozenset(work.made), dict(sorted(refused.items())))


def in_batches(orders: Mapping[int, Order], limit: int) -> Iterator[list[int]]:
    """Which prompts share a pass, longest first: alike in length, at most 1,024 padded tokens and ``limit`` bytes."""
    batch: list[int] = []
    for place in sorted(orders, key=lambda place: -_length(orders[place])):
        grown = [*batch, place]
        longest = _length(orders[grown[0]])
        fits = (
            len(grown) * longest <= BATCH_TOKENS
            and longest <= _WIDEST * _length(orders[place])
            and batch_bytes([orders[one].plan for one in grown], n_workers()) <= limit
        )
        if batch and not fits:
            yield batch
            grown = [place]
        batch = grown
    if batch:
        yield batch


class _Work:
    """The prompts of a sweep that are left to do, and how far it is."""

    def __init__(
        self, runner: Runner, todo: Mapping[int, Order], refused: dict[int, Exception], known: int, progress: Progress
    ) -> None:
        self._runner, self._todo, self._refused, self._progress = runner, todo, refused, progress
        self._known, self._all = known, known + len(todo)
        self._tokens = sum(map(_length, todo.values()))
        self._past = 0
        self._guard = threading.Lock()
        self.made: set[str] = set()

    def run(self) -> None:
        """Do it all; ``made`` holds the runs that are stored."""
        alone = {place: order for place, order in self._todo.items() if self._needs_no_batch(order)}
        shared = {place: order for place, order in self._todo.items() if place not in alone}
        with ThreadPoolExecutor(1, "sweep-writer") as writer:
            for batch in in_batches(shared, memory_limit()[0]):
                self._finish(batch, self._pass(batch), writer)
            for place in alone:
                self._finish([place], {}, writer)

    def _needs_no_batch(self, order: Order) -> bool:
        """A capture that is stored takes no pass, and an edited pass belongs to one prompt."""
        return bool(order.request.edits) or self._runner.store.has_tensors(order.capture_id, order.tensors)

    def _pass(self, batch: Sequence[int]) -> dict[int, Shared]:
        """One pass over the prompts of a batch; those it leaves nothing of are refused."""
        orders = [self._todo[place] for place in batch]
        model = orders[0].model
        prompts = [torch.tensor(order.request.token_ids, dtype=torch.long) for order in orders]
        sites = frozenset[Site]().union(*(order.plan.sites for order in orders))
        reductions = frozenset[Reduction]().union(*(order.plan.reductions for order in orders))
        started = time.perf_counter()
        with PeakMemory(model.facts.device) as memory:
            left = forward_batch(model, prompts, sites, reductions, self._told())
        seconds = (time.perf_counter() - started) / len(batch)
        found: dict[int, Shared] = {}
        for place, tensors in zip(batch, left, strict=True):
            if isinstance(tensors, NonFinite):
                self._refuse(place, tensors)
            else:
                found[place] = Shared(tensors, len(batch), seconds, memory.bytes)
        return found

    def _finish(self, batch: Sequence[int], shared: dict[int, Shared], writer: ThreadPoolExecutor) -> None:
        """Probe the prompts of a batch, several at once, and write each while the next is probed."""
        writing: Future[None] | None = None
        todo = [place for place in batch if place not in self._refused]
        try:
            for found in in_parallel(lambda place: self._make(place, shared.pop(place, None)), todo):
                if writing is not None:
                    writing.result()
                writing = None if found is None else writer.submit(self._write, *found)
        finally:
            if writing is not None:
                writing.result()

    def _make(self, place: int, shared: Shared | None) -> tuple[int, RunInfo, Made] | None:
        try:
            return place, *self._runner.make(self._todo[place], self._told(), shared)
        except _REFUSALS as problem:
            self._refuse(place, problem)
            return None

    def _write(self, place: int, info: RunInfo, made: Made) -> None:
        self._runner.write(info, self._todo[place].model.facts, made)
        with self._guard:
            self.made.add(info.run_id)
            self._past += _length(self._todo[place])

    def _refuse(self, place: int, problem: Exception) -> None:
        with self._guard:
            self._refused[place] = problem.with_traceback(None)  # whose frames hold tensors
            self._past += _length(self._todo[place])

    def _told(self) -> Progress:
        """How the sweep is told of one of its steps; cancelled when the sweep is."""

        def step(_: float, what: str) -> None:
            done = f"{self._known + len(self.made)} of {self._all} prompts stored"
            self._progress.step(self._past / max(1, self._tokens), f"{done}, {what}")

        return Progress(step)


def _length(order: Order) -> int:
    return len(order.request.token_ids)
