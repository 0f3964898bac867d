"""The one way to run: request -> plan -> one forward pass -> probes -> store."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pandas as pd
from torch import Tensor

from cache.errors import TensorAbsent
from cache.store import Store
from probes.errors import BadRequest
from probes.memory import PeakMemory, release
from probes.model.capture import Capture
from probes.model.editing import UNTOUCHED, left_by
from probes.model.forward import forward, tensor_names
from probes.model.loaded import LoadedModel, ModelFacts
from probes.model.shelf import Shelf
from probes.plan import Plan, make_plan
from probes.probe import Context, Result
from probes.progress import Progress
from probes.registry import probe
from probes.request import ProbeCall, RunRequest, capture_id, library_versions, run_id
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


@dataclass(frozen=True)
class RunInfo:
    """What a run says of itself. ``cached`` and ``forward_passes`` tell of this answer, not of when it was first made."""

    run_id: str
    capture_id: str
    model: str
    fingerprint: str
    weights: str
    device: str
    dtype: str
    mask: str
    n_tokens: int
    cached: bool
    forward_passes: int
    seconds: float
    peak_bytes: int
    versions: Mapping[str, str]
    notes: tuple[str, ...]
    request: RunRequest
    session_id: str | None = None


@dataclass(frozen=True)
class RunResult:
    """The answer to a request: what it says of itself, the model's facts, the tokens, and tables and tensors by name."""

    info: RunInfo
    facts: ModelFacts
    tokens: pd.DataFrame
    table_names: tuple[str, ...]
    read_table: Callable[[str], pd.DataFrame] = field(repr=False)
    read_tensor: Callable[[str], Tensor] = field(repr=False)

    def table(self, name: str) -> pd.DataFrame:
        """Rows of one result table of this run; empty with the right columns if no probe wrote it."""
        return self.read_table(name)

    def tensor(self, name: str) -> Tensor:
        """A tensor of this run (``pattern``) or of its capture (``resid.12``); raises KeyError if it is not kept."""
        return self.read_tensor(name)


@dataclass(frozen=True)
class _Made:
    """What computing a run gave; ``fresh`` are the tensors of a capture made for it, empty if it came from the store."""

    tokens: tuple[str, ...]
    tables: Mapping[str, pd.DataFrame]
    tensors: Mapping[str, Tensor]
    fresh: Mapping[str, Tensor]
    notes: tuple[str, ...]
    passes: int


