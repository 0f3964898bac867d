"""Singular values of one prepared matrix of hidden states (core.md 1.1, decision 12).

The smaller Gram matrix in float64 is decomposed: six times faster than an SVD, and exact enough because only
eigenvalues above ``max(n, d) * eps`` of the largest are used. A float32 Gram is wrong by 1000 % beside a massive
activation and is never formed.
"""

from collections.abc import Iterable
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


def spectra(matrices: Iterable[Float64[Tensor, "_ d"]], *, centred: bool = True) -> list[Spectrum]:
    """The spectra of many prepared matrices: one at a time on the CPU, batched on a GPU, with the same numbers.

    Batching is slower on a CPU, where the eigensolver already uses every core on one matrix. Of a matrix only its Gram
    matrix is held until then, so an iterator of large matrices needs the memory of one.
    """
    found: dict[int, Spectrum] = {}
    waiting: dict[int, tuple[Tensor, int, int]] = {}

    def solve() -> None:
        if waiting:
            batch = torch.stack([product for product, _, _ in waiting.values()])
            for values, (i, (_, n, d)) in zip(torch.linalg.eigvalsh(batch).cpu().numpy(), waiting.items(), strict=True):
                found[i] = _of_eigenvalues(values[::-1], n, d, centred)
            waiting.clear()

    for i, x in enumerate(matrices):
        refused = _refusal(x, centred)
        if refused is not None:
            found[i] = refused
            continue
        product = gram(x)
        if any(len(product) != len(other) for other, _, _ in waiting.values()):
            solve()
        waiting[i] = (product, *x.shape)
        if not x.is_cuda or len(waiting) * product.nbytes >= BATCH_BYTES:
            solve()
    solve()
    return [found[i] for i in sorted(found)]


def spectrum_by_svd(x: Float64[Tensor, "n d"], *, centred: bool = True) -> Spectrum:
    """The same spectrum through ``svdvals``: slower, kept as the independent check of :func:`spectrum`."""
    n, d = x.shape
    refused = _refusal(x, centred)
    if refused is not None:
        return refused
    return _of_eigenvalues(torch.linalg.svdvals(x).square().cpu().numpy(), n, d, centred)


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
    if not bool(x.sum().isfinite()):  # one pass and no copy; the sum of float32 values cannot overflow
        return undefined_spectrum("non_finite", n, d, centred=centred)
    return None


def _of_eigenvalues(values: Float64[np.ndarray, " m"], n: int, d: int, centred: bool) -> Spectrum:
    kept = usable(values, n, d, centred=centred)
    return Spectrum(np.sqrt(kept), n, d, centred, "ok" if kept.size else "rank_deficient")
