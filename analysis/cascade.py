"""How alike layers move along a text: correlation of the per-token alpha gradients (core.md 1.5, arXiv 2604.15350).

Layers of a residual stream share their content, so correlation falls with distance without any computation: read it
only beside the nulls of :mod:`analysis.cascade_nulls`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from jaxtyping import Float64, Int64

from analysis.measured import Status

__all__ = [
    "MIN_LAYERS",
    "MIN_WINDOWS",
    "Cascade",
    "by_distance",
    "cascade",
    "gradient",
    "stacked",
    "standard_gradients",
]

MIN_WINDOWS: Final = 24
MIN_LAYERS: Final = 6
FLAT: Final = 1e-7
"""A gradient of this standard deviation is rounding: alpha itself is exact to 1e-6."""


@dataclass(frozen=True, eq=False)
class Cascade:
    """``correlation`` [points, points] of the gradients of one prompt, NaN for points that have none.

    ``rho`` is its mean over pairs of points at distance 1..L, ``pairs`` how many pairs each is made of. ``n_windows``
    windows and ``n_layers`` points entered. ``status``: fewer than 24 windows is ``too_few_tokens``, fewer than 6 points
    ``not_applicable``, fewer than 6 that move at all ``rank_deficient``.
    """

    correlation: Float64[np.ndarray, "points points"]
    rho: Float64[np.ndarray, " distances"]
    pairs: Int64[np.ndarray, " distances"]
    n_windows: int
    n_layers: int
    status: Status


def gradient(alpha: Float64[np.ndarray, "points tokens"]) -> Float64[np.ndarray, "points steps"]:
    """``g(t, l) = alpha(t+1, l) - alpha(t, l)`` for t = 0..tokens-2; NaN where either is undefined."""
    return np.diff(alpha, axis=1)


def cascade(alpha: Float64[np.ndarray, "points tokens"], start: int = 0) -> Cascade:
    """Pearson correlations between layers of the gradients over the windows that end at token ``start`` or later.

    Give the first generated token as ``start``. Only steps defined at every point in use count. Raises ValueError for a
    start outside the text.
    """
    points, tokens = alpha.shape
    if not 0 <= start < tokens:
        raise ValueError(f"the first token must be in 0..{tokens - 1}, not {start}")
    g, layers, n_windows, status = standard_gradients(alpha[:, start:])
    correlation = np.full((points, points), np.nan)
    if status == "ok":
        correlation[np.ix_(layers, layers)] = np.clip(g @ g.T, -1, 1)
    rho, pairs = by_distance(correlation)
    return Cascade(correlation, rho, pairs, n_windows, len(layers), status)


def standard_gradients(
    alpha: Float64[np.ndarray, "points tokens"],
) -> tuple[Float64[np.ndarray, "layers steps"], Int64[np.ndarray, " layers"], int, Status]:
    """Gradients less their mean and of length 1, the points they belong to, the number of windows, and the status.

    Points with fewer than 24 windows, or whose gradient is rounding, take no part; then steps that are not defined at
    every remaining point are left out.
    """
    g = gradient(alpha)
    windows = np.isfinite(alpha).sum(axis=1)
    n_windows = int(windows.max(initial=0))
    if n_windows < MIN_WINDOWS:
        return np.zeros((0, 0)), np.zeros(0, dtype=np.int64), n_windows, "too_few_tokens"
    layers = np.flatnonzero(windows >= MIN_WINDOWS)
    none = np.zeros((layers.size, 0))
    if len(alpha) < MIN_LAYERS or layers.size < MIN_LAYERS:
        return none, layers, n_windows, "not_applicable"
    steps = np.isfinite(g[layers]).all(axis=0)
    if steps.sum() < MIN_WINDOWS - 1:
        return none, layers, int(steps.sum()) + 1, "too_few_tokens"
    own = g[np.ix_(layers, steps)]
    own = own - own.mean(axis=1, keepdims=True)
    moving = own.std(axis=1) > FLAT
    layers, own = layers[moving], own[moving]
    if layers.size < MIN_LAYERS:
        return own[:, :0], layers, int(steps.sum()) + 1, "rank_deficient"
    return own / np.linalg.norm(own, axis=1, keepdims=True), layers, int(steps.sum()) + 1, "ok"


def by_distance(
    correlation: Float64[np.ndarray, "points points"],
) -> tuple[Float64[np.ndarray, " distances"], Int64[np.ndarray, " distances"]]:
    """Mean correlation of the pairs of points at distance 1..L, NaN where there is none, and how many pairs."""
    diagonals = [np.diagonal(correlation, distance) for distance in range(1, len(correlation))]
    pairs = np.array([np.isfinite(one).sum() for one in diagonals], dtype=np.int64)
    sums = np.array([np.nansum(one) for one in diagonals], dtype=np.float64)
    return sums / np.where(pairs > 0, pairs, np.nan), pairs


def stacked(cascades: Sequence[Cascade]) -> tuple[Float64[np.ndarray, "prompts distances"], Int64[np.ndarray, " d"]]:
    """``rho`` of every prompt with one, as the rows of a table, and the number of pairs over them all."""
    defined = [one for one in cascades if one.status == "ok"]
    n_distances = len(cascades[0].rho) if cascades else 0
    if not defined:
        return np.zeros((0, n_distances)), np.zeros(n_distances, dtype=np.int64)
    return np.stack([one.rho for one in defined]), np.sum([one.pairs for one in defined], axis=0)
