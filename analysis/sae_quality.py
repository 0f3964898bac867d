"""Quality of a sparse autoencoder over a stream of states, batch by batch (docs/methods, SAE quality).

The same numbers as :func:`analysis.sae_metrics.reconstruction_quality` gives of all states at once, from float64 sums, so
that a corpus never has to stand in memory; and how often latents fire, and what a loss recovers.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from analysis.measured import Measured, undefined
from analysis.sae_metrics import ReconstructionQuality

__all__ = ["BIN", "DEAD_TOKENS", "DENSE", "NEVER", "Activity", "FitSums", "density_bars", "density_bins", "recovered"]

BIN = 0.25
"""Width of a bar of the density histogram, in log10."""
DEAD_TOKENS = 100_000
"""Below so many tokens a latent that never fired is not called dead."""
DENSE = 0.1
NEVER = 0
"""The bar of latents that never fired; all others are negative."""
_LEAST_DAMAGE = 0.01  # nats


@dataclass
class FitSums:
    """Sums over the states seen so far: of squared errors, of x and its square, and of the per-state numbers."""

    d_model: int
    n: int = 0
    error: float = 0.0
    square: float = 0.0
    dot: float = 0.0
    square_hat: float = 0.0
    cosine: float = 0.0
    ratio: float = 0.0
    active: float = 0.0
    total: Float64[Tensor, " d_model"] = field(init=False)

    def __post_init__(self) -> None:
        self.total = torch.zeros(self.d_model, dtype=torch.float64)

    def add(
        self,
        states: Float[Tensor, "states d_model"],
        rebuilt: Float[Tensor, "states d_model"],
        n_active: Int64[Tensor, " states"],
    ) -> None:
        """Count more states x, what the SAE gave back, and how many latents it took for each."""
        if not len(states):
            return
        x, x_hat = states.double(), rebuilt.double()
        dot = (x * x_hat).sum(dim=1)
        norm, norm_hat = x.norm(dim=1), x_hat.norm(dim=1)
        self.n += len(x)
        self.total += x.sum(dim=0)
        self.error += float((x - x_hat).square().sum())
        self.square += float(norm.square().sum())
        self.square_hat += float(norm_hat.square().sum())
        self.dot += float(dot.sum())
        self.cosine += float((dot / (norm * norm_hat).clamp_min(1e-300)).sum())
        self.ratio += float((norm_hat / norm.clamp_min(1e-300)).sum())
        self.active += float(n_active.sum())

    @property
    def mean(self) -> Float64[Tensor, " d_model"]:
        """The mean state."""
        return self.total / max(self.n, 1)

    def quality(self, variance: float | None) -> ReconstructionQuality:
        """The numbers of what was seen; ``variance`` is the corpus variance of the SAE, None if it brings none."""
        if self.n == 0:
            return ReconstructionQuality(*[undefined("too_few_tokens")] * 6)
        spread = self.square - float(self.total.square().sum()) / self.n
        own = self.n > 1 and spread > self.square * self.n * torch.finfo(torch.float64).eps
        return ReconstructionQuality(
            l0=_measured(self.active / self.n, self.n),
            explained_variance=undefined("not_applicable", self.n)
            if variance is None
            else _measured(1.0 - self.error / (self.n * variance), self.n),
            explained_variance_own=_measured(1.0 - self.error / spread, self.n)
            if own
            else undefined("too_few_tokens" if self.n < 2 else "not_applicable", self.n),
            cosine=_measured(self.cosine / self.n, self.n),
            norm_ratio=_measured(self.ratio / self.n, self.n),
            reconstruction_bias=_measured(self.square_hat / self.dot if self.dot else math.nan, self.n),
        )


@dataclass
class Activity:
    """How many latents each state takes, and on how many states each latent fires."""

    d_sae: int
    n: int = 0
    fired: Int64[Tensor, " latents"] = field(init=False)
    l0: Int64[Tensor, " _"] = field(init=False)

    def __post_init__(self) -> None:
        self.fired = torch.zeros(self.d_sae, dtype=torch.int64)
        self.l0 = torch.zeros(self.d_sae + 1, dtype=torch.int64)

    def add(self, activations: Float[Tensor, "states latents"]) -> Int64[Tensor, " states"]:
        """Count more states; the number of active latents of each."""
        on = activations > 0
        per_state = on.sum(dim=1)
        self.n += len(activations)
        self.fired += on.sum(dim=0)
        self.l0 += torch.bincount(per_state, minlength=self.d_sae + 1)
        return per_state

    @property
    def never(self) -> Measured:
        """Share of latents that fired nowhere."""
        return self._share(self.fired == 0)

    @property
    def dead(self) -> Measured:
        """:attr:`never`, where there was enough text to call it so."""
        return self.never if self.n >= DEAD_TOKENS else undefined("too_few_tokens", self.n)

    @property
    def dense(self) -> Measured:
        """Share of latents that fire on more than a tenth of the states."""
        return self._share(self.fired > DENSE * self.n)

    def _share(self, which: Tensor) -> Measured:
        return Measured(float(which.double().mean()), self.n) if self.n else undefined("too_few_tokens")


def density_bars(fired: Int64[Tensor, " latents"], n: int) -> Int64[Tensor, " latents"]:
    """The bar of each latent by log10 of the share of states it fires on: bar b is [b/4, (b+1)/4), the last one 0 too.

    :data:`NEVER` for those that never fired.
    """
    bars = ((fired.double() / max(n, 1)).log10() / BIN).floor()
    return torch.where(fired > 0, bars.clamp(max=-1), float(NEVER)).long()


def density_bins(fired: Int64[Tensor, " latents"], n: int) -> dict[int, int]:
    """How many latents each bar of :func:`density_bars` counts, without those that never fired."""
    bars = density_bars(fired, n)
    return dict(sorted(Counter(bars[bars != NEVER].tolist()).items()))


def recovered(damaged: float, rebuilt: float, clean: float, n: int) -> Measured:
    """Share of the loss that replacing a state costs which the reconstruction wins back: (damaged - rebuilt) / (damaged -
    clean), losses in nats over ``n`` predictions. Not defined where the replacement costs less than 0.01 nats."""
    if not n:
        return undefined("too_few_tokens")
    if not all(map(math.isfinite, (damaged, rebuilt, clean))):
        return undefined("non_finite", n)
    if damaged - clean < _LEAST_DAMAGE:
        return undefined("not_applicable", n)
    return Measured((damaged - rebuilt) / (damaged - clean), n)


def _measured(value: float, n: int) -> Measured:
    return Measured(value, n) if math.isfinite(value) else undefined("not_applicable", n)
