"""Singular values of one prepared matrix of hidden states (core.md 1.1, decision 12).

The smaller Gram matrix in float64 is decomposed: six times faster than an SVD, and exact enough because only
eigenvalues above ``max(n, d) * eps`` of the largest are used. A float32 Gram is wrong by 1000 % beside a massive
activation and is never formed.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from analysis.measured import Status

__all__ = ["Spectrum", "gram", "spectra", "spectrum", "spectrum_by_svd", "undefined_spectrum", "usable"]

EPS64 = float(np.finfo(np.float64).eps)
BATCH_BYTES = 256 * 2**20


@dataclass(frozen=True, slots=True, eq=False)
class Spectrum:
    """Usable singular values of an ``n x d`` matrix, descending.

    ``centred`` says whether the column means were removed: then at most ``n - 1`` values are usable, because the n-th
    singular value of a centred matrix is zero by construction. With a status other than ``ok`` there are no values.
    """

    s: Float64[np.ndarray, " rank"]
    n: int
    d: int
    centred: bool = True
    status: Status = "ok"

    @property
    def rank(self) -> int:
        return int(self.s.size)

    @property
    def lam(self) -> Float64[np.ndarray, " rank"]:
        """Eigenvalues of the covariance, ``s**2 / (n - 1)``."""
        return self.s**2 / (self.n - 1)


def spectrum(x: Float64[Tensor, "n d"], *, centred: bool = True) -> Spectrum:
    """The spectrum of one prepared matrix; fewer than 2 rows is ``too_few_tokens``, no variation ``rank_deficient``."""
    return spectra([x], centred=centred)[0]


def spectra(matrices: Sequence[Float64[Tensor, "_ d"]], *, centred: bool = True) -> list[Spectrum]:
    """The spectra of many prepared matrices: one at a time on the CPU, batched on a GPU, with the same numbers.

    Batching is slower on a CPU, where the eigensolver already uses every core on one matrix.
    """
    results: list[Spectrum | None] = [_refusal(x, centred) for x in matrices]
    todo = [i for i, result in enumerate(results) if result is None]
    for chunk in _chunks(todo, matrices):
        eigenvalues = torch.linalg.eigvalsh(torch.stack([gram(matrices[i]) for i in chunk])).cpu().numpy()
        for i, values in zip(chunk, eigenvalues, strict=True):
            results[i] = _of_eigenvalues(values[::-1], matrices[i], centred)
    return [result for result in results if result is not None]


def spectrum_by_svd(x: Float64[Tensor, "n d"], *, centred: bool = True) -> Spectrum:
    """The same spectrum through ``svdvals``: slower, kept as the independent check of :func:`spectrum`."""
    return _refusal(x, centred) or _of_eigenvalues(torch.linalg.svdvals(x).square().cpu().numpy(), x, centred)


def gram(x: Float64[Tensor, "n d"]) -> Float64[Tensor, "m m"]:
    """The smaller of ``x x^T`` and ``x^T x``; both have the same non-zero eigenvalues."""
    n, d = x.shape
    return x @ x.T if n < d else x.T @ x


def usable(eigenvalues: Float64[np.ndarray, " m"], n: int, d: int, *, centred: bool) -> Float64[np.ndarray, " rank"]:
    """The eigenvalues (descending) that are signal in float64: ``> lambda_1 max(n, d) eps``, at most n - 1 if centred.

    The bound stands on eigenvalues on every path: on singular values it would keep the noise of the Gram path.
    """
    if eigenvalues.size == 0 or eigenvalues[0] <= 0:
        return np.zeros(0)
    above = eigenvalues > eigenvalues[0] * max(n, d) * EPS64
    cap = min(n - 1, d) if centred else min(n, d)
    return eigenvalues[: min(int(above.sum()), cap)].copy()


def undefined_spectrum(status: Status, n: int, d: int, *, centred: bool = True) -> Spectrum:
    """No values, and the reason."""
    return Spectrum(np.zeros(0), n, d, centred, status)


def _refusal(x: Float64[Tensor, "n d"], centred: bool) -> Spectrum | None:
    n, d = x.shape
    if n < 2:
        return undefined_spectrum("too_few_tokens", n, d, centred=centred)
    if not bool(torch.isfinite(x).all()):
        return undefined_spectrum("non_finite", n, d, centred=centred)
    return None


def _of_eigenvalues(values: Float64[np.ndarray, " m"], x: Float64[Tensor, "n d"], centred: bool) -> Spectrum:
    n, d = x.shape
    kept = usable(values, n, d, centred=centred)
    return Spectrum(np.sqrt(kept), n, d, centred, "ok" if kept.size else "rank_deficient")


def _chunks(todo: list[int], matrices: Sequence[Tensor]) -> list[list[int]]:
    """Groups of matrices decomposed by one call: equal sizes together on a GPU within a byte budget, else alone."""
    groups: dict[int, list[int]] = {}
    chunks: list[list[int]] = []
    for i in todo:
        side = min(matrices[i].shape)
        limit = max(1, BATCH_BYTES // (side * side * 8)) if matrices[i].is_cuda else 1
        group = groups.setdefault(side, [])
        group.append(i)
        if len(group) >= limit:
            chunks.append(groups.pop(side))
    return [*chunks, *groups.values()]
