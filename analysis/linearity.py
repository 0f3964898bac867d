"""How nearly a block is a linear map of the residual stream: LLM-Microscope's score, and each token's distance from it.

Razzhigaev et al. 2024 (arXiv 2405.12250) and 2025 (2502.15007); ``procrustes_similarity`` of their package, which divides
by every singular value of X, however small. Here directions below 1e-6 of the largest singular value are left out.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from analysis.measured import Measured, Status, undefined

__all__ = ["TOKENS_A_DIMENSION", "LinearMap", "Linearity", "linearity", "nonlinearity", "score_on"]

TOKENS_A_DIMENSION = 4
"""Tokens needed for each dimension: n of them fit any target exactly in n - 1 dimensions."""


@dataclass(frozen=True, slots=True, eq=False)
class LinearMap:
    """y - mean_y ~ (x - mean_x) @ weight, by least squares on n rows; norms are Frobenius, of the centred matrices."""

    weight: Float64[Tensor, "d d"]
    mean_x: Float64[Tensor, " d"]
    mean_y: Float64[Tensor, " d"]
    norm_x: float
    norm_y: float
    n: int


@dataclass(frozen=True, slots=True, eq=False)
class Linearity:
    """``score`` of y by x, ``update_score`` of y - x by x, the rank of x that was used, and the map to y.

    The residual stream carries x through to y, so ``score`` is near 1 for a block that does little; ``update_score`` is
    of what the block adds. ``map`` is None where the score is undefined.
    """

    score: Measured
    update_score: Measured
    rank: int
    map: LinearMap | None


def linearity(x: Float[Tensor, "n d"], y: Float[Tensor, "n d"], rtol: float = 1e-6) -> Linearity:
    """1 - min_A |X A - Y|^2, X and Y column-centred and divided by their Frobenius norms; rows are tokens.

    Directions of X whose singular value is below ``rtol`` times the largest are left out (decided on eigenvalues of the
    Gram matrix, float64). With n <= d the score would be 1 whatever the model does, and with n a little above d nearly so
    (independent rows give d / (n - 1)): below 4 d rows it is ``too_few_tokens``. ``rank_deficient`` if x does not vary;
    ``update_score`` alone, if y - x does not vary.
    """
    n, d = x.shape
    if not bool(torch.isfinite(x).all() and torch.isfinite(y).all()):
        return _undefined("non_finite", n)
    if n < TOKENS_A_DIMENSION * d:
        return _undefined("too_few_tokens", n)
    before, after = x.double(), y.double()
    mean_x, mean_y = before.mean(dim=0), after.mean(dim=0)
    before, after = before - mean_x, after - mean_y
    norm_x, norm_y = float(before.norm()), float(after.norm())
    if norm_x == 0 or norm_y == 0:
        return _undefined("rank_deficient", n)
    energy, directions = torch.linalg.eigh(before.T @ before)
    used = energy > max(rtol**2, torch.finfo(torch.float64).eps * d) * energy[-1]
    directions, energy = directions[:, used], energy[used]
    crossed = directions.T @ (before.T @ after)
    weight = directions @ (crossed / energy[:, None])
    update = after - before
    # (Y - X) by the same X: the map less the identity on the directions used.
    update_weight = weight - directions @ directions.T
    return Linearity(
        _score(after - before @ weight, norm_y, n),
        _score(update - before @ update_weight, float(update.norm()), n),
        int(used.sum()),
        LinearMap(weight, mean_x, mean_y, norm_x, norm_y, n),
    )


def nonlinearity(
    known: LinearMap, x: Float[Tensor, "tokens d"], y: Float[Tensor, "tokens d"]
) -> tuple[Float64[Tensor, " tokens"], Float64[Tensor, " tokens"]]:
    """E_i = |A* h_i - h'_i| of each token, absolute and relative to |h'_i|, under a map fitted on other text.

    h and h' are centred and scaled as when the map was fitted. Scaled by the Frobenius norm of n rows, E shrinks with n,
    so it is multiplied by sqrt(n): the mean of E^2 over the fitted rows is 1 - score, and a token of average size that
    the map misses altogether has E = 1. Relative E is NaN for a token at the mean.
    """
    centred = y.double() - known.mean_y
    error = ((x.double() - known.mean_x) @ known.weight - centred).norm(dim=1)
    size = centred.norm(dim=1)
    relative: Tensor = torch.where(size > 0, error / size, torch.nan)
    absolute: Tensor = error * known.n**0.5 / known.norm_y
    return absolute, relative


def score_on(known: LinearMap, x: Float[Tensor, "n d"], y: Float[Tensor, "n d"]) -> Measured:
    """1 - |residual|^2 / |Y|^2 of a map fitted on other text, Y centred on the mean of *these* tokens.

    Held out, so it needs no 4 d tokens; it may be negative, where the mean of these tokens would predict better.
    """
    if not bool(torch.isfinite(x).all() and torch.isfinite(y).all()):
        return undefined("non_finite", len(x))
    if len(x) < 2:
        return undefined("too_few_tokens", len(x))
    after = y.double()
    residual = (x.double() - known.mean_x) @ known.weight + known.mean_y - after
    return _score(residual, float((after - after.mean(dim=0)).norm()), len(x))


def _score(residual: Float64[Tensor, "n d"], norm: float, n: int) -> Measured:
    if norm == 0:
        return undefined("rank_deficient", n)
    return Measured(1 - float(residual.square().sum()) / norm**2, n)


def _undefined(status: Status, n: int) -> Linearity:
    missing = undefined(status, n)
    return Linearity(missing, missing, 0, None)
