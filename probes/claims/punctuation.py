"""Claim: jumps of the per-token alpha fall on boundaries of the text (core.md 1.5)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float64

from analysis.cascade import gradient
from analysis.inference import percentile_interval, resampled_counts
from analysis.punctuation import boundaries, punctuation
from probes.claims.bench import Bench
from probes.claims.cascade import long_enough, spread
from probes.claims.claim import Claim, Outcome, Untestable, finite

__all__ = ["claim", "judged", "test"]

_PROMPTS = 48
_MIN_PROMPTS = 3
_ROLLS = 40

claim = Claim(
    name="punctuation",
    title="Jumps of alpha fall on boundaries of the text",
    paper="Spectral Geometry of Thought, arXiv 2604.15350",
    reported="Jumps of the per-token alpha coincide with boundaries of reasoning steps (Step 1, new paragraphs, therefore).",
    tested="Steps of alpha over windows of 32 tokens with |z| > 2 (median and MAD of a layer) that are local maxima: the "
    "share with a boundary (end of sentence, connective, blank line, =) within 2 tokens, over the share of all tokens "
    "near one. Over up to 48 prompts of the set.",
    rule="Holds if the lift is above 1 with a 95 % interval over prompts, and 1,000 circular shifts of the events of all "
    "layers together give p < .05.",
    distrust="Near a boundary stand rare tokens and line breaks: a lift is about tokens before it is about reasoning. A "
    "window ends at the token, so a jump may belong to what left it 32 tokens before.",
    prompts="passages",
    shuffles="the place of the boundaries (turned round along each text)",
)


def test(bench: Bench) -> Outcome:
    """Look for jumps at boundaries."""
    items = spread([item for item in bench.items() if long_enough(bench, item)], _PROMPTS)
    if len(items) < _MIN_PROMPTS:
        raise Untestable(f"{len(items)} prompts of {bench.prompts.name} are long enough; it takes {_MIN_PROMPTS}.")
    marks = [boundaries(bench.capture(item).tokens) for item in items]
    if bench.shuffled:
        marks = _turned(marks, np.random.default_rng(bench.seed))
    return judged(bench.alphas(items), marks, bench.seed)


def judged(
    alphas: Sequence[Float64[np.ndarray, "points _"]], marks: Sequence[Bool[np.ndarray, " _"]], seed: int = 0
) -> Outcome:
    """The verdict on alphas and boundaries of some prompts. Raises Untestable where no lift is defined."""
    found = punctuation(alphas, marks, seed=seed)
    lift, p = float(found.overall["lift"]), float(found.overall["p"])
    if finite(lift) is None:
        raise Untestable("No boundary, or one beside every token, or no jump: there is nothing to compare.")
    low, high = _interval(alphas, marks, seed)
    rng = np.random.default_rng(seed)
    rolled = [punctuation(alphas, _turned(marks, rng), shifts=1, seed=seed).overall["lift"] for _ in range(_ROLLS)]
    table = found.table
    return Outcome(
        verdict="holds" if p < 0.05 and low > 1 else "does not hold",
        reason=f"{int(found.overall['hits'])} of {int(found.overall['events'])} jumps have a boundary within 2 tokens, "
        f"{float(found.overall['hit_rate']):.0%} against {float(found.overall['base_rate']):.0%} of all tokens (p = {p:.2g}); "
        f"{int((table['p_bh'] < 0.05).sum())} of {len(table)} points are clear by themselves.",
        effect=lift, low=finite(low), high=finite(high), unit="times the share of all tokens",
        control=finite(float(np.nanmean(np.array(rolled, dtype=np.float64)))),
        control_is="boundaries turned round along each text, mean of 40",
        n=found.n_prompts,
        details=tuple(
            {"point": int(row["layer"]), "jumps": int(row["events"]), "lift": finite(float(row["lift"])),
             "p_bh": finite(float(row["p_bh"]))}
            for row in table.to_dict("records")
        ),
    )  # fmt: skip


def _interval(
    alphas: Sequence[Float64[np.ndarray, "points _"]], marks: Sequence[Bool[np.ndarray, " _"]], seed: int
) -> tuple[float, float]:
    """95 % of the lift over prompts drawn with replacement."""
    rows = []
    for alpha, mark in zip(alphas, marks, strict=True):
        one = punctuation([alpha], [mark], shifts=1, seed=seed).overall
        steps = int(np.isfinite(gradient(alpha)).any(axis=0).sum())
        rows.append((float(one["hits"]), float(one["events"]), float(one["base_rate"]) * steps, float(steps)))
    hits, events, near, steps = (resampled_counts(len(rows), seed=seed) @ np.array(rows)).T
    with np.errstate(divide="ignore", invalid="ignore"):
        lifts = (hits / events) / (near / steps)
    low, high = percentile_interval(lifts[:, None])
    return float(low[0]), float(high[0])


def _turned(marks: Sequence[Bool[np.ndarray, " _"]], rng: np.random.Generator) -> list[Bool[np.ndarray, " _"]]:
    return [np.roll(mark, int(rng.integers(1, max(2, len(mark))))) for mark in marks]
