"""Coarser weights: integers with one scale an output channel, or a shorter floating-point type, and what is lost by it."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float32, Int8
from torch import Tensor

__all__ = ["Rounded", "integers", "pooled_error", "quantise", "round_to"]


@dataclass(frozen=True, slots=True, eq=False)
class Rounded:
    """A tensor after rounding, with the squared norms of what was lost and of what there was."""

    values: Float[Tensor, "*shape"]
    squared_loss: float
    squared_norm: float

    @property
    def error(self) -> float:
        """``|rounded - original| / |original|`` in the Frobenius norm; 0 for a tensor of zeros."""
        return pooled_error([self])


def integers(
    weight: Float[Tensor, "d_in d_out"], bits: int
) -> tuple[Int8[Tensor, "d_in d_out"], Float32[Tensor, "d_out"]]:
    """Symmetric round-to-nearest of a matrix: levels -(2^(bits-1) - 1) .. 2^(bits-1) - 1 and one scale an output channel.

    The scale is ``max|w| / levels`` over the channel; a channel of zeros has scale 0. ``integers * scale`` are the
    values a kernel would compute with. Raises ValueError for bits outside 2..8 and for values that are not finite.
    """
    if not 2 <= bits <= 8:
        raise ValueError(f"bits must be in 2..8, not {bits}")
    if not torch.isfinite(weight).all():
        raise ValueError("a matrix with values that are not finite cannot be quantised")
    levels = 2 ** (bits - 1) - 1
    wide = weight.float()
    scale = wide.abs().amax(dim=0) / levels
    steps = (wide / scale.masked_fill(scale == 0, 1.0)).round_().clamp_(-levels, levels)
    return steps.masked_fill_(scale == 0, 0.0).to(torch.int8), scale


def quantise(weight: Float[Tensor, "d_in d_out"], bits: int) -> Rounded:
    """The matrix rounded to ``bits`` per output channel and back in its own type; see :func:`integers`."""
    steps, scale = integers(weight, bits)
    return _rounded(weight, (steps * scale).to(weight.dtype))


def round_to(weight: Float[Tensor, "*shape"], dtype: torch.dtype) -> Rounded:
    """The tensor rounded to a shorter floating-point type and back in its own.

    Raises ValueError where a finite value is beyond the largest of ``dtype``.
    """
    there = weight.to(dtype)
    if bool((torch.isinf(there) & ~torch.isinf(weight)).any()):
        name = str(dtype).removeprefix("torch.")
        raise ValueError(
            f"the largest weight, {float(weight.abs().max()):.4g}, is beyond {name}'s {torch.finfo(dtype).max:.4g}"
        )
    return _rounded(weight, there.to(weight.dtype))


def pooled_error(parts: Iterable[Rounded]) -> float:
    """The relative Frobenius error of several tensors taken as one; 0 where all are zeros."""
    loss, norm = 0.0, 0.0
    for part in parts:
        loss, norm = loss + part.squared_loss, norm + part.squared_norm
    return float((loss / norm) ** 0.5) if norm > 0 else 0.0


def _rounded(weight: Tensor, values: Tensor) -> Rounded:
    return Rounded(values, _squared(values - weight), _squared(weight))


def _squared(values: Tensor) -> float:
    return float(torch.linalg.vector_norm(values, dtype=torch.float64)) ** 2
