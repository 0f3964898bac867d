"""The index of an SAE's latents: what each fires on, how often and how strongly (docs/methods, the index of latents).

Feed :class:`analysis.latent_events.LatentEvents` sequence by sequence, then call :func:`index_latents`.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from analysis.coactivation import coactivation
from analysis.latent_events import Firings, LatentEvents, Text

__all__ = ["DEAD_TOKENS", "IndexRules", "LatentIndex", "index_latents", "latent_status"]

DEAD_TOKENS = 100_000


@dataclass(frozen=True, slots=True)
class IndexRules:
    """What an index keeps of each latent.

    ``top`` strongest sequences, ``per_bin`` sampled firings of each of ``bins`` equal bins of 0..max, each with
    ``around`` tokens before and behind; counts in ``histogram`` equal bins of 0..max; the ``tokens`` with the highest
    mean activation among those seen ``min_seen`` times that carry ``min_share`` of its firings, so that in a long text a rare
    token that once fired strongly does not stand for the latent; ``partners`` on a sample of at most ``coactive_most`` tokens,
    none below ``coactive_least``, of latents that fired ``coactive_fired`` times in it.
    """

    top: int = 20
    bins: int = 10
    per_bin: int = 1
    around: int = 20
    histogram: int = 32
    tokens: int = 10
    min_seen: int = 5
    min_share: float = 0.01
    partners: int = 10
    coactive_most: int = 50_000
    coactive_least: int = 10_000
    coactive_fired: int = 10
    seed: int = 0


@dataclass(frozen=True, eq=False)
class LatentIndex:
    """Tables in the columns of the store (``sae_*``): ``latents`` lacks what only the SAE's weights tell."""

    latents: pd.DataFrame
    hits: pd.DataFrame
    tokens: pd.DataFrame
    partners: pd.DataFrame
    n_tokens: int
    n_left_out: int


def latent_status(n_fired: int, n_tokens: int) -> str:
    """``ok``, or for a latent that never fired ``dead`` on at least 100,000 tokens, else ``too_few_tokens``."""
    if n_fired > 0:
        return "ok"
    return "dead" if n_tokens >= DEAD_TOKENS else "too_few_tokens"


def index_latents(
    events: LatentEvents, rules: IndexRules | None = None, watch: Callable[[float], None] | None = None
) -> LatentIndex:
    """Compute the index of all that was added. ``watch`` is told a fraction now and then, and may raise to stop.

    Examples: the strongest firing of each sequence, the strongest first, ties to the earlier sequence and place. A window
    whose token ids are those of a stronger one, with the firing at the same place in it, is left out. Samples of a bin are
    drawn at random with the seed; an equal window among the samples is left out likewise.

    Raises:
        ValueError: no token was kept.
    """
    rules = rules or IndexRules()
    text = events.text()
    if text.n_kept == 0:
        raise ValueError("an index needs at least 1 kept token, not 0")
    n_seen = np.bincount(text.ids[text.keep])
    latents: list[dict[str, Any]] = []
    hits: list[dict[str, Any]] = []
    tokens: list[pd.DataFrame] = []
    for firings in events.by_latent():
        if watch is not None and firings.latent % 256 == 0:
            watch(0.8 * firings.latent / events.n_latents)
        latents.append(_summary(firings, text.n_kept, rules))
        if len(firings.value):
            hits += _top(firings, text, rules)
            hits += _samples(firings, text, rules)
            tokens.append(_token_rows(firings, text, n_seen, rules))
    if watch is not None:
        watch(0.8)
    return LatentIndex(
        latents=pd.DataFrame(latents),
        hits=pd.DataFrame(hits, columns=["latent", "kind", "rank", "seq", "pos", "activation", "first", "activations"]),
        tokens=pd.concat(tokens, ignore_index=True) if tokens else _token_frame(0, *[np.empty(0)] * 4),
        partners=_partners(events, text, rules),
        n_tokens=text.n_kept,
        n_left_out=len(text.keep) - text.n_kept,
    )


def _summary(firings: Firings, n_tokens: int, rules: IndexRules) -> dict[str, Any]:
    value = firings.value.astype(np.float64)
    fired = len(value) > 0
    peak = float(value.max()) if fired else float("nan")
    counts = np.histogram(value, rules.histogram, (0.0, peak))[0] if fired else np.zeros(rules.histogram, np.int64)
    return {
        "latent": firings.latent,
        "n_fired": len(value),
        "density": len(value) / n_tokens,
        "max": peak,
        "mean": float(value.mean()) if fired else float("nan"),
        "histogram": counts,
    }


