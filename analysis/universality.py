"""Whether two dictionaries hold the same directions (docs/methods, Two SAEs): latents matched by activation on one text,
then the matched decoder rows compared as two clouds of points, against shuffled matches.

``top_k_pca_comps`` of wlg1/univ_feat_geom compares a cumulative *share* of variance with .99 times the *total* variance,
which keeps one component whenever the total is above 1.01. Here the share is compared with .99.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int64
from numpy.typing import NDArray
from scipy.stats import rankdata
from torch import Tensor

from analysis.measured import Measured, undefined

__all__ = [
    "PAIRS_PER_DIMENSION",
    "CrossMoments",
    "Geometry",
    "Matches",
    "compare_geometry",
    "kept_components",
    "match_latents",
    "rsa",
    "svcca",
]

LEAST_R = 0.1
PAIRS_PER_DIMENSION = 5
DRAWS = 100
_RSA_PAIRS = 1500


class CrossMoments:
    """Running sums of two sets of latents over the same tokens; correlations come out at the end, in float64."""

    def __init__(self, n_a: int, n_b: int) -> None:
        self.n = 0
        self._cross = torch.zeros(n_a, n_b, dtype=torch.float64)
        self._sums = (torch.zeros(n_a, dtype=torch.float64), torch.zeros(n_b, dtype=torch.float64))
        self._squares = (torch.zeros(n_a, dtype=torch.float64), torch.zeros(n_b, dtype=torch.float64))

    def add(self, a: Float[Tensor, "tokens_a latents_a"], b: Float[Tensor, "tokens_b latents_b"]) -> None:
        """Raises ValueError if the two do not have the same tokens."""
        if len(a) != len(b):
            raise ValueError(f"both dictionaries must read the same tokens, not {len(a)} and {len(b)}")
        self.n += len(a)
        self._cross += a.T @ b
        for sums, squares, read in zip(self._sums, self._squares, (a, b), strict=True):
            sums += read.double().sum(dim=0)
            squares += read.double().square().sum(dim=0)

    def correlations(self) -> Float64[Tensor, "latents_a latents_b"]:
        """Pearson's r of every pair; NaN where a latent never changes."""
        if self.n < 2:
            raise ValueError(f"correlations need at least 2 tokens, not {self.n}")
        means = [sums / self.n for sums in self._sums]
        sd = [(q / self.n - m.square()).clamp(min=0).sqrt() for q, m in zip(self._squares, means, strict=True)]
        flat = [s <= 1e-7 * (q / self.n).sqrt() for s, q in zip(sd, self._squares, strict=True)]
        spread = [s.masked_fill(f, math.nan) for s, f in zip(sd, flat, strict=True)]
        found = (self._cross / self.n - means[0][:, None] * means[1]) / (spread[0][:, None] * spread[1])
        return found.clamp(-1, 1)


@dataclass(frozen=True, eq=False)
class Matches:
    """For each latent of B the best of A (many to one is allowed): ``best`` is -1 and ``r`` NaN where B's never changes.

    ``share_unique``: distinct latents of A among the matches.
    """

    best: Int64[Tensor, "latents_b"]
    r: Float64[Tensor, "latents_b"]
    share_unique: float


def match_latents(r: Float64[Tensor, "latents_a latents_b"]) -> Matches:
    """The best match in A of every latent of B by their correlation."""
    known = r.nan_to_num(nan=-2.0)
    value, best = known.max(dim=0)
    none = value < -1
    best = best.masked_fill(none, -1)
    matched = best[~none]
    unique = len(set(matched.tolist())) / len(matched) if len(matched) else math.nan
    return Matches(best, value.masked_fill(none, math.nan), unique)


@dataclass(frozen=True, slots=True)
class Geometry:
    """Likeness of matched decoder rows, and for each the share of shuffled matches that are at least as alike
    ((1 + #) / (1 + draws)) with the mean of those.

    ``n_directions``: those that hold 99 % of the variance of the rows, on the side that has more.
    """

    n_pairs: int
    n_directions: int
    svcca: Measured
    svcca_p: Measured
    svcca_null: Measured
    rsa: Measured
    rsa_p: Measured
    rsa_null: Measured


def compare_geometry(
    a: Float[Tensor, "pairs d_a"], b: Float[Tensor, "pairs d_b"], *, draws: int = DRAWS, seed: int = 0
) -> Geometry:
    """SVCCA and RSA of paired rows, and of ``draws`` shufflings of the pairing."""
    generator = np.random.default_rng(seed)
    orders = [generator.permutation(len(a)) for _ in range(draws)]
    one, many = svcca(a, b), undefined("not_applicable", len(a))
    svcca_p = svcca_null = many
    if one.status == "ok":
        left, right = _basis(a), _basis(b)
        null = [_mean_cca(left, right[order]) for order in orders]
        svcca_p, svcca_null = _p(one.value, null, len(a)), Measured(float(np.mean(null)), len(a))
    two, rsa_p, rsa_null = rsa(a, b), many, many
    if two.status == "ok":
        ranks = [_ranked_distances(rows[: two.n_used]) for rows in (a, b)]
        null = [_upper_correlation(ranks[0], ranks[1][np.ix_(o, o)]) for o in _within(orders, two.n_used)]
        rsa_p, rsa_null = _p(two.value, null, two.n_used), Measured(float(np.mean(null)), two.n_used)
    directions = max(kept_components(rows) for rows in (a, b)) if len(a) else 0
    return Geometry(len(a), directions, one, svcca_p, svcca_null, two, rsa_p, rsa_null)


