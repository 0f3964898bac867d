"""The one way to run: request -> plan -> one forward pass -> probes -> store."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import pandas as pd
from torch import Tensor

from cache.errors import TensorAbsent
from cache.store import Store
from probes.errors import BadRequest
from probes.memory import PeakMemory
from probes.model.forward import forward
from probes.model.loaded import ModelFacts
from probes.model.shelf import Shelf
from probes.order import Order, Shared
from probes.probing import Made, probed
from probes.progress import Progress
from probes.registry import probe
from probes.request import RunRequest, capture_id, library_versions, run_id
from probes.run import RunInfo, RunResult
from probes.sources import Sources

__all__ = ["RunInfo", "RunResult", "Runner"]


_RUN_COLUMNS = (
    "run_id",
    "capture_id",
    "model",
    "fingerprint",
    "weights",
    "device",
    "dtype",
    "mask",
    "n_tokens",
    "forward_passes",
    "seconds",
    "peak_bytes",
)


class Runner:
    """Answers requests from the store where it can, by one forward pass where it must.

    Requests with the same capture wait for each other, so identical ones in flight compute once.
    """

    def __init__(self, store: Store, shelf: Shelf) -> None:
        self.store = store
        self._shelf = shelf
        self._locks: dict[str, list[Any]] = {}
        self._guard = threading.Lock()

    def open(self, wanted: str) -> RunResult | None:
        """A stored run as it was, without its model; None if the store does not have it."""
        started = time.perf_counter()
        stored = self.store.run(wanted)
        return None if stored is None else self._from_store(stored, time.perf_counter() - started)

    def run(self, request: RunRequest, progress: Progress | None = None) -> RunResult:
        """Answer a request. Raises BadRequest, ModelRefused, PlanRefused, NonFinite, Cancelled or a store error."""
        progress = progress or Progress()
        order = self.order(request, progress.part(0.0, 0.2))
        started = time.perf_counter()
        with self._alone(order.capture_id):
            stored = self.store.run(order.run_id)
            if stored is not None and self.store.has_tensors(order.run_id, stored["tensors"]):
                return self._from_store(stored, order.seconds + time.perf_counter() - started)
            info, made = self.make(order, progress.part(0.2, 0.95))
            progress.step(0.95, "writing results")
            self.write(info, order.model.facts, made)
        answer = self._from_store(self.store.run(order.run_id) or {}, info.seconds)
        return dataclasses.replace(answer, info=info)

    def order(self, request: RunRequest, progress: Progress) -> Order:
        """A request settled for its model, which is loaded if need be. Raises BadRequest and ModelRefused."""
        model = self._shelf.get(request.model, request.dtype, request.device, progress)
        _check_tokens(request, model.facts)
        started = time.perf_counter()
        sources = Sources(self.store, self._shelf)
        request = sources.settled(request, model)
        capture = capture_id(model.facts, request.token_ids, request.edits)
        return Order(model, request, capture, run_id(capture, request), sources, time.perf_counter() - started)

    def make(self, order: Order, progress: Progress, shared: Shared | None = None) -> tuple[RunInfo, Made]:
        """Compute a run, on what a shared pass left of it if that is given. Nothing is written.

        Raises BadRequest, PlanRefused, NonFinite, Cancelled or a store error.
        """
        started = time.perf_counter()
        with PeakMemory(order.model.facts.device) as memory:
            made = self._on_shared(order, shared, progress) if shared else self._compute(order, progress)
        before = shared.seconds if shared else 0.0
        peak = max(memory.bytes, shared.peak_bytes if shared else 0)
        return self.info(order, made, before + time.perf_counter() - started, peak), made

    def info(self, order: Order, made: Made, seconds: float, peak_bytes: int) -> RunInfo:
        """What a run that was just made says of itself; ``seconds`` without those of its order."""
        facts, (asked, notes) = order.model.facts, order.asked
        return RunInfo(
            run_id=order.run_id,
            capture_id=order.capture_id,
            model=asked.model,
            fingerprint=facts.fingerprint,
            weights=facts.weights,
            device=facts.device,
            dtype=facts.dtype,
            mask=asked.mask,
            n_tokens=len(asked.token_ids),
            cached=False,
            forward_passes=made.passes,
            seconds=order.seconds + seconds,
            peak_bytes=peak_bytes,
            versions=library_versions(),
            notes=(*notes, *made.notes),
            request=order.request,
        )

    def write(self, info: RunInfo, facts: ModelFacts, made: Made) -> None:
        """Store a run with its tables, tensors and capture, in one transaction; durable on return."""
        run = {
            **{name: getattr(info, name) for name in _RUN_COLUMNS},
            "versions": dict(info.versions),
            "request": info.request.as_json(),
            "notes": list(info.notes),
            "tensors": sorted(made.tensors),
        }
        captured = {
            "capture_id": info.capture_id,
            "fingerprint": facts.fingerprint,
            "tokenizer": facts.tokenizer,
            "dtype": facts.dtype,
            "n_tokens": info.n_tokens,
            "edits": [edit.as_dict() for edit in info.request.edits],
            "facts": dataclasses.asdict(facts),
        }
        frame = pd.DataFrame({"pos": range(info.n_tokens), "token_id": info.request.token_ids, "text": made.tokens})
        owned = {(info.capture_id, name): tensor for name, tensor in made.fresh.items()}
        owned |= {(info.run_id, name): tensor for name, tensor in made.tensors.items()}
        self.store.write_run(run, {"tokens": frame, **made.tables}, owned, captured)

    def _compute(self, order: Order, progress: Progress) -> Made:
        """Probe the stored capture; where a tensor of it is missing or damaged, a fresh one from a forward pass."""
        model, sources, plan, request = order.model, order.sources, order.plan, order.asked[0]
        notes: tuple[str, ...] = ()
        if self.store.has_tensors(order.capture_id, order.tensors):
            read = partial(self.store.tensor, order.capture_id)
            capture = sources.capture(model, request, read, progress.part(0.0, 0.1))
            try:
                return probed(capture, request, {}, sources, progress.part(0.1, 1.0))
            except TensorAbsent as absent:
                notes = (str(absent),) if absent.reason == "damaged" else ()
        fresh: dict[str, Tensor] = {}
        capture = sources.capture(model, request, fresh.__getitem__, progress.part(0.0, 0.1))
        editing = capture.editing
        part = progress.part(0.1, 0.4)
        fresh |= forward(model, capture.token_ids, plan.sites, plan.reductions, part, editing)
        made = probed(capture, request, fresh, sources, progress.part(0.4, 1.0))
        return dataclasses.replace(made, notes=(*notes, *made.notes))

    def _on_shared(self, order: Order, shared: Shared, progress: Progress) -> Made:
        """Probe what a pass over several prompts left of this one."""
        request = order.asked[0]
        capture = order.sources.capture(order.model, request, shared.tensors.__getitem__, progress)
        made = probed(capture, request, shared.tensors, order.sources, progress)
        others = "1 other prompt" if shared.rows == 2 else f"{shared.rows - 1} other prompts"
        note = (
            f"Its forward pass was shared with {others} (a right-padded batch): equal to one of its own up to rounding."
        )
        return dataclasses.replace(made, notes=(*made.notes, note)) if shared.rows > 1 else made

    def _from_store(self, stored: Mapping[str, Any], seconds: float) -> RunResult:
        """A stored run as an answer that took no forward pass."""
        store = self.store
        owner, capture = str(stored["run_id"]), str(stored["capture_id"])
        request = RunRequest.from_stored(stored["request"])
        info = RunInfo(
            **{name: stored[name] for name in _RUN_COLUMNS if name not in ("forward_passes", "seconds")},
            cached=True,
            forward_passes=0,
            seconds=seconds,
            versions=stored["versions"],
            notes=tuple(stored["notes"]),
            request=request,
        )

        def tensor(name: str) -> Tensor:
            of_run = store.has_tensors(owner, (name,))
            return store.tensor(owner if of_run else capture, name)

        return RunResult(
            info=info,
            facts=ModelFacts.from_stored(stored["capture"]["facts"]),
            tokens=store.table(owner, "tokens"),
            table_names=tuple(sorted({table for call in request.probes for table in probe(call.name).spec.tables})),
            read_table=lambda name: store.table(owner, name),
            read_tensor=tensor,
        )

    @contextmanager
    def _alone(self, key: str) -> Iterator[None]:
        """One thread at a time for a key; the lock goes when nobody holds or awaits it."""
        with self._guard:
            entry = self._locks.setdefault(key, [threading.Lock(), 0])
            entry[1] += 1
        try:
            with entry[0]:
                yield
        finally:
            with self._guard:
                entry[1] -= 1
                if entry[1] == 0:
                    del self._locks[key]


def _check_tokens(request: RunRequest, facts: ModelFacts) -> None:
    if len(request.token_ids) > facts.context:
        raise BadRequest(f"The prompt has {len(request.token_ids)} tokens; {facts.name} takes at most {facts.context}.")
    for position, token in enumerate(request.token_ids):
        if not 0 <= token < facts.d_vocab:
            raise BadRequest(
                f"Token id {token} at position {position} is outside the vocabulary 0..{facts.d_vocab - 1}."
            )
