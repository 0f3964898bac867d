"""Claim: later tokens of little meaning become sinks, and their states are like that of BOS (core.md 2.7)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from analysis.bos_cosine import bos_cosine
from analysis.inference import bootstrap_means, percentile_interval
from analysis.sinks import MIN_TOKENS_IS_SINK, token_sinks
from probes.claims.bench import Bench
from probes.claims.claim import Claim, Outcome, Untestable, finite
from probes.model.capture import Capture

__all__ = ["PromptSinks", "claim", "judged", "test"]

_LIKE_BOS = 0.7
_LOW = frozenset({"delimiter", "newline"})
_MIN_PROMPTS = 5

claim = Claim(
    name="intermediate-sinks",
    title="Tokens of little meaning become sinks like BOS",
    paper="Sinks in audio-visual speech recognition, arXiv 2510.22603",
    reported="Tokens of little meaning in the middle are sinks too, and their hidden states have a high cosine to that of "
    "BOS (models fine-tuned for speech).",
    tested="Tokens other than position 0 with a mean attention above .3 in at least 10 % of the heads of a block (keys "
    "that at least 8 queries see); their cosine to position 0 in what the block with most such heads reads, less that of "
    "the tokens that are no sinks at the same point, by prompt.",
    rule="Holds if at least 5 prompts have such a token, most of them are delimiters, newlines or special tokens, their "
    "mean cosine is above .7 and the interval of the difference from the other tokens lies above 0.",
    distrust="A few massive dimensions decide a raw cosine: the table has it with the three largest zeroed. Short texts "
    "have few keys that 8 queries see, and attention in the first blocks is local, which is no sink.",
    prompts="passages",
)


@dataclass(frozen=True, slots=True)
class PromptSinks:
    """Of one prompt: the first block of each sink beyond position 0, how many of them are of little meaning, and mean
    cosines to position 0 of the sinks and of the tokens that are none (raw, centred, without the three largest
    dimensions)."""

    first_blocks: tuple[int, ...]
    low_meaning: int
    sinks: tuple[float, float, float]
    others: tuple[float, float, float]

    @property
    def n(self) -> int:
        return len(self.first_blocks)


def test(bench: Bench) -> Outcome:
    """Look for such tokens in every prompt."""
    items = bench.items()
    found = []
    for place, item in enumerate(items):
        bench.told(place, len(items), "sinks of")
        capture = bench.capture(item)
        if capture.n_tokens >= MIN_TOKENS_IS_SINK:
            found.append(_of_prompt(capture))
    return judged(found, bench.seed)


def judged(prompts: Sequence[PromptSinks], seed: int = 0) -> Outcome:
    """The verdict on the sinks of the prompts of at least 32 tokens. Raises Untestable where there are too few."""
    if len(prompts) < _MIN_PROMPTS:
        raise Untestable(
            f"{len(prompts)} prompts have {MIN_TOKENS_IS_SINK} tokens, below which there are no sinks; it takes "
            f"{_MIN_PROMPTS}."
        )
    having = [one for one in prompts if one.n]
    n_sinks, low_meaning = sum(one.n for one in having), sum(one.low_meaning for one in having)
    if len(having) < _MIN_PROMPTS:
        return Outcome(
            "does not hold",
            f"Only {len(having)} of {len(prompts)} prompts have a sink beyond position 0 ({n_sinks} tokens); it takes "
            f"{_MIN_PROMPTS}.",
            n=len(prompts),
        )
    sinks, others = (np.array([getattr(one, side) for one in having]) for side in ("sinks", "others"))
    draws = bootstrap_means(np.column_stack([sinks[:, 0], sinks[:, 0] - others[:, 0]]), seed=seed)
    low, high = percentile_interval(draws)
    cosine, control = float(np.nanmean(sinks[:, 0])), float(np.nanmean(others[:, 0]))
    share, first = low_meaning / n_sinks, float(np.median([block for one in having for block in one.first_blocks]))
    above = float(low[1]) > 0
    holds = share > 0.5 and cosine > _LIKE_BOS and above
    kinds = ("raw", "mean of the others taken out", "three largest dimensions zeroed")
    return Outcome(
        verdict="holds" if holds else "does not hold",
        reason=f"{len(having)} of {len(prompts)} prompts have such sinks, {n_sinks} tokens, {share:.0%} of them "
        f"delimiters, newlines or special tokens, from block {first:.0f} on (median); their cosine to position 0 is "
        f"{cosine:.2f} against {control:.2f} of other tokens (the difference is {'clear' if above else 'not clear'}).",
        effect=cosine, low=finite(float(low[0])), high=finite(float(high[0])), unit="cosine to position 0",
        control=control, control_is="tokens that are no sinks, at the same points",
        n=len(having), of="prompts with such a sink",
        details=tuple(
            {"cosine": kind, "sinks": finite(float(np.nanmean(sinks[:, i]))), "others": finite(float(np.nanmean(others[:, i])))}
            for i, kind in enumerate(kinds)
        ),
    )  # fmt: skip


def _of_prompt(capture: Capture) -> PromptSinks:
    table = token_sinks(capture.importance, capture.tokens, capture.special)
    table = table[table["pos"] > 0]
    nothing = (float("nan"),) * 3
    if table.empty:
        return PromptSinks((), 0, nothing, nothing)
    above = capture.importance.above.sum(dim=1)
    others = capture.masks.no_sink.clone()
    others[torch.tensor(table["pos"].tolist())] = False
    rows: list[tuple[list[float], list[float]]] = []
    for pos in table["pos"].tolist():
        found = bos_cosine(capture.resid(int(above[:, pos].argmax())), others)
        cosines = found.raw, found.centred, found.nomassive
        rows.append(([float(one[pos]) for one in cosines], [float(one[others].nanmean()) for one in cosines]))
    sinks, rest = (np.mean([row[side] for row in rows], axis=0).tolist() for side in (0, 1))
    low_meaning = int(table["kind"].isin(_LOW).sum())
    return PromptSinks(tuple(table["first_block"].tolist()), low_meaning, tuple(sinks), tuple(rest))