def svcca(a: Float[Tensor, "pairs d_a"], b: Float[Tensor, "pairs d_b"], share: float = 0.99) -> Measured:
    """Mean canonical correlation of the leading directions that hold ``share`` of each side's variance.

    ``not_applicable`` with fewer pairs than 5 times the directions kept: canonical correlations are near 1 then, whatever
    the rows are.
    """
    if len(a) < 2:
        return undefined("not_applicable", len(a))
    left, right = _basis(a, share), _basis(b, share)
    if len(a) < PAIRS_PER_DIMENSION * max(left.shape[1], right.shape[1]) or 0 in (left.shape[1], right.shape[1]):
        return undefined("not_applicable", len(a))
    return Measured(_mean_cca(left, right), len(a))


def rsa(a: Float[Tensor, "pairs d_a"], b: Float[Tensor, "pairs d_b"]) -> Measured:
    """Spearman's correlation of the distances (1 - Pearson) between all rows of A with those of B; the first 1,500 pairs.

    ``not_applicable`` below 10 pairs.
    """
    n = min(len(a), _RSA_PAIRS)
    if n < 10:
        return undefined("not_applicable", n)
    value = _upper_correlation(_ranked_distances(a[:n]), _ranked_distances(b[:n]))
    return undefined("not_applicable", n) if math.isnan(value) else Measured(value, n)


def kept_components(rows: Float[Tensor, "rows d"], share: float = 0.99) -> int:
    """How many principal components hold ``share`` of the variance of the rows; 0 where there is none."""
    energy = np.linalg.svd(_centred(rows), compute_uv=False) ** 2
    total = energy.sum()
    return int(np.searchsorted(np.cumsum(energy), share * total) + 1) if total > 0 else 0


def concept_pairs(
    matches: Matches,
    top_a: Int64[Tensor, "latents_a 5"],
    top_b: Int64[Tensor, "latents_b 5"],
    other: frozenset[int],
) -> Bool[Tensor, "latents_b"]:
    """Pairs worth comparing: r above .1, no token of ``other`` (punctuation, spaces, specials) among the five strongest of
    either, and at least one token shared. Absent tokens are -1."""
    keep = torch.zeros(len(matches.best), dtype=torch.bool)
    for index, (match, r) in enumerate(zip(matches.best.tolist(), matches.r.tolist(), strict=True)):
        if match < 0 or not r > LEAST_R:
            continue
        left, right = set(top_a[match].tolist()) - {-1}, set(top_b[index].tolist()) - {-1}
        keep[index] = bool(left & right) and not (left | right) & other
    return keep


def _centred(rows: Float[Tensor, "rows d"]) -> NDArray[np.float64]:
    plain = rows.detach().double().cpu().numpy()
    return np.asarray(plain - plain.mean(axis=0), dtype=np.float64)


def _basis(rows: Float[Tensor, "rows d"], share: float = 0.99) -> NDArray[np.float64]:
    u, s, _ = np.linalg.svd(_centred(rows), full_matrices=False)
    energy = np.cumsum(s**2)
    kept = int(np.searchsorted(energy, share * energy[-1]) + 1) if energy[-1] > 0 else 0
    return np.asarray(u[:, :kept], dtype=np.float64)


def _mean_cca(left: NDArray[np.float64], right: NDArray[np.float64]) -> float:
    return float(np.linalg.svd(left.T @ right, compute_uv=False).clip(0, 1).mean())


def _ranked_distances(rows: Float[Tensor, "rows d"]) -> NDArray[np.float64]:
    """Ranks of 1 - r between rows, as a symmetric matrix."""
    plain = rows.detach().double().cpu().numpy()
    with np.errstate(invalid="ignore"):
        distances = 1 - np.corrcoef(plain)
    upper = np.triu_indices(len(plain), k=1)
    ranks = np.zeros_like(distances)
    ranks[upper] = rankdata(distances[upper])
    return np.asarray(ranks + ranks.T, dtype=np.float64)


def _upper_correlation(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    upper = np.triu_indices(len(a), k=1)
    left, right = a[upper] - a[upper].mean(), b[upper] - b[upper].mean()
    scale = math.sqrt(float(left @ left) * float(right @ right))
    return float(left @ right) / scale if scale > 0 else math.nan


def _within(orders: list[NDArray[np.int64]], n: int) -> list[NDArray[np.int64]]:
    return [order[order < n] for order in orders]


def _p(value: float, null: list[float], n: int) -> Measured:
    at_least = sum(one >= value - 1e-12 for one in null)
    return Measured((1 + at_least) / (1 + len(null)), n)