def _top(firings: Firings, text: Text, rules: IndexRules) -> Iterator[dict[str, Any]]:
    order = np.argsort(-firings.value, kind="stable")
    best = order[np.sort(np.unique(text.seq[firings.place[order]], return_index=True)[1])]
    known: set[tuple[int, bytes]] = set()
    for index in best:
        place = int(firings.place[index])
        if _is_new(text, place, rules.around, known):
            yield _hit(firings, text, int(index), "top", len(known), rules.around)
            if len(known) == rules.top:
                return


def _samples(firings: Firings, text: Text, rules: IndexRules) -> Iterator[dict[str, Any]]:
    value = firings.value.astype(np.float64)
    bins = np.clip(np.ceil(value / value.max() * rules.bins).astype(int), 1, rules.bins)
    generator = np.random.default_rng([rules.seed, firings.latent])
    order = generator.permutation(len(value))
    known: set[tuple[int, bytes]] = set()
    for number in range(1, rules.bins + 1):
        taken = 0
        for index in order[bins[order] == number]:
            if taken == rules.per_bin:
                break
            if _is_new(text, int(firings.place[index]), rules.around, known):
                taken += 1
                yield _hit(firings, text, int(index), "quantile", number, rules.around)


def _is_new(text: Text, place: int, around: int, known: set[tuple[int, bytes]]) -> bool:
    """Whether no equal window was seen; notes it."""
    first, stop = _window(text, place, around)
    window = (place - first, text.ids[first:stop].tobytes())
    if window in known:
        return False
    known.add(window)
    return True


def _hit(firings: Firings, text: Text, index: int, kind: str, rank: int, around: int) -> dict[str, Any]:
    """A firing with the latent's activations around it; those at tokens that were left out are NaN."""
    place = int(firings.place[index])
    first, stop = _window(text, place, around)
    shown = np.where(text.keep[first:stop], np.float32(0), np.float32(np.nan))
    low, high = np.searchsorted(firings.place, [first, stop])
    shown[firings.place[low:high] - first] = firings.value[low:high]
    seq = int(text.seq[place])
    start = int(text.starts[seq])
    return {
        "latent": firings.latent,
        "kind": kind,
        "rank": rank,
        "seq": seq,
        "pos": place - start,
        "activation": float(firings.value[index]),
        "first": first - start,
        "activations": shown,
    }


def _window(text: Text, place: int, around: int) -> tuple[int, int]:
    seq = text.seq[place]
    return max(place - around, int(text.starts[seq])), min(place + around + 1, int(text.ends[seq]))


def _token_rows(firings: Firings, text: Text, n_seen: npt.NDArray[np.int64], rules: IndexRules) -> pd.DataFrame:
    """The tokens with the highest mean activation over all their kept occurrences; ties to the more frequent one."""
    ids, inverse, n_fired = np.unique(text.ids[firings.place], return_inverse=True, return_counts=True)
    mean = np.bincount(inverse, firings.value.astype(np.float64)) / n_seen[ids]
    often = (n_seen[ids] >= rules.min_seen) & (n_fired >= rules.min_share * len(firings.value))
    ids, mean, n_fired = ids[often], mean[often], n_fired[often]
    order = np.lexsort((ids, -n_seen[ids], -mean))[: rules.tokens]
    return _token_frame(firings.latent, ids[order], mean[order], n_fired[order], n_seen[ids[order]])


def _token_frame(latent: int, ids: Any, mean: Any, n_fired: Any, n_seen: Any) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "latent": latent,
            "rank": np.arange(1, len(ids) + 1),
            "token_id": ids,
            "mean_activation": mean,
            "n_fired": n_fired,
            "n_seen": n_seen,
        }
    )


def _partners(events: LatentEvents, text: Text, rules: IndexRules) -> pd.DataFrame:
    """Co-activation on whole sequences evenly spread over the stream, or on none if there are too few tokens."""
    stride = -(-text.n_kept // rules.coactive_most)
    wanted = text.keep & (text.seq % stride == 0)
    wanted &= np.cumsum(wanted) <= rules.coactive_most
    n_tokens = int(wanted.sum())
    if n_tokens < rules.coactive_least:
        return pd.DataFrame({name: [] for name in ("latent", "kind", "rank", "other", "value")})
    latent, place = events.of_places(wanted)
    number = np.cumsum(wanted) - 1
    return coactivation(
        latent, number[place], events.n_latents, n_tokens, best=rules.partners, least=rules.coactive_fired
    )
