"""Tokens in the plane of their two largest directions: what the head of a spectrum is made of."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64
from sklearn.decomposition import PCA
from torch import Tensor

from analysis.measured import Status

__all__ = ["N_DIRECTIONS", "Projection", "project"]

N_DIRECTIONS = 2
_MIN_TOKENS = 3


@dataclass(frozen=True, eq=False)
class Projection:
    """Coordinates of the kept tokens on the leading principal directions, and the share of variance of each.

    The sign of a direction is arbitrary; here the token farthest along it is on its positive side.
    """

    coordinates: Float64[np.ndarray, "kept directions"]
    share: Float64[np.ndarray, " directions"]
    status: Status


def project(x: Float64[Tensor, "kept d_model"]) -> Projection:
    """Principal components of a prepared, centred matrix (`analysis.preparation.prepare`).

    Undefined below 3 tokens or where nothing varies; non-finite input is named, not projected.
    """
    rows = x.numpy()
    missing = np.full((len(rows), N_DIRECTIONS), np.nan), np.full(N_DIRECTIONS, np.nan)
    if not np.isfinite(rows).all():
        return Projection(*missing, "non_finite")
    if len(rows) < _MIN_TOKENS or rows.shape[1] < N_DIRECTIONS:
        return Projection(*missing, "too_few_tokens")
    if not rows.any():
        return Projection(*missing, "rank_deficient")
    pca = PCA(N_DIRECTIONS, svd_solver="full").fit(rows)
    coordinates = pca.transform(rows)
    farthest = np.abs(coordinates).argmax(axis=0)
    signs = np.sign(coordinates[farthest, range(N_DIRECTIONS)])
    signs[signs == 0] = 1.0
    return Projection(coordinates * signs, pca.explained_variance_ratio_, "ok")
