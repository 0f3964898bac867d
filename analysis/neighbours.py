"""Which tokens are near which in a layer, and whether another layer agrees: distances and neighbourhood overlap.

Distances are Euclidean, in float64, by the Gram matrix. A text repeats its tokens, and where a state does not depend on
what stands before it (the embeddings) repeated tokens are one point: exact duplicates are left out and counted, never
moved apart.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from analysis.measured import Measured, Status, undefined

__all__ = [
    "FEW_TOKENS",
    "MAX_DUPLICATES",
    "MIN_TOKENS",
    "NEIGHBOURS",
    "Distances",
    "chance_overlap",
    "distances",
    "distinct_rows",
    "nearest",
    "neighbourhood",
    "overlap",
    "point_distances",
]

MIN_TOKENS = 100
FEW_TOKENS = 256
MAX_DUPLICATES = 0.2
NEIGHBOURS = 30  # as DADApy's return_data_overlap
ROWS = 256  # points whose neighbourhoods are compared at once


@dataclass(frozen=True, slots=True, eq=False)
class Distances:
    """Distances between the distinct rows of one matrix, and how many rows repeated an earlier one.

    ``distance`` is empty unless the status is ``ok`` or ``low_confidence`` (100 to 255 distinct rows).
    """

    distance: Float64[Tensor, "n n"]
    n_used: int
    n_duplicates: int
    status: Status


def distances(x: Float[Tensor, "n d"]) -> Distances:
    """Distances between distinct rows.

    The status is ``too_few_tokens`` below 100 distinct rows, ``rank_deficient`` where more than a fifth of the rows
    repeat an earlier one, ``non_finite`` where a number is not finite.
    """
    if not bool(torch.isfinite(x).all()):
        return Distances(_empty(), len(x), 0, "non_finite")
    kept = distinct_rows(x)
    n_used, n_duplicates = len(kept), len(x) - len(kept)
    if n_duplicates > MAX_DUPLICATES * len(x):
        return Distances(_empty(), n_used, n_duplicates, "rank_deficient")
    if n_used < MIN_TOKENS:
        return Distances(_empty(), n_used, n_duplicates, "too_few_tokens")
    status: Status = "low_confidence" if n_used < FEW_TOKENS else "ok"
    return Distances(point_distances(x[torch.from_numpy(kept)]), n_used, n_duplicates, status)


def point_distances(x: Float[Tensor, "n d"]) -> Float64[Tensor, "n n"]:
    """Euclidean distances between rows by the Gram matrix of centred rows, float64; 0 on the diagonal."""
    rows = x.to(torch.float64)
    rows = rows - rows.mean(dim=0)
    squares = rows.square().sum(dim=1)
    squared = torch.addmm(squares[:, None] + squares[None, :], rows, rows.T, alpha=-2.0)
    return squared.clamp_(min=0).sqrt_().fill_diagonal_(0.0)


def distinct_rows(x: Float[Tensor, "n d"]) -> Int64[np.ndarray, " kept"]:
    """The first occurrence of every row, in order; rows are the same if every number is."""
    rows = np.ascontiguousarray(x.cpu().numpy()) + 0.0  # -0 is 0
    first: dict[bytes, int] = {}
    for index, row in enumerate(rows):
        first.setdefault(row.tobytes(), index)
    return np.fromiter(first.values(), dtype=np.int64, count=len(first))


def nearest(found: Distances, k: int) -> Float64[Tensor, "n k"]:
    """Distances to the k nearest other points, ascending. Raises ValueError unless k is 1 to n - 1."""
    n = len(found.distance)
    if not 1 <= k < n:
        raise ValueError(f"k must be 1 to {n - 1} (the other points), not {k}")
    others = found.distance.clone().fill_diagonal_(torch.inf)
    ordered: Tensor = others.topk(k, dim=1, largest=False, sorted=True).values
    return ordered


def neighbourhood(distance: Float64[Tensor, "n n"], k: int = NEIGHBOURS) -> Int64[Tensor, "n k"]:
    """The k nearest other points of each point. Raises ValueError unless k is 1 to n - 1."""
    n = len(distance)
    if not 1 <= k < n:
        raise ValueError(f"k must be 1 to {n - 1} (the other points), not {k}")
    indices: Tensor = distance.clone().fill_diagonal_(torch.inf).topk(k, dim=1, largest=False).indices
    return indices


def overlap(spaces: Sequence[Int64[Tensor, "n k"]]) -> Float64[np.ndarray, "spaces spaces"]:
    """Share of the k neighbours that two spaces have in common, mean over points, for every pair of spaces.

    chi_k(l, m) = (1/N) sum_i |NN_k^l(i) and NN_k^m(i)| / k, as DADApy's ``return_data_overlap`` (Doimo et al. 2020).
    ``spaces`` are :func:`neighbourhood` of the same points in the same order; raises ValueError if their shapes differ.
    """
    shapes = {tuple(space.shape) for space in spaces}
    if len(shapes) != 1:
        raise ValueError(f"all spaces must hold the same points and as many neighbours, not {sorted(shapes)}")
    ((n, k),) = shapes
    shared = np.zeros((len(spaces), len(spaces)))
    for first in range(0, n, ROWS):
        rows = [space[first : first + ROWS].cpu() for space in spaces]
        inside = torch.zeros(len(spaces), len(rows[0]), n)  # float32 counts ones exactly below 2^24
        for members, row in zip(inside, rows, strict=True):
            members.scatter_(1, row, 1.0)
        flat = inside.flatten(1)
        shared += (flat @ flat.T).double().numpy()
    return shared / (n * k)


def chance_overlap(n: int, k: int) -> Measured:
    """What :func:`overlap` of unrelated spaces is on average: k / (n - 1)."""
    return Measured(k / (n - 1), n) if n > 1 else undefined("too_few_tokens", n)


def _empty() -> Float64[Tensor, "0 0"]:
    return torch.zeros(0, 0, dtype=torch.float64)
