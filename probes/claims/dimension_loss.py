"""Claim: texts that are hard to predict lie in more dimensions (core.md 6.3)."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch

from analysis.intrinsic_dimension import gride, gride_plateau
from analysis.loss_correlation import MIN_PROMPTS, loss_correlation, type_token_ratio
from analysis.neighbours import MIN_TOKENS, distances
from probes.claims.bench import Bench
from probes.claims.claim import Claim, Outcome, Untestable, finite, plain_rows
from probes.prompts import bank
from probes.prompts.sets import BUILT_IN, Prompt, PromptSet

__all__ = ["claim", "dimensions", "judged", "test"]

_SCALES = (2, 4)
_BANK = "bank"  # group of the texts that are added to the passages
_SHUFFLES = 200

claim = Claim(
    name="dimension-loss",
    title="Texts with a higher loss lie in more dimensions",
    paper="The Geometry of Tokens, arXiv 2501.10573",
    reported="The intrinsic dimension of the tokens of a prompt goes with its mean loss: prompts that are harder to predict "
    "lie in higher-dimensional spaces.",
    tested="Intrinsic dimension (GRIDE, mean of scales 2 and 4, tokens that are no sinks) of each prompt at each point, with "
    "its mean loss, by Spearman over at least 30 prompts of 100 tokens (the built-in passages with the texts of the mean "
    "bank); number of tokens, type/token ratio and which of the two it is taken out of both. The point is the one with the "
    "largest mean dimension, so it is not chosen by the correlation.",
    rule="Holds if the 95 % interval of the partial correlation at that point lies above 0.",
    distrust="Prompts of different kinds make a correlation of kinds. High dimensions are underestimated, the more so the "
    "fewer tokens there are: below 256 tokens a number is of low confidence.",
    prompts="passages",
    shuffles="which loss belongs to which prompt",
)


def test(bench: Bench) -> Outcome:
    """Measure dimension and loss of every prompt that is long enough."""
    bench = _with_bank(bench)
    items = bench.items()
    rows, kept = [], []
    for place, item in enumerate(items):
        bench.told(place, len(items), "dimensions of")
        capture = bench.capture(item)
        keep = capture.masks.no_sink
        if int(keep.sum()) < MIN_TOKENS:
            continue
        rows.append(dimensions(bench.resid(item)[:, keep]))
        kept.append((item, tuple(int(token) for token in capture.token_ids)))
    if len(kept) < MIN_PROMPTS:
        raise Untestable(
            f"{len(kept)} prompts of {bench.prompts.name} have {MIN_TOKENS} tokens that are no sinks; it takes {MIN_PROMPTS}."
        )
    losses = np.array(bench.paired(bench.mean_losses([item for item, _ in kept]).tolist()))
    controls = np.array(
        [[len(ids), type_token_ratio(ids), item.prompt.group == _BANK] for item, ids in kept], dtype=np.float64
    )
    return judged(np.array(rows), losses, controls, bench.seed)


def judged(metric: np.ndarray, losses: np.ndarray, controls: np.ndarray, seed: int = 0) -> Outcome:
    """The verdict on dimensions [prompts, points], losses [prompts] and controls. Raises Untestable."""
    table = loss_correlation(metric, losses, controls)
    usable = table["partial"].notna().to_numpy()
    if not usable.any():
        raise Untestable(f"No correlation is defined at any point ({table['status'].iloc[0]}).")
    defined = np.isfinite(metric)
    mean = np.where(defined, metric, 0.0).sum(axis=0) / np.maximum(defined.sum(axis=0), 1)
    peak = int(np.argmax(np.where(usable, mean, -np.inf)))
    row = table.iloc[peak]
    effect, low, high = (float(row[name]) for name in ("partial", "partial_low", "partial_high"))
    clear = table["partial_p_bh"] < 0.05
    return Outcome(
        verdict="holds" if low > 0 else "does not hold",
        reason=f"At point {peak}, where the mean dimension is largest ({mean[peak]:.1f}), the partial "
        f"correlation over {int(row['n'])} prompts is {effect:.2f} (Spearman without it {float(row['spearman']):.2f}); after "
        f"correction {int((clear & (table['partial'] > 0)).sum())} of {len(table)} points are clearly positive, "
        f"{int((clear & (table['partial'] < 0)).sum())} clearly negative.",
        effect=effect, low=finite(low), high=finite(high), unit="partial rank correlation with the loss",
        control=_by_chance(metric[:, peak : peak + 1], losses, controls, seed),
        control_is=f"95 % level of its size with losses permuted, {_SHUFFLES} times", n=int(row["n"]),
        details=plain_rows(table[["layer", "n", "spearman", "partial", "partial_low", "partial_high", "partial_p_bh"]]),
    )  # fmt: skip


def _with_bank(bench: Bench) -> Bench:
    """The built-in passages are too few that are long enough: the texts of the mean bank stand beside them."""
    prompts = bench.prompts
    if prompts.source != BUILT_IN or prompts.name != claim.prompts:
        return bench
    more = tuple(Prompt(f"bank-{one.id}", one.text, group=_BANK) for one in bank())
    return dataclasses.replace(bench, prompts=PromptSet(prompts.name, BUILT_IN, (*prompts.prompts, *more)))


def dimensions(resid: torch.Tensor) -> np.ndarray:
    """Intrinsic dimension of the tokens [points, tokens, d_model] by point; NaN where it is undefined."""
    return np.array([gride_plateau(gride(distances(point), _SCALES)).dimension.value for point in resid])


def _by_chance(metric: np.ndarray, losses: np.ndarray, controls: np.ndarray, seed: int) -> float:
    rng = np.random.default_rng(seed)
    sizes = [
        abs(float(loss_correlation(metric, rng.permutation(losses), controls)["partial"].iloc[0]))
        for _ in range(_SHUFFLES)
    ]
    return float(np.nanquantile(sizes, 0.95))
