"""Logit lens: what each residual point would predict if the model stopped there (docs/methods/lens.md).

Logits arrive in chunks and leave as a few numbers a row, so the full [points, tokens, vocab] tensor never exists.
Everything is float32, as the model's own logits are: the lens is bound by the unembedding matmul, and must stay so.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64
from torch import Tensor

__all__ = [
    "CHUNK_ROWS",
    "NO_TARGET",
    "Final",
    "Reading",
    "Variant",
    "View",
    "final_of",
    "mean_corrected",
    "mismatched",
    "read",
    "read_views",
    "scaled_confidence",
]

Variant = Literal["raw", "mean", "no_norm", "tuned", "tail"]

NO_TARGET = -1
CHUNK_ROWS = 96  # of one unembedding matmul: nearly as fast as large ones; 19 MB of logits at a vocabulary of 49,152
BLOCK = 64  # columns whose maximum decides whether a top token can be among them
UNDERFLOW = -87.0  # exp below this is subnormal: worthless beside a maximum of 1, and ten times slower
SLAB_POSITIONS = 6  # rows reduced together: [6, vocab] stays in the processor's cache through the passes of `read`


@dataclass(frozen=True, slots=True)
class View:
    """One lens of one residual point (0..L)."""

    layer: int
    variant: Variant


@dataclass(frozen=True, slots=True)
class Final:
    """The model's own output at some positions, to which every point is compared; logits less their maximum."""

    logits: Float32[Tensor, "rows vocab"]
    prob: Float32[Tensor, "rows vocab"]
    lse: Float32[Tensor, " rows"]
    entropy: Float32[Tensor, " rows"]
    top1: Int64[Tensor, " rows"]


@dataclass(frozen=True, slots=True)
class Reading:
    """What is kept of each distribution p_l. Entropies and divergences in nats; rank 1 is best; NaN where undefined.

    ``kl`` is KL(p_L || p_l), the direction of the tuned lens (Belrose et al. 2023); ``kl_reverse`` is KL(p_l || p_L);
    ``js`` is the Jensen-Shannon divergence, NaN unless asked for. ``ce`` is -ln p_l[target], ``ce_final`` is -ln p_l of
    the model's own top token, ``top1_nlp`` is -ln p_l of this point's top token (LLM-Microscope's "loss"). ``rank`` is
    1 + the number of tokens with a greater logit, so ties share the best rank.
    """

    top_ids: Int64[Tensor, "*rows k"]
    top_prob: Float32[Tensor, "*rows k"]
    entropy: Float32[Tensor, "*rows"]
    kl: Float32[Tensor, "*rows"]
    kl_reverse: Float32[Tensor, "*rows"]
    js: Float32[Tensor, "*rows"]
    rank: Float32[Tensor, "*rows"]
    rank_control: Float32[Tensor, "*rows"]
    ce: Float32[Tensor, "*rows"]
    ce_final: Float32[Tensor, "*rows"]
    top1_nlp: Float32[Tensor, "*rows"]


def final_of(logits: Float32[Tensor, "rows vocab"]) -> Final:
    """The output distribution at point L; ``logits`` is kept."""
    top, top1 = logits.max(dim=-1)
    shifted = logits - top[:, None]
    prob = shifted.clamp(min=UNDERFLOW).exp_()
    total = prob.sum(-1)
    lse = total.log()
    prob /= total[:, None]
    # The same two passes as in `read`, so that KL at point L is exactly 0.
    entropy = lse - (prob * shifted).sum(-1)
    return Final(shifted, prob, lse, entropy, top1)


