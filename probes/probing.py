"""The probes of a request on a capture: which of them a model can answer, and what they make of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd
from torch import Tensor

from probes.errors import BadRequest
from probes.memory import release
from probes.model.capture import Capture
from probes.model.editing import UNTOUCHED, left_by
from probes.model.loaded import LoadedModel
from probes.probe import Context, Result
from probes.progress import Progress
from probes.registry import probe
from probes.request import ProbeCall, RunRequest
from probes.sources import Sources

__all__ = ["Made", "compatible", "probed"]


@dataclass(frozen=True)
class Made:
    """What computing a run gave; ``fresh`` are the tensors of a capture made for it, empty if it came from the store."""

    tokens: tuple[str, ...]
    tables: Mapping[str, pd.DataFrame]
    tensors: Mapping[str, Tensor]
    fresh: Mapping[str, Tensor]
    notes: tuple[str, ...]
    passes: int


def compatible(request: RunRequest, model: LoadedModel) -> tuple[tuple[ProbeCall, ...], tuple[str, ...]]:
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


def probed(
    capture: Capture, request: RunRequest, fresh: Mapping[str, Tensor], sources: Sources, progress: Progress
) -> Made:
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
    return Made(capture.tokens, tables, tensors, fresh, tuple(notes), sources.passes + bool(fresh))
