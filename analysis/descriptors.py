"""Scalar descriptors of one spectrum, and the layer where matrix entropy collapses (core.md 1.7)."""

from dataclasses import dataclass
from math import inf, log, nan

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from analysis.measured import Measured, Status, undefined
from analysis.spectrum import Spectrum, spectrum

__all__ = ["Descriptors", "describe", "entropy_collapse", "matrix_entropy"]

COLLAPSE_SHARE = 0.05
COLLAPSE_SDS = 3.0
MAD_TO_SD = 1.4826


@dataclass(frozen=True, slots=True)
class Descriptors:
    """With ``p = lambda / sum(lambda)`` and ``q = s / sum(s)``; all NaN unless the status is ``ok``.

    erank_sigma          exp(-sum q ln q), effective rank of Roy and Vetterli 2007, on singular values
    erank_lambda         exp(-sum p ln p), the same on eigenvalues, as RankMe-style code reports it
    participation_ratio  (sum lambda)^2 / sum lambda^2
    stable_rank          sum lambda / lambda_1
    spectral_entropy     -sum p ln p in nats; ln r when isotropic
    entropy_normalised   spectral_entropy / ln min(n, d)
    anisotropy           lambda_1 / sum lambda, as in LLM-Microscope; also the energy of the first direction
    gap                  lambda_1 / lambda_2; infinite for rank 1
    top1_energy, top5_energy, top10_energy  share of the variance in the first directions
    """

    n_used: int
    status: Status
    erank_sigma: float = nan
    erank_lambda: float = nan
    participation_ratio: float = nan
    stable_rank: float = nan
    spectral_entropy: float = nan
    entropy_normalised: float = nan
    anisotropy: float = nan
    gap: float = nan
    top1_energy: float = nan
    top5_energy: float = nan
    top10_energy: float = nan


def describe(observed: Spectrum) -> Descriptors:
    """All scalar descriptors of a spectrum; ``n_used`` is its number of rows."""
    if observed.status != "ok":
        return Descriptors(observed.n, observed.status)
    squares = observed.s**2
    p, q = squares / squares.sum(), observed.s / observed.s.sum()
    entropy = _entropy(p)
    return Descriptors(
        erank_sigma=float(np.exp(_entropy(q))),
        erank_lambda=float(np.exp(entropy)),
        participation_ratio=float(1 / (p**2).sum()),
        stable_rank=float(1 / p[0]),
        spectral_entropy=entropy,
        entropy_normalised=entropy / log(min(observed.n, observed.d)) if min(observed.n, observed.d) > 1 else nan,
        anisotropy=float(p[0]),
        gap=float(p[0] / p[1]) if p.size > 1 else inf,
        top1_energy=float(p[0]),
        top5_energy=float(p[:5].sum()),
        top10_energy=float(p[:10].sum()),
        n_used=observed.n,
        status="ok",
    )


def matrix_entropy(x: Float64[Tensor, "n d"]) -> Measured:
    """Entropy (nats) of the eigenvalues of the trace-1 Gram matrix of L2-normalised rows.

    0 when all rows are parallel, ln n when they are orthonormal. Rows of a prepared matrix are already centred. A zero
    row has no direction and is left out; ``n_used`` counts the rest. Computed on the smaller Gram matrix.
    """
    if not bool(torch.isfinite(x).all()):
        return undefined("non_finite", x.shape[0])
    norms = x.norm(dim=1)
    directed = norms > 0
    rows = x[directed] / norms[directed, None]
    n = rows.shape[0]
    if n < 2:
        return undefined("too_few_tokens" if x.shape[0] < 2 else "rank_deficient", n)
    energy = spectrum(rows, centred=False).s ** 2
    return Measured(_entropy(energy / energy.sum()), n)


def entropy_collapse(entropy: Float64[np.ndarray, " points"]) -> int | None:
    """The point whose step down in entropy, relative to the first point, is the largest: the Entropy Collapse Layer.

    Only if the drop is more than 5 % of the first entropy and stands more than 3 robust standard deviations (1.4826
    MAD) off the other steps; else None, "no collapse". Undefined entropies (NaN) take part in no step.
    """
    drops = entropy[:-1] - entropy[1:]
    defined = np.flatnonzero(np.isfinite(drops))
    if defined.size < 3 or not np.isfinite(entropy[0]) or entropy[0] <= 0:
        return None
    largest = int(defined[np.argmax(drops[defined])])
    others = drops[defined[defined != largest]]
    middle = float(np.median(others))
    spread = MAD_TO_SD * float(np.median(np.abs(others - middle)))
    collapsed = drops[largest] > COLLAPSE_SHARE * entropy[0] and drops[largest] - middle > COLLAPSE_SDS * spread
    return largest + 1 if collapsed else None


def _entropy(p: Float64[np.ndarray, " r"]) -> float:
    return float(-(p * np.log(p)).sum()) + 0.0
