"""Geometry: how many dimensions the tokens of a text fill at each point, who is near whom, and how far they lean one way."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

from analysis.cosine import mean_cosine
from analysis.intrinsic_dimension import gride, gride_plateau, microscope, twonn
from analysis.measured import Measured, Status, undefined
from analysis.neighbours import (
    FEW_TOKENS,
    MIN_TOKENS,
    NEIGHBOURS,
    Distances,
    chance_overlap,
    distances,
    distinct_rows,
    neighbourhood,
    overlap,
    point_distances,
)
from probes.checks import require, whole
from probes.parallel import in_parallel, n_workers
from probes.probe import Context, ProbeSpec, Result
from probes.progress import Progress

if TYPE_CHECKING:
    from probes.model.capture import Capture
    from probes.model.loaded import LoadedModel, ModelFacts

__all__ = ["Params", "compatible", "cost", "run", "spec"]

_SHARE = 10  # at most a tenth of the tokens are neighbours
_MATRICES = 4  # distances, their copy with an infinite diagonal, and what a sort of them takes
_LINES = ("overlap_previous", "overlap_input", "overlap_output")
_Rows = list[tuple[int, str, Measured]]


@dataclass(frozen=True)
class Params:
    """``neighbours``: how many of each token's nearest are compared between points, at most a tenth of the tokens."""

    neighbours: int = NEIGHBOURS

    def __post_init__(self) -> None:
        known = whole(self.neighbours) and 1 <= self.neighbours <= 1000
        require(known, "geometry.neighbours", "a whole number from 1 to 1000", self.neighbours)


spec = ProbeSpec(
    name="geometry",
    version=1,
    question="How many dimensions do the tokens of this text fill at each point, and which tokens are near which?",
    sites=frozenset({"resid"}),
    reductions=frozenset({"column_sum"}),
    tables=("layer_metrics",),
)


def compatible(model: LoadedModel) -> str | None:
    return None


