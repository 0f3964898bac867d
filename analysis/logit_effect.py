"""What a direction in the residual stream does to the logits on the direct path (docs/methods, SAE latents)."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

__all__ = ["LogitEffect", "logit_effect"]

_ROWS = 8192


@dataclass(frozen=True, eq=False)
class LogitEffect:
    """The tokens a direction promotes and suppresses most, strongest first, in logits less their vocabulary mean.

    ``skewness`` and ``excess_kurtosis`` are of the effect over the whole vocabulary: near 0 for a direction that speaks
    of no tokens in particular, large for one that writes a few.
    """

    promoted: Int64[Tensor, "k"]
    promoted_by: Float64[Tensor, "k"]
    suppressed: Int64[Tensor, "k"]
    suppressed_by: Float64[Tensor, "k"]
    skewness: float
    excess_kurtosis: float


def logit_effect(
    direction: Float[Tensor, "d_model"],
    norm_weight: Float[Tensor, "d_model"],
    unembedding: Float[Tensor, "d_vocab d_model"],
    *,
    k: int = 10,
    centred_norm: bool = False,
) -> LogitEffect:
    """``direction * norm_weight @ unembedding.T``, less its mean over the vocabulary.

    The scale of the final norm is left out, so values compare tokens, not latents; and the path through later blocks is
    left out, which is the larger part for early layers. ``centred_norm``: the final norm is a LayerNorm, which removes
    the mean over dimensions first.

    Raises:
        ValueError: ``k`` is not in 1..d_vocab, or the direction is not finite.
    """
    if not 1 <= k <= len(unembedding):
        raise ValueError(f"k must lie in 1..{len(unembedding)}, not {k}")
    if not torch.isfinite(direction).all():
        raise ValueError("the direction must be finite")
    seen = direction.double()
    if centred_norm:
        seen = seen - seen.mean()
    seen = (seen * norm_weight.double()).cpu()
    logits = torch.cat([rows.double().cpu() @ seen for rows in torch.split(unembedding, _ROWS)])
    effect = logits - logits.mean()
    high, low = effect.topk(k), effect.topk(k, largest=False)
    sd = effect.square().mean().sqrt()
    standard = effect / sd if sd > 0 else effect
    return LogitEffect(
        promoted=high.indices,
        promoted_by=high.values,
        suppressed=low.indices,
        suppressed_by=low.values,
        skewness=standard.pow(3).mean().item() if sd > 0 else float("nan"),
        excess_kurtosis=standard.pow(4).mean().item() - 3 if sd > 0 else float("nan"),
    )
