"""Attention weighted by what it moves: value norms, VATP and effective attention (docs/methods, 2.4)."""

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

__all__ = ["key_ranks", "value_norm_ratio", "value_weighted"]


def value_norm_ratio(norms: Float[Tensor, "blocks heads tokens"]) -> Float64[Tensor, "blocks heads"]:
    """Value norm of position 0 over the median of all positions.

    Sinks usually read far below 1: much attention, little to move. A median of 0 gives NaN.
    """
    wide = norms.double()
    median = wide.quantile(0.5, dim=-1)
    return wide[:, :, 0] / median.masked_fill(median == 0, torch.nan)


def value_weighted(
    column_sum: Float64[Tensor, "*lead tokens"], norms: Float[Tensor, "*lead tokens"]
) -> Float64[Tensor, "*lead tokens"]:
    """``(sum_i A_ik) ||v_k||`` for each key.

    With L1 norms of the values it is the VATP score (guozhiyu/vatp); with ``||v_k W_O||_2`` it is the effective
    attention, since only what passes W_O enters the residual stream.
    """
    return column_sum * norms.double()


def key_ranks(scores: Float64[Tensor, "*lead tokens"], keep_first: int = 0) -> Int64[Tensor, "*lead tokens"]:
    """Rank of each key, 1 for the largest score; equal scores rank by position.

    Args:
        scores: one score for each key.
        keep_first: the first positions that are ranked before all others, as VATP never drops them.

    Raises:
        ValueError: ``keep_first`` is not in 0..tokens.
    """
    n_tokens = scores.shape[-1]
    if not 0 <= keep_first <= n_tokens:
        raise ValueError(f"keep_first must be in 0..{n_tokens}, not {keep_first}")
    forced = scores.clone()
    forced[..., :keep_first] = torch.inf
    order = forced.argsort(dim=-1, descending=True, stable=True)
    ranks = torch.arange(1, n_tokens + 1).expand_as(order)
    return torch.empty_like(order).scatter_(-1, order, ranks)