def read(
    logits: Float32[Tensor, "rows vocab"],
    final: Final,
    targets: Int64[Tensor, " rows"],
    controls: Int64[Tensor, " rows"],
    *,
    k: int,
    js: bool = False,
) -> Reading:
    """Reduce lens logits to a `Reading`; **overwrites** ``logits``, which serves as scratch space.

    ``targets`` and ``controls`` are token ids, or `NO_TARGET`. With z the logits less their maximum, p = exp(z) / S:
    entropy = ln S - sum p z, and KL(p_L || p_l) = ln S - sum p_L z - H_L, so that one exponential a row suffices.
    A row with a non-finite logit is NaN throughout, its ids `NO_TARGET`. Raises ValueError for k outside 1..vocab.
    """
    if not 1 <= k <= logits.shape[1]:
        raise ValueError(f"k must be 1 to {logits.shape[1]} (the vocabulary), not {k}")
    scratch = torch.empty_like(logits)
    top, top_ids = _top(logits, k)
    at_final = logits.gather(1, final.top1[:, None])[:, 0]
    at_target, rank = _place(logits, targets, scratch)
    _, rank_control = _place(logits, controls, scratch)

    peak = top[:, 0]
    z = logits.sub_(peak[:, None])
    crossed = torch.mul(final.prob, z, out=scratch).sum(-1)
    weight = torch.exp(torch.clamp(z, min=UNDERFLOW, out=scratch), out=scratch)
    total = weight.sum(-1)
    lse = total.log()
    divergence = _jensen_shannon(weight / total[:, None], final) if js else torch.full_like(lse, torch.nan)
    entropy = lse - z.mul_(weight).sum(-1) / total
    crossed_back = weight.mul_(final.logits).sum(-1) / total

    broken = ~torch.isfinite(entropy)
    nlp = {
        "ce": lse - (at_target - peak),
        "ce_final": lse - (at_final - peak),
        "top1_nlp": lse,
    }
    reading = Reading(
        top_ids=top_ids,
        top_prob=(top - peak[:, None] - lse[:, None]).exp(),
        entropy=entropy.clamp(min=0),
        kl=(lse - crossed - final.entropy).clamp(min=0),
        kl_reverse=(final.lse - crossed_back - entropy).clamp(min=0),
        js=divergence,
        rank=rank,
        rank_control=rank_control,
        **nlp,
    )
    return _blanked(reading, broken) if bool(broken.any()) else reading


