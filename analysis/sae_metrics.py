"""How well a sparse autoencoder rebuilds residual states, and how sparsely (docs/methods, SAE latents).

Explained variance has two references, kept apart by name. ``explained_variance`` divides by the variance of a corpus
sample stored with the SAE, so a prompt of few or like tokens cannot flatter or damn it; ``explained_variance_own``
divides by the variance of the tokens at hand, the usual number, which one massive token lifts to about 1. All sums are
float64.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor

from analysis.measured import Measured, undefined

__all__ = ["ReconstructionQuality", "corpus_variance", "density", "reconstruction_quality", "token_explained_variance"]


@dataclass(frozen=True, slots=True)
class ReconstructionQuality:
    """Quality over the kept tokens. FVU is 1 minus explained variance, so it is not stored.

    ``l0``: mean number of active latents. ``cosine``: mean cos(x, x_hat). ``norm_ratio``: mean |x_hat| / |x|.
    ``reconstruction_bias``: E|x_hat|^2 / E<x, x_hat>, below 1 when reconstructions shrink (SAELens).
    """

    l0: Measured
    explained_variance: Measured
    explained_variance_own: Measured
    cosine: Measured
    norm_ratio: Measured
    reconstruction_bias: Measured


def corpus_variance(states: Float[Tensor, "tokens d_model"]) -> float:
    """Mean squared distance of states from their mean: the reference that is stored with an SAE.

    Raises:
        ValueError: fewer than two states, or all equal.
    """
    if states.shape[0] < 2:
        raise ValueError(f"corpus variance needs at least 2 states, not {states.shape[0]}")
    value = _spread(states.double()).item() / states.shape[0]
    if not value > 0:
        raise ValueError(f"corpus variance must be above 0, not {value}")
    return value


def reconstruction_quality(
    states: Float[Tensor, "tokens d_model"],
    rebuilt: Float[Tensor, "tokens d_model"],
    n_active: Int64[Tensor, "tokens"],
    keep: Bool[Tensor, "tokens"],
    variance: float | None,
) -> ReconstructionQuality:
    """Measure an SAE on the tokens where ``keep`` is true.

    Args:
        states: what the SAE read, x.
        rebuilt: what it gave back, x_hat.
        n_active: latents above 0 at each token.
        keep: tokens to use.
        variance: ``corpus_variance`` stored with the SAE, or None if it brings none (then ``explained_variance`` is
            not applicable; it is never replaced by the prompt's own).
    """
    x, x_hat = states[keep].double(), rebuilt[keep].double()
    n = x.shape[0]
    if n == 0:
        return ReconstructionQuality(*[undefined("too_few_tokens")] * 6)
    if not (torch.isfinite(x).all() and torch.isfinite(x_hat).all()):
        return ReconstructionQuality(*[undefined("non_finite", n)] * 6)
    error = (x - x_hat).square().sum()
    dot = (x * x_hat).sum(dim=1)
    norm, norm_hat = x.norm(dim=1), x_hat.norm(dim=1)
    return ReconstructionQuality(
        l0=_measured(n_active[keep].double().mean(), n),
        explained_variance=_against_corpus(error, n, variance),
        explained_variance_own=_against_own(error, x),
        cosine=_measured((dot / (norm * norm_hat)).mean(), n),
        norm_ratio=_measured((norm_hat / norm).mean(), n),
        reconstruction_bias=_measured(norm_hat.square().sum() / dot.sum(), n),
    )


def token_explained_variance(
    states: Float[Tensor, "tokens d_model"], rebuilt: Float[Tensor, "tokens d_model"], variance: float
) -> Float64[Tensor, "tokens"]:
    """1 - |x_t - x_hat_t|^2 / corpus variance, token by token; its mean is the corpus explained variance exactly."""
    _check_variance(variance)
    return 1.0 - (states.double() - rebuilt.double()).square().sum(dim=1) / variance


def density(activations: Float[Tensor, "tokens latents"]) -> Float64[Tensor, "latents"]:
    """Share of tokens on which each latent is active.

    Raises:
        ValueError: there are no tokens.
    """
    if activations.shape[0] == 0:
        raise ValueError("density needs at least 1 token, not 0")
    return (activations > 0).double().mean(dim=0)


def _spread(x: Float64[Tensor, "tokens d_model"]) -> Float64[Tensor, ""]:
    return (x - x.mean(dim=0)).square().sum()


def _against_corpus(error: Float64[Tensor, ""], n: int, variance: float | None) -> Measured:
    if variance is None:
        return undefined("not_applicable", n)
    _check_variance(variance)
    return _measured(1.0 - error / (n * variance), n)


def _against_own(error: Float64[Tensor, ""], x: Float64[Tensor, "tokens d_model"]) -> Measured:
    n = x.shape[0]
    if n < 2:
        return undefined("too_few_tokens", n)
    total = _spread(x)
    # Equal rows leave a spread of rounding size, not exactly 0.
    if total <= x.square().sum() * n * torch.finfo(torch.float64).eps:
        return undefined("not_applicable", n)
    return _measured(1.0 - error / total, n)


def _measured(value: Float64[Tensor, ""], n: int) -> Measured:
    number = value.item()
    return Measured(number, n) if math.isfinite(number) else undefined("not_applicable", n)


def _check_variance(variance: float) -> None:
    if not (math.isfinite(variance) and variance > 0):
        raise ValueError(f"corpus variance must be finite and above 0, not {variance}")
