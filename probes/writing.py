"""Continuations of many prompts: those of one length are written together, each stored under the key of a single one."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby

import torch

from probes.continuation import check_room, cost, generate, told
from probes.errors import BadRequest, NonFinite, PlanRefused
from probes.memory import PeakMemory
from probes.model.loaded import LoadedModel
from probes.model.tokenise import pieces
from probes.order import Order
from probes.plan import memory_limit
from probes.probing import Made
from probes.progress import Cancelled, Progress
from probes.request import RunRequest
from probes.respond import Generation, check_edits, ended
from probes.runner import Runner

__all__ = ["write_all"]

_REFUSALS = (BadRequest, PlanRefused, NonFinite)
_ROWS = 16  # prompts written together at most: a token of 16 costs little more than one, but all wait for the longest


def write_all(
    runner: Runner, model: LoadedModel, requests: Mapping[int, RunRequest], how: Generation, progress: Progress
) -> tuple[dict[int, tuple[int, ...]], dict[int, Exception]]:
    """What the model writes after each prompt, and why it writes nothing, by the keys of ``requests``.

    What is stored is read; the rest is stored batch by batch. Edited prompts are written alone. Raises a store error, and
    Cancelled saying how much is stored.
    """
    written: dict[int, tuple[int, ...]] = {}
    refused: dict[int, Exception] = {}
    orders: dict[int, Order] = {}
    for place, request in requests.items():
        try:
            check_edits(request)
            check_room(model, len(request.token_ids), how.params)
            orders[place] = runner.order(request.with_probes(how.call), Progress())
        except BadRequest as problem:
            refused[place] = problem.with_traceback(None)  # whose frames hold tensors
    todo = [place for place in orders if not runner.store.has_tensors(orders[place].run_id, ("continuation",))]
    done = len(orders) - len(todo)
    waiting = list(_batches(orders, todo, model, how))
    while waiting:
        batch = waiting.pop(0)
        here = progress.part(done / len(orders), (done + len(batch)) / len(orders))
        says = f"responses {done + 1} to {done + len(batch)} of {len(orders)}"
        try:
            _write(runner, model, [orders[place] for place in batch], how, _told(here, says))
        except Cancelled:
            raise Cancelled(
                f"Stopped: {done} of {len(orders)} responses are stored, and it can go on from there."
            ) from None
        except _REFUSALS as problem:
            if len(batch) == 1:
                refused[batch[0]] = problem.with_traceback(None)
            else:  # it may be of one of them: each is tried by itself
                waiting = [[place] for place in batch] + waiting
                continue
        done += len(batch)
    for place, order in orders.items():
        if place in refused:
            continue
        try:
            written[place] = ended(model, runner.store.tensor(order.run_id, "continuation"))
        except BadRequest as problem:
            refused[place] = problem
    return written, refused


def _batches(
    orders: Mapping[int, Order], todo: Sequence[int], model: LoadedModel, how: Generation
) -> Iterator[list[int]]:
    """Prompts without edits by their length, as many together as memory allows; the others alone."""

    def key(place: int) -> tuple[int, int]:
        request = orders[place].request
        return len(request.token_ids), place + 1 if request.edits else 0

    limit = memory_limit()[0]
    for (length, _), places in groupby(sorted(todo, key=key), key):
        rows = max(1, min(_ROWS, limit // (2 * cost(how.params, model.facts, length))))
        group = list(places)
        yield from (group[start : start + rows] for start in range(0, len(group), rows))


def _write(runner: Runner, model: LoadedModel, orders: Sequence[Order], how: Generation, progress: Progress) -> None:
    """Write the continuations of prompts of one length; each becomes a run of its own."""
    if len(orders) == 1:
        runner.run(orders[0].request, progress)
        return
    started = time.perf_counter()
    ids = torch.tensor([order.request.token_ids for order in orders])
    with PeakMemory(model.facts.device) as memory:
        rows = generate(model, ids, how.params, progress)
    seconds = (time.perf_counter() - started) / len(orders)
    note = f"It was written together with {len(orders) - 1} others: equal to one alone up to rounding."
    for order, row in zip(orders, rows, strict=True):
        result = told(row)
        words = pieces(model.tokenizer, order.request.token_ids)
        made = Made(words, result.tables, result.tensors, {}, (note,), 1)
        runner.write(runner.info(order, made, seconds, memory.bytes), model.facts, made)


def _told(progress: Progress, what: str) -> Progress:
    """Progress that says which responses it is of."""
    return Progress(lambda fraction, said: progress.step(fraction, f"{what}, {said}"))