class Runner:
    """Answers requests from the store where it can, by one forward pass where it must.

    Requests with the same capture wait for each other, so identical ones in flight compute once.
    """

    def __init__(self, store: Store, shelf: Shelf) -> None:
        self._store = store
        self._shelf = shelf
        self._locks: dict[str, list[Any]] = {}
        self._guard = threading.Lock()

    def open(self, wanted: str) -> RunResult | None:
        """A stored run as it was, without its model; None if the store does not have it."""
        started = time.perf_counter()
        stored = self._store.run(wanted)
        return None if stored is None else self._from_store(stored, time.perf_counter() - started)

    def run(self, request: RunRequest, progress: Progress | None = None) -> RunResult:
        """Answer a request. Raises BadRequest, ModelRefused, PlanRefused, NonFinite, Cancelled or a store error."""
        progress = progress or Progress()
        model = self._shelf.get(request.model, request.dtype, request.device, progress.part(0.0, 0.2))
        _check_tokens(request, model.facts)
        started = time.perf_counter()
        sources = Sources(self._store, self._shelf)
        request = sources.settled(request, model)
        capture = capture_id(model.facts, request.token_ids, request.edits)
        wanted = run_id(capture, request)
        with self._alone(capture):
            stored = self._store.run(wanted)
            if stored is not None and self._store.has_tensors(wanted, stored["tensors"]):
                return self._from_store(stored, time.perf_counter() - started)
            calls, notes = _compatible(request, model)
            asked = dataclasses.replace(request, probes=calls)
            plan = make_plan(asked, model.facts)
            with PeakMemory(model.facts.device) as memory:
                made = self._compute(model, asked, capture, plan, sources, progress.part(0.2, 0.95))
            progress.step(0.95, "writing results")
            info = RunInfo(
                run_id=wanted,
                capture_id=capture,
                model=request.model,
                fingerprint=model.facts.fingerprint,
                weights=model.facts.weights,
                device=model.facts.device,
                dtype=model.facts.dtype,
                mask=request.mask,
                n_tokens=len(request.token_ids),
                cached=False,
                forward_passes=made.passes,
                seconds=time.perf_counter() - started,
                peak_bytes=memory.bytes,
                versions=library_versions(),
                notes=(*notes, *made.notes),
                request=request,
            )
            self._write(info, model.facts, made)
        answer = self._from_store(self._store.run(wanted) or {}, info.seconds)
        return dataclasses.replace(answer, info=info)

    def _compute(
        self,
        model: LoadedModel,
        request: RunRequest,
        key: str,
        plan: Plan,
        sources: Sources,
        progress: Progress,
    ) -> _Made:
        """Probe the stored capture; where a tensor of it is missing or damaged, a fresh one from a forward pass."""
        needed = (*tensor_names(plan.sites, plan.reductions, model.facts.n_layers), *left_by(request.edits))
        notes: tuple[str, ...] = ()
        if self._store.has_tensors(key, needed):
            capture = sources.capture(model, request, partial(self._store.tensor, key), progress.part(0.0, 0.1))
            try:
                return _probed(capture, request, {}, sources, progress.part(0.1, 1.0))
            except TensorAbsent as absent:
                notes = (str(absent),) if absent.reason == "damaged" else ()
        fresh: dict[str, Tensor] = {}
        capture = sources.capture(model, request, fresh.__getitem__, progress.part(0.0, 0.1))
        editing = capture.editing
        part = progress.part(0.1, 0.4)
        fresh |= forward(model, capture.token_ids, plan.sites, plan.reductions, part, editing)
        made = _probed(capture, request, fresh, sources, progress.part(0.4, 1.0))
        return dataclasses.replace(made, notes=(*notes, *made.notes))

    def _write(self, info: RunInfo, facts: ModelFacts, made: _Made) -> None:
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
        self._store.write_run(run, {"tokens": frame, **made.tables}, owned, captured)

    def _from_store(self, stored: Mapping[str, Any], seconds: float) -> RunResult:
        """A stored run as an answer that took no forward pass."""
        store = self._store
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


def _compatible(request: RunRequest, model: LoadedModel) -> tuple[tuple[ProbeCall, ...], tuple[str, ...]]:
    """The calls this model can answer, in order, and one remark for each it cannot."""
    calls, notes = [], []
    for call in request.ordered():
        reason = probe(call.name).compatible(model)
        if reason is None:
            calls.append(call)
        else:
            notes.append(f"{call.name} was not run: {reason}")
    if not calls:
        raise BadRequest(f"Nothing asked for can be answered for {model.facts.name}: {'; '.join(notes)}")
    return tuple(calls), tuple(notes)


def _probed(
    capture: Capture, request: RunRequest, fresh: Mapping[str, Tensor], sources: Sources, progress: Progress
) -> _Made:
    """Run each probe on the capture; a later one sees the tables of the earlier ones."""
    tables: dict[str, pd.DataFrame] = {}
    tensors: dict[str, Tensor] = {}
    notes: list[str] = []
    untouched = int(capture.read(UNTOUCHED)) if UNTOUCHED in left_by(request.edits) else 0
    if untouched:
        rows = f"{untouched:,} attention rows had nothing left to attend to under the edits"
        notes.append(f"{rows} and were kept as they were.")
    calls = request.ordered()
    for index, call in enumerate(calls):
        part = progress.part(index / len(calls), (index + 1) / len(calls))
        part.step(0.0, f"probe {call.name}")
        context = Context(request.mask, tables, part, sources.of_run)
        result: Result = probe(call.name).run(capture, call.full_params(), context)
        for name, frame in result.tables.items():
            tables[name] = pd.concat([tables[name], frame], ignore_index=True) if name in tables else frame
        tensors.update(result.tensors)
        notes.extend(result.notes)
        release()
    return _Made(capture.tokens, tables, tensors, fresh, tuple(notes), sources.passes + bool(fresh))