def cost(params: Params, facts: ModelFacts, n_tokens: int) -> int:
    """Distances of as many points as are in work at once, and the neighbours of every point."""
    points = facts.n_layers + 1
    k = min(params.neighbours, max(1, n_tokens // _SHARE))
    working = n_workers() * (_MATRICES * n_tokens**2 + 2 * n_tokens * facts.d_model) * 8
    return working + 2 * points * n_tokens * k * 8 + 2 * points * min(256, n_tokens) * n_tokens * 4


def run(capture: Capture, params: Params, context: Context) -> Result:
    """``layer_metrics`` on the run's mask, and with the suffix ``@no_sink`` without sinks; the tensors ``overlap`` and
    ``overlap@no_sink`` [points, points] are the shares of common neighbours, NaN where they are undefined.

    ``id_gride`` (``_error``), ``id_twonn``, ``id_microscope``; by scale K ``gride_kK`` (``_error``, ``_distance``);
    ``duplicates``: tokens whose state an earlier token has; ``cosine`` and ``cosine_centred``; ``overlap_previous``,
    ``overlap_input`` and ``overlap_output``, each with its ``_chance``.
    """
    frames: list[pd.DataFrame] = []
    tensors: dict[str, Tensor] = {}
    for place, (suffix, mask) in enumerate({"": context.mask, "@no_sink": "no_sink"}.items()):
        part = context.progress.part(place / 2, (place + 1) / 2)
        rows, matrix = _measured(capture, capture.mask(mask), params.neighbours, part)
        plain = [(point, f"{metric}{suffix}", one.value, one.n_used, one.status) for point, metric, one in rows]
        frames.append(pd.DataFrame(plain, columns=["layer", "metric", "value", "n_used", "status"]))
        tensors[f"overlap{suffix}"] = torch.from_numpy(matrix)
    return Result({"layer_metrics": pd.concat(frames, ignore_index=True)}, tensors)


def _measured(
    capture: Capture, keep: Bool[Tensor, "tokens"], k: int, progress: Progress
) -> tuple[_Rows, Float64[np.ndarray, "points points"]]:
    """All numbers of the kept tokens, and the matrix of overlaps."""
    points = range(capture.model.facts.n_layers + 1)
    firsts = [distinct_rows(capture.resid(point)[keep]) for point in points]
    after = reduce(np.intersect1d, firsts[1:])  # what tells tokens apart from block 0 on
    always = np.intersect1d(firsts[0], after)

    def of_point(point: int) -> tuple[_Rows, list[Int64[Tensor, "n k"]]]:
        states = capture.resid(point)[keep]
        found = distances(states)
        near = []
        for tokens in (after, always) if point else (always,):
            if len(tokens) >= MIN_TOKENS:
                same = len(tokens) == len(found.distance)  # tokens that are distinct at more points are some of these
                space = found.distance if same else point_distances(states[torch.from_numpy(tokens)])
                near.append(neighbourhood(space, min(k, len(tokens) // _SHARE)))
        rows = [(point, metric, value) for metric, value in _of_distances(found).items()]
        rows += [(point, f"cosine{'_centred' * c}", mean_cosine(states, centred=c)) for c in (False, True)]
        return rows, near

    rows: _Rows = []
    near: list[list[Int64[Tensor, "n k"]]] = []
    for numbers, spaces in in_parallel(of_point, points):
        progress.step(len(near) / len(points), f"distances at point {len(near)}")
        rows += numbers
        near.append(spaces)
    matrix = np.full((len(points), len(points)), np.nan)
    if len(always) >= MIN_TOKENS:
        matrix = overlap([spaces[-1] for spaces in near])
    if len(after) >= MIN_TOKENS:
        matrix[1:, 1:] = overlap([spaces[0] for spaces in near[1:]])
    return rows + _lines(matrix, len(always), len(after), k), matrix


def _of_distances(found: Distances) -> dict[str, Measured]:
    """Intrinsic dimensions of one point, and how many tokens were left out of them."""
    scales = gride(found)
    plateau = gride_plateau(scales)
    numbers = {"id_gride": plateau.dimension, "id_gride_error": _beside(plateau.dimension, plateau.error)}
    numbers |= {"id_twonn": twonn(found), "id_microscope": microscope(found)}
    numbers["duplicates"] = Measured(float(found.n_duplicates), found.n_used + found.n_duplicates)
    for scale in scales:
        numbers[f"gride_k{scale.k}"] = scale.dimension
        numbers[f"gride_k{scale.k}_error"] = _beside(scale.dimension, scale.error)
        numbers[f"gride_k{scale.k}_distance"] = _beside(scale.dimension, scale.distance)
    return numbers


def _beside(number: Measured, value: float) -> Measured:
    """What belongs to a number: missing with it, and for the same reason."""
    return number if np.isnan(number.value) else Measured(value, number.n_used, number.status)


def _lines(matrix: Float64[np.ndarray, "points points"], n_always: int, n_after: int, k: int) -> _Rows:
    """Overlap of each point with the one before it, the first and the last; where one of the two is the embeddings, over
    ``n_always`` tokens, else over ``n_after``. A point is not compared with itself."""
    rows: _Rows = []
    last = len(matrix) - 1
    for point in range(last + 1):
        for name, other in zip(_LINES, (point - 1, 0, last), strict=True):
            if other < 0 or other == point:
                continue
            n = n_after if point and other else n_always
            value, chance = undefined("too_few_tokens", n), undefined("too_few_tokens", n)
            if n >= MIN_TOKENS:
                status: Status = "low_confidence" if n < FEW_TOKENS else "ok"
                value = Measured(float(matrix[point, other]), n, status)
                chance = chance_overlap(n, min(k, n // _SHARE))
            rows += [(point, name, value), (point, f"{name}_chance", chance)]
    return rows
