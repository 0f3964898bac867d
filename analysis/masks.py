"""Which tokens a geometry metric uses: everything, without position 0, or without sinks (docs/methods, 0 and 2.1)."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float64
from torch import Tensor

from analysis.sinks import MIN_VISIBLE_QUERIES, SINK_EPSILON, first_sink_block, visible_queries

__all__ = ["Masks", "token_masks"]

_MIN_HEAD_SHARE = 0.1
_MIN_HEADS = 3


@dataclass(frozen=True, eq=False)
class Masks:
    """True marks the tokens a metric keeps. One mask serves all layers, so that layers stay comparable.

    ``dropped`` lists the positions that ``no_sink`` leaves out, in order, each with its reason.
    """

    all: Bool[Tensor, "tokens"]
    no_bos: Bool[Tensor, "tokens"]
    no_sink: Bool[Tensor, "tokens"]
    dropped: tuple[tuple[int, str], ...]


def token_masks(
    sink_scores: Float64[Tensor, "blocks heads tokens"],
    strictly_massive_positions: frozenset[int],
    special: Bool[Tensor, "tokens"],
) -> Masks:
    """The three mask presets of one run.

    ``no_bos`` drops position 0 and special ids. ``no_sink`` drops position 0, strictly massive positions, and keys with
    an importance above .3 in at least 10 % of the heads of the model from the first block with sinks on, and in at
    least 3 heads. Keys with fewer than 8 visible queries are never called sinks.

    Args:
        sink_scores: importance ``a_k`` of every key.
        strictly_massive_positions: positions with a strict massive activation at any point.
        special: special ids such as BOS and chat markers.

    Raises:
        ValueError: a massive position lies outside the prompt.
    """
    n_tokens = len(special)
    outside = [pos for pos in sorted(strictly_massive_positions) if not 0 <= pos < n_tokens]
    if outside:
        raise ValueError(f"massive positions must lie in 0..{n_tokens - 1}, not {outside}")
    counts, n_heads = _heads_above(sink_scores)
    needed = max(_MIN_HEADS, math.ceil(_MIN_HEAD_SHARE * n_heads))
    reasons: dict[int, str] = {}
    for pos in range(n_tokens):
        if pos == 0:
            reasons[pos] = "position 0"
        elif pos in strictly_massive_positions:
            reasons[pos] = "massive activation"
        elif counts[pos] >= needed:
            reasons[pos] = f"sink in {counts[pos]} of {n_heads} heads"
    everything = torch.ones(n_tokens, dtype=torch.bool)
    no_bos = ~special.clone()
    no_bos[:1] = False
    no_sink = everything.clone()
    no_sink[list(reasons)] = False
    return Masks(everything, no_bos, no_sink, tuple(reasons.items()))


def _heads_above(sink_scores: Float64[Tensor, "blocks heads tokens"]) -> tuple[list[int], int]:
    """Heads above .3 for each key, and the number of heads from the first block with sinks on."""
    n_blocks, heads_per_block, n_tokens = sink_scores.shape
    above = (sink_scores > SINK_EPSILON) & (visible_queries(n_tokens) >= MIN_VISIBLE_QUERIES)
    first = first_sink_block(above)
    if first is None:
        return [0] * n_tokens, 0
    return above[first:].sum(dim=(0, 1)).tolist(), (n_blocks - first) * heads_per_block
