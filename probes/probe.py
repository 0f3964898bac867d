"""What a probe is: a declared question, its typed parameters, and a function from a capture to tables.

A probe is one module ``probes/<name>.py`` with a frozen ``Params`` dataclass that validates itself, a ``spec``, and the
functions ``compatible``, ``cost`` and ``run``; Params of a probe that reads other runs name them in ``runs``.
:mod:`probes.registry` lists them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

import pandas as pd
from torch import Tensor

from probes.errors import BadRequest
from probes.progress import Progress

if TYPE_CHECKING:
    from probes.model.capture import Capture
    from probes.model.loaded import LoadedModel, ModelFacts

__all__ = ["Context", "Probe", "ProbeSpec", "Reduction", "Result", "Site"]

Site = Literal["resid", "final", "attn_out", "mlp_out", "head_z", "value"]
Reduction = Literal["column_sum", "row_entropy", "value_norms", "update_norms"]


@dataclass(frozen=True, slots=True)
class ProbeSpec:
    """What a probe asks of the one forward pass, and what it answers.

    ``sites`` are kept whole (``final`` is the last residual point alone); ``reductions`` are computed where attention is
    computed; ``after`` names probes whose tables this one reads (they run first, when both are asked for); ``masks``
    says whether it reads the token masks, which need every residual point.
    """

    name: str
    version: int
    question: str
    sites: frozenset[Site]
    reductions: frozenset[Reduction]
    tables: tuple[str, ...]
    after: tuple[str, ...] = ()
    masks: bool = True


@dataclass(frozen=True, slots=True)
class Result:
    """Tables (rows without ``run_id``, columns as in docs/store.md), named tensors, and one-sentence remarks."""

    tables: Mapping[str, pd.DataFrame]
    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def _no_other(run: str) -> Capture:
    raise BadRequest(f"There is no store to read the run {run[:64]!r} from.")


@dataclass(frozen=True, slots=True)
class Context:
    """What a probe may know besides the capture: the headline token mask, earlier tables of this run, progress.

    ``other`` gives the capture of another stored run by its id; raises BadRequest if there is none.
    """

    mask: str
    tables: Mapping[str, pd.DataFrame]
    progress: Progress
    other: Callable[[str], Capture] = _no_other


@runtime_checkable
class Probe(Protocol):
    """The shape of a probe module."""

    spec: ProbeSpec
    Params: type[Any]

    def compatible(self, model: LoadedModel) -> str | None:
        """Why this probe cannot say anything about this model, or None."""

    def cost(self, params: Any, facts: ModelFacts, n_tokens: int) -> int:
        """Bytes the probe allocates at its peak, beyond the capture."""

    def run(self, capture: Capture, params: Any, context: Context) -> Result:
        """Turn the capture into tables."""
