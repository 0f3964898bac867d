"""Projection: which tokens make the leading directions of a layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from analysis.preparation import HEADLINE, PREPARATIONS, RAW_MASKS, Preparation, prepare
from analysis.projection import N_DIRECTIONS, project
from probes.checks import require, whole
from probes.probe import Context, ProbeSpec, Result

if TYPE_CHECKING:
    from probes.model.capture import Capture
    from probes.model.loaded import LoadedModel, ModelFacts

__all__ = ["Params", "compatible", "cost", "run", "spec"]


@dataclass(frozen=True)
class Params:
    """``point``: a residual point. ``preparation``: ``normed`` (on the run's mask) or one of the raw ones."""

    __no_type_check__ = True  # values come from people: they are refused in a sentence, not by a type hook

    point: int = 0
    preparation: Preparation = HEADLINE

    def __post_init__(self) -> None:
        require(whole(self.point), "projection.point", "a whole number from 0", self.point)
        known = isinstance(self.preparation, str) and self.preparation in PREPARATIONS
        require(known, "projection.preparation", f"one of {', '.join(PREPARATIONS)}", self.preparation)


spec = ProbeSpec(
    name="projection",
    version=1,
    question="Which tokens make the leading directions of this layer?",
    sites=frozenset({"resid"}),
    reductions=frozenset({"column_sum"}),
    tables=("token_metrics", "layer_metrics"),
)


def compatible(model: LoadedModel) -> str | None:
    return None


def cost(params: Params, facts: ModelFacts, n_tokens: int) -> int:
    """The prepared matrix, its factors and a copy, float64."""
    return 4 * n_tokens * facts.d_model * 8


def run(capture: Capture, params: Params, context: Context) -> Result:
    """``pc1`` and ``pc2`` of each token (missing where the mask drops it), and the shares ``pc1_share``, ``pc2_share``."""
    keep = getattr(capture.masks, RAW_MASKS.get(params.preparation, context.mask))
    prepared = prepare(capture.resid(params.point), keep, normed=params.preparation == HEADLINE)
    found = project(prepared)
    n_kept = len(prepared)
    tokens, layers = [], []
    for direction in range(N_DIRECTIONS):
        values = np.full(capture.n_tokens, np.nan)
        values[keep.numpy()] = found.coordinates[:, direction]
        frame = pd.DataFrame({"layer": params.point, "pos": np.arange(capture.n_tokens), "value": values})
        status = np.where(keep.numpy(), found.status, "not_applicable")
        tokens.append(frame.assign(metric=f"pc{direction + 1}", n_used=n_kept, status=status))
        share = found.share[direction]
        layers.append((params.point, f"pc{direction + 1}_share", share, n_kept, found.status))
    columns = ["layer", "metric", "value", "n_used", "status"]
    order = ["layer", "pos", "metric", "value", "n_used", "status"]
    tables = {"token_metrics": pd.concat(tokens)[order], "layer_metrics": pd.DataFrame(layers, columns=columns)}
    return Result(tables)
