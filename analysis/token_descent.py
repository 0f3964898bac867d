"""A word found by gradient descent in token space (Schulz and Fallows, arXiv 2504.00754).

A vector v over words is a distribution p = softmax(v), and p a point between the words' embeddings, so that a judge that
reads an embedding can be asked about it and v moved to where its answers are right. Whoever calls brings the judge.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

__all__ = ["DescentRules", "Ending", "Judges", "descend", "divergence", "entropy", "token_loss"]

Judges = Callable[[Float[Tensor, " words"], Int64[Tensor, " n"]], Float[Tensor, " n"]]
"""Log-odds of yes against no, of a distribution over words on the examples of these numbers; differentiable in the first."""


@dataclass(frozen=True, slots=True)
class DescentRules:
    """How v is moved: Adam at ``rate`` for ``steps``, each on ``batch`` examples, half of them positive.

    The weight of the entropy rises evenly from ``entropy_first`` to ``entropy_last``: first a mixture of words, in the end
    one. ``kl`` is the weight of KL(p || prior). Each of ``restarts`` begins at the prior's logarithm plus Gaussian noise
    of standard deviation ``spread``; the ``words`` with the largest p at its end are looked at alone.
    """

    steps: int = 150
    rate: float = 0.1
    entropy_first: float = 0.01
    entropy_last: float = 0.1
    kl: float = 0.01
    restarts: int = 5
    batch: int = 16
    spread: float = 1.0
    words: int = 3
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Ending:
    """A word near which a restart ended: its number, the largest p it had at an end, and the mean binary cross-entropy
    (nats) of the word alone on all examples."""

    word: int
    probability: float
    cross_entropy: float


def entropy(log_p: Float[Tensor, " words"]) -> Float[Tensor, ""]:
    """H(p) in nats, 0 for one word, log n for n equal ones."""
    return -(log_p.exp() * log_p).sum()


def divergence(log_p: Float[Tensor, " words"], log_prior: Float[Tensor, " words"]) -> Float[Tensor, ""]:
    """KL(p || prior) in nats."""
    return (log_p.exp() * (log_p - log_prior)).sum()


def token_loss(
    v: Float[Tensor, " words"],
    judges: Judges,
    rows: Int64[Tensor, " n"],
    fires: Bool[Tensor, " n"],
    log_prior: Float[Tensor, " words"],
    entropy_weight: float,
    kl_weight: float,
) -> Float[Tensor, ""]:
    """Mean binary cross-entropy of the judge on the examples ``rows`` + weighted H(p) + weighted KL(p || prior)."""
    log_p = v.log_softmax(dim=0)
    return (
        _cross_entropy(judges(log_p.exp(), rows), fires)
        + entropy_weight * entropy(log_p)
        + kl_weight * divergence(log_p, log_prior)
    )


def descend(
    judges: Judges,
    fires: Bool[Tensor, " n"],
    log_prior: Float[Tensor, " words"],
    rules: DescentRules | None = None,
    watch: Callable[[float], None] | None = None,
) -> tuple[Ending, ...]:
    """The words near which the restarts ended, each once, the lowest cross-entropy of the word alone first.

    Args:
        judges: see :data:`Judges`; examples are numbered as in ``fires``.
        fires: which examples the latent fires on.
        log_prior: log-probabilities of the words, finite.
        watch: told a fraction before every step; may raise to stop.

    Raises:
        ValueError: one of the two kinds of example is missing.
    """
    rules = rules or DescentRules()
    kinds = (fires.nonzero()[:, 0], (~fires).nonzero()[:, 0])
    if not all(len(kind) for kind in kinds):
        raise ValueError(f"a search needs examples of both kinds, not {len(kinds[0])} that fire of {len(fires)}")
    found: dict[int, float] = {}
    for restart in range(rules.restarts):
        p = _one_restart(judges, kinds, fires, log_prior, rules, restart, watch)
        for word in p.topk(min(rules.words, len(p))).indices.tolist():
            found[word] = max(float(p[word]), found.get(word, 0.0))
    endings = []
    everyone = torch.arange(len(fires))
    with torch.no_grad():
        for word, probability in found.items():
            alone = torch.zeros_like(log_prior)
            alone[word] = 1.0
            endings.append(Ending(word, probability, float(_cross_entropy(judges(alone, everyone), fires))))
    return tuple(sorted(endings, key=lambda one: one.cross_entropy if math.isfinite(one.cross_entropy) else math.inf))


def _one_restart(
    judges: Judges,
    kinds: tuple[Int64[Tensor, " positive"], Int64[Tensor, " negative"]],
    fires: Bool[Tensor, " n"],
    log_prior: Float[Tensor, " words"],
    rules: DescentRules,
    restart: int,
    watch: Callable[[float], None] | None,
) -> Float[Tensor, " words"]:
    generator = torch.Generator().manual_seed(rules.seed * 1_000_003 + restart)
    noise = torch.randn(log_prior.shape, generator=generator, dtype=log_prior.dtype)
    v = (log_prior + rules.spread * noise).requires_grad_()
    adam = torch.optim.Adam([v], rules.rate)
    for step in range(rules.steps):
        if watch is not None:
            watch((restart + step / rules.steps) / rules.restarts)
        half = max(1, rules.batch // 2)
        rows = torch.cat([kind[torch.randperm(len(kind), generator=generator)[:half]] for kind in kinds])
        share = step / max(1, rules.steps - 1)
        weight = rules.entropy_first + share * (rules.entropy_last - rules.entropy_first)
        loss = token_loss(v, judges, rows, fires[rows], log_prior, weight, rules.kl)
        [v.grad] = torch.autograd.grad(loss, [v])
        adam.step()
    return v.detach().softmax(dim=0)


def _cross_entropy(log_odds: Float[Tensor, " n"], fires: Bool[Tensor, " n"]) -> Float[Tensor, ""]:
    return torch.nn.functional.binary_cross_entropy_with_logits(log_odds, fires.to(log_odds.dtype))
