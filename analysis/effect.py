"""How far a changed pass moved a prediction: the five effect measures, always the same (methods, extended 0)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Float32, Int64
from torch import Tensor

__all__ = ["MEASURES", "Effect", "effect"]

MEASURES = ("dlp", "kl", "hellinger", "jsd", "flip")


@dataclass(frozen=True, slots=True)
class Effect:
    """Clean against changed, one value a position.

    ``dlp``: log p_clean(y) - log p_changed(y), nats. ``kl``: KL(clean || changed), nats. ``hellinger``:
    sqrt(sum (sqrt p - sqrt q)^2) / sqrt 2, 0..1. ``jsd``: Jensen-Shannon divergence / ln 2, 0..1. ``flip``: the most
    likely token is another one.
    """

    dlp: Float32[Tensor, " n"]
    kl: Float32[Tensor, " n"]
    hellinger: Float32[Tensor, " n"]
    jsd: Float32[Tensor, " n"]
    flip: Bool[Tensor, " n"]


def effect(
    clean: Float[Tensor, "n vocab"], changed: Float[Tensor, "n vocab"], target: Int64[Tensor, " n"] | None = None
) -> Effect:
    """The five measures from logits; y is ``target``, by default the most likely token of the clean pass."""
    p_log, q_log = torch.log_softmax(clean.float(), dim=-1), torch.log_softmax(changed.float(), dim=-1)
    p, q = p_log.exp(), q_log.exp()
    best = p_log.argmax(dim=-1)
    y = (best if target is None else target)[:, None]
    js = (_to_middle(p, p_log, q_log) + _to_middle(q, q_log, p_log)) / 2
    return Effect(
        dlp=(p_log.gather(1, y) - q_log.gather(1, y))[:, 0],
        kl=_kl(p, p_log, q_log).clamp_min(0.0),
        hellinger=((p.sqrt() - q.sqrt()).square().sum(dim=-1) / 2).clamp_max(1.0).sqrt(),
        jsd=(js / math.log(2.0)).clamp(0.0, 1.0),
        flip=best != q_log.argmax(dim=-1),
    )


def _kl(
    p: Float32[Tensor, "n vocab"], p_log: Float32[Tensor, "n vocab"], q_log: Float32[Tensor, "n vocab"]
) -> Float32[Tensor, " n"]:
    """Tokens that underflow to p = 0 add nothing, however small their q."""
    return torch.where(p > 0, p * (p_log - q_log), torch.zeros_like(p)).sum(dim=-1)


def _to_middle(
    p: Float32[Tensor, "n vocab"], p_log: Float32[Tensor, "n vocab"], q_log: Float32[Tensor, "n vocab"]
) -> Float32[Tensor, " n"]:
    """KL from p to the mean of p and q, without forming it: that would round, and underflow where p is a denormal."""
    lost = math.log(2.0) - torch.nn.functional.softplus(q_log - p_log)  # exactly 0 where p = q
    return torch.where(p > 0, p * lost, torch.zeros_like(p)).sum(dim=-1)
