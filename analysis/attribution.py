"""Direct logit attribution: the final logit as a sum over what each component wrote (docs/methods/lens.md).

The final residual is a sum of parts. With the final norm's scale frozen at the value it has for the whole residual, the
norm is linear, and a logit (or a difference of two) is one inner product a part plus the norm's bias, all in float64.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from analysis.measured import Measured, undefined

__all__ = [
    "CANCELLATION_LIMIT",
    "FrozenNorm",
    "NotAdditive",
    "contribution",
    "freeze_norm",
    "head_contributions",
    "shares",
    "source_contributions",
    "sum_error",
]

CANCELLATION_LIMIT = 3.0  # "% of total" only where sum |parts| is below this multiple of |total|


class NotAdditive(ValueError):
    """What a model adds up to cannot be told apart into parts."""


@dataclass(frozen=True, slots=True)
class FrozenNorm:
    """A norm at one position, linearised: normalise(h) = scale * gain * (h [- mean h]) + bias.

    The final norm, and a post-norm between attention and the residual stream (Gemma-2, OLMo-2): pulling a direction
    back through both in turn attributes the heads behind the post-norm.
    """

    kind: Literal["rms", "layer"]
    scale: float
    gain: Float64[Tensor, " d_model"]
    bias: Float64[Tensor, " d_model"]

    def pull_back(self, direction: Float[Tensor, " d_model"]) -> Float64[Tensor, " d_model"]:
        """g with <part, g> = <scale * gain * centred(part), direction>: one vector for every part of a position."""
        pulled = self.scale * self.gain * direction.double()
        return pulled - pulled.mean() if self.kind == "layer" else pulled


def freeze_norm(
    hidden: Float[Tensor, " d_model"],
    normalised: Float[Tensor, " d_model"],
    gain: Float[Tensor, " d_model"],
    bias: Float[Tensor, " d_model"],
    kind: Literal["rms", "layer"],
    tolerance: float = 1e-4,
) -> FrozenNorm:
    """Find the scale the norm used on ``hidden``, from its output: 1/rms or 1/sigma with whatever epsilon it adds.

    Raises NotAdditive when no single scale explains the output within the relative ``tolerance`` (a norm of another
    kind, or another gain; half precision needs about 1e-2).
    """
    centred = hidden.double() - (hidden.double().mean() if kind == "layer" else 0.0)
    direction, output = gain.double() * centred, normalised.double() - bias.double()
    energy = direction.square().sum()
    if not bool(torch.isfinite(energy)) or float(energy) == 0.0:
        raise NotAdditive("the input of a norm must be finite and not zero to be attributed")
    scale = float((direction * output).sum() / energy)
    error = float((scale * direction - output).norm() / output.norm())
    if not error <= tolerance:
        raise NotAdditive(
            f"this is not a {kind} norm with this gain: relative error {error:.1e}, allowed {tolerance:.0e}"
        )
    return FrozenNorm(kind, scale, gain.double(), bias.double())


def contribution(
    part: Float[Tensor, "*parts d_model"], pulled: Float64[Tensor, " d_model"]
) -> Float64[Tensor, "*parts"]:
    """What parts of the residual add to the logit whose direction was pulled back through the norm."""
    return part.double() @ pulled


def head_contributions(
    z: Float[Tensor, "heads d_head"], w_o: Float[Tensor, "heads d_head d_model"], pulled: Float64[Tensor, " d_model"]
) -> Float64[Tensor, " heads"]:
    """<z_h W_O^h, g> for every head of a block."""
    return (z.double() * (w_o.double() @ pulled)).sum(-1)


def source_contributions(
    pattern: Float[Tensor, " keys"],
    values: Float[Tensor, "keys d_head"],
    w_o: Float[Tensor, "d_head d_model"],
    pulled: Float64[Tensor, " d_model"],
) -> Float64[Tensor, " keys"]:
    """One head's contribution split by source token: A[t, s] <v_s W_O^h, g>. Sums to the head's contribution."""
    return pattern.double() * (values.double() @ (w_o.double() @ pulled))


def sum_error(parts: Float64[Tensor, " parts"], total: float) -> float:
    """|sum of parts - total| relative to the largest |part| or |total|, the scale on which rounding acts."""
    largest = max(abs(total), float(parts.abs().max()))
    return abs(float(parts.sum()) - total) / largest if largest else 0.0


def shares(parts: Float64[Tensor, " parts"]) -> list[Measured]:
    """Per cent of the total, undefined where parts cancel: sum |parts| >= 3 |total|."""
    total = float(parts.sum())
    n = len(parts)
    if float(parts.abs().sum()) >= CANCELLATION_LIMIT * abs(total):
        return [undefined("not_applicable", n)] * n
    return [Measured(100.0 * float(part) / total, n) for part in parts]
