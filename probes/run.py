"""A run as it is read: what it says of itself, its tables and its tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import pandas as pd
from torch import Tensor

from probes.model.loaded import ModelFacts
from probes.request import RunRequest

__all__ = ["RunInfo", "RunResult"]


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
