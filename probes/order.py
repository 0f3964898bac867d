"""What a request comes to: its keys, what it needs, and what a pass over several prompts left for it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from probes.model.editing import left_by
from probes.model.forward import tensor_names
from probes.model.loaded import LoadedModel
from probes.plan import Plan, make_plan
from probes.probing import compatible
from probes.request import RunRequest
from probes.sources import Sources

__all__ = ["Order", "Shared"]


@dataclass(frozen=True)
class Order:
    """A request as its model takes it: settled, with its keys, and what answering it needs."""

    model: LoadedModel
    request: RunRequest
    capture_id: str
    run_id: str
    sources: Sources
    seconds: float

    @cached_property
    def asked(self) -> tuple[RunRequest, tuple[str, ...]]:
        """The request with the probes this model can answer, and why others are left out. Raises BadRequest."""
        calls, notes = compatible(self.request, self.model)
        return dataclasses.replace(self.request, probes=calls), notes

    @cached_property
    def plan(self) -> Plan:
        """What a pass must keep, and bytes. Raises BadRequest, and PlanRefused where it would not fit."""
        return make_plan(self.asked[0], self.model.facts)

    @property
    def tensors(self) -> tuple[str, ...]:
        """The tensors its probes read of the capture."""
        plan, edits = self.plan, self.request.edits
        return (*tensor_names(plan.sites, plan.reductions, self.model.facts.n_layers), *left_by(edits))


@dataclass(frozen=True)
class Shared:
    """What a pass over ``rows`` prompts left of one of them, its share of the time, and what the pass took at its peak."""

    tensors: Mapping[str, Tensor]
    rows: int
    seconds: float
    peak_bytes: int
