"""Trace: one dimension of the residual stream along the points, at chosen positions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from probes.checks import require, some_whole, whole
from probes.errors import BadRequest
from probes.probe import Context, ProbeSpec, Result

if TYPE_CHECKING:
    from probes.model.capture import Capture
    from probes.model.loaded import LoadedModel, ModelFacts

__all__ = ["Params", "compatible", "cost", "run", "spec"]


@dataclass(frozen=True)
class Params:
    """``dim``: which dimension. ``positions``: at which tokens."""

    __no_type_check__ = True  # values come from people: refused in a sentence, not by the type hook of the tests

    dim: int = 0
    positions: tuple[int, ...] = (0,)

    def __post_init__(self) -> None:
        require(whole(self.dim), "trace.dim", "a whole number from 0", self.dim)
        require(some_whole(self.positions), "trace.positions", "positions", self.positions)


spec = ProbeSpec(
    name="trace",
    version=1,
    question="What does one dimension hold along the points?",
    sites=frozenset({"resid"}),
    reductions=frozenset(),
    tables=("token_metrics",),
    masks=False,
)


def compatible(model: LoadedModel) -> str | None:
    return None


def cost(params: Params, facts: ModelFacts, n_tokens: int) -> int:
    """One row a point and position."""
    return (facts.n_layers + 1) * len(params.positions) * 64


def run(capture: Capture, params: Params, context: Context) -> Result:
    """``token_metrics``: ``resid_dim``, the signed value of the dimension at each point and position.

    Raises BadRequest for a dimension the model does not have.
    """
    facts = capture.model.facts
    if params.dim >= facts.d_model:
        raise BadRequest(f"trace.dim must lie in 0..{facts.d_model - 1} here, not {params.dim}.")
    points, positions = np.arange(facts.n_layers + 1), np.array(params.positions)
    values = np.stack([capture.resid(int(point))[positions, params.dim].double().numpy() for point in points])
    frame = pd.DataFrame(
        {
            "layer": np.repeat(points, len(positions)),
            "pos": np.tile(positions, len(points)),
            "metric": "resid_dim",
            "value": values.ravel(),
            "n_used": 1,
            "status": "ok",
        }
    )
    return Result({"token_metrics": frame.astype({"layer": "Int64"})})