def read_views(
    views: Sequence[View],
    n_positions: int,
    n_points: int,
    logits_of: Callable[[Sequence[View], slice], Float32[Tensor, "rows vocab"]],
    targets: Int64[Tensor, " positions"],
    controls: Int64[Tensor, " positions"],
    *,
    k: int,
    js: bool = False,
) -> Iterator[tuple[slice, list[View], Reading]]:
    """Stream views x positions through `read` with at most `CHUNK_ROWS` rows of logits alive.

    ``logits_of(views, positions)`` gives the logits of those views at those positions, views outermost. Yields the
    positions, the views, and their `Reading` [views positions]. The raw view of the last point comes first in each
    slab, as everything is compared to it; it is yielded only if asked for.
    """
    last = View(n_points - 1, "raw")
    order = [last, *(view for view in views if view != last)]
    for start in range(0, n_positions, SLAB_POSITIONS):
        where = slice(start, min(start + SLAB_POSITIONS, n_positions))
        width = where.stop - where.start
        step = max(1, CHUNK_ROWS // width)
        final: Final | None = None
        for first in range(0, len(order), step):
            batch = order[first : first + step]
            logits = logits_of(batch, where)
            if final is None:
                final = final_of(logits[:width])
            readings = [
                read(logits[i * width : (i + 1) * width], final, targets[where], controls[where], k=k, js=js)
                for i in range(len(batch))
            ]
            del logits  # before the next chunk is made, not after
            skip = int(first == 0 and last not in views)
            if batch[skip:]:
                yield where, batch[skip:], _stacked(readings[skip:])


def mean_corrected(
    hidden: Float[Tensor, "rows d_model"], mean: Float[Tensor, " d_model"], mean_final: Float[Tensor, " d_model"]
) -> Float[Tensor, "rows d_model"]:
    """h - mean_l + mean_L: the untrained middle between logit lens and tuned lens."""
    return hidden - mean + mean_final


def mismatched(
    targets: Int64[Tensor, " positions"], own: Int64[Tensor, " positions"], pool: Int64[Tensor, " pool"], seed: int
) -> Int64[Tensor, " positions"]:
    """A control target for each position: another position's token, by a seeded derangement of ``pool``.

    ``own[i]`` is the place of position i in the pool. The derangement is one random cycle (Sattolo); each position
    walks on along it until the token differs from its target. `NO_TARGET` where there is no target or no other token.
    """
    cycle = torch.from_numpy(np.random.default_rng(seed).permutation(len(pool)))
    place = torch.empty_like(cycle)
    place[cycle] = torch.arange(len(pool))
    ring, at = pool[cycle], place[own]
    controls = torch.full_like(targets, NO_TARGET)
    for _ in range(len(pool) - 1):
        at = (at + 1) % len(pool)
        usable = (controls == NO_TARGET) & (targets != NO_TARGET) & (ring[at] != targets)
        controls = torch.where(usable, ring[at], controls)
        if bool(((controls != NO_TARGET) | (targets == NO_TARGET)).all()):
            break
    return controls


def scaled_confidence(
    top1_nlp: Float[Tensor, "points positions"], scope: Literal["global", "layer", "token"]
) -> Float[Tensor, "points positions"]:
    """Min-max scaled ln p(top-1), the colour of LLM-Microscope's lens: over the whole map, each layer or each token.

    Their code divides by zero where all values of a scope are equal; such values are 0.5 here.
    """
    confidence = -top1_nlp
    dims = {"global": (0, 1), "layer": (1,), "token": (0,)}[scope]
    low, high = confidence.amin(dims, keepdim=True), confidence.amax(dims, keepdim=True)
    scaled: Tensor = (confidence - low) / (high - low)
    return scaled.masked_fill(high == low, 0.5)


def _top(logits: Float32[Tensor, "rows vocab"], k: int) -> tuple[Float32[Tensor, "rows k"], Int64[Tensor, "rows k"]]:
    """``logits.topk(k)`` in a third of the time: the k largest lie in the k blocks of columns with the largest maxima."""
    rows, vocab = logits.shape
    n_blocks = vocab // BLOCK
    if n_blocks <= k:
        return logits.topk(k, dim=-1)
    blocked = logits[:, : n_blocks * BLOCK].view(rows, n_blocks, BLOCK)
    first = blocked.amax(-1).topk(k, dim=-1).indices * BLOCK
    inside = (first[:, :, None] + torch.arange(BLOCK, device=logits.device)).flatten(1)
    rest = torch.arange(n_blocks * BLOCK, vocab, device=logits.device).expand(rows, -1)
    ids = torch.cat([inside, rest], dim=1)
    top, place = logits.gather(1, ids).topk(k, dim=-1)
    return top, ids.gather(1, place)


def _place(
    logits: Float32[Tensor, "rows vocab"], tokens: Int64[Tensor, " rows"], scratch: Float32[Tensor, "rows vocab"]
) -> tuple[Float32[Tensor, " rows"], Float32[Tensor, " rows"]]:
    """Logit and rank (1 + number of greater logits) of one token a row; NaN for `NO_TARGET`."""
    present = tokens != NO_TARGET
    value = logits.gather(1, tokens.clamp(min=0)[:, None])
    # A float comparison into existing memory sums four times faster than booleans do, and counts exactly below 2^24.
    rank = torch.gt(logits, value, out=scratch).sum(-1) + 1
    return value[:, 0].where(present, torch.nan), rank.where(present, torch.nan)


def _jensen_shannon(prob: Float32[Tensor, "rows vocab"], final: Final) -> Float32[Tensor, " rows"]:
    own, other, middle = (torch.special.entr(p).sum(-1) for p in (prob, final.prob, (prob + final.prob) / 2))
    divergence: Tensor = middle - (own + other) / 2
    return divergence.clamp(min=0)


def _stacked(readings: Sequence[Reading]) -> Reading:
    return Reading(**{f.name: torch.stack([getattr(r, f.name) for r in readings]) for f in fields(Reading)})


def _blanked(reading: Reading, broken: Tensor) -> Reading:
    columns = {f.name: getattr(reading, f.name) for f in fields(Reading)}
    for name, column in columns.items():
        mask = broken[:, None] if column.dim() == 2 else broken
        columns[name] = column.masked_fill(mask, NO_TARGET if name == "top_ids" else torch.nan)
    return Reading(**columns)
