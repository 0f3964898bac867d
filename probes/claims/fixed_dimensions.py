"""Claim: massive activations stand in the same few dimensions whatever the text (core.md 3.1)."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float32, Float64
from scipy import stats
from torch import Tensor

from analysis.inference import LEVEL
from analysis.massive import constancy
from probes.claims.bench import Bench
from probes.claims.births import MIN_STARTS, first_tokens
from probes.claims.claim import Claim, Outcome, Untestable, plain_rows

__all__ = ["claim", "judged", "test"]

_DRAWS = 1000

claim = Claim(
    name="fixed-dimensions",
    title="Massive activations stand in fixed dimensions",
    paper="Massive Activations, Sun et al. 2024; arXiv 2510.22603",
    reported="Massive activations stand in the same few dimensions for every input (1415 and 2533 in LLaMA-2-7B) and for all "
    "sink tokens.",
    tested="For each dimension the share of prompts in which an entry of it is massive (above 100 and 1,000 times the "
    "layer's median) at some point; the largest such share. Prompts are run without BOS and one stands for each first "
    "token, since position 0 sees itself alone.",
    rule="Holds if one dimension is massive in more than half of the prompts that have any, with a 95 % interval "
    "(Clopper-Pearson) above the 95 % level of the largest share where every prompt draws its dimensions at random, each in "
    "proportion to its mean square at tokens without a massive entry.",
    distrust="The largest of many shares is a little too high, which the level by chance takes into account. Prompts of "
    "one language and one kind are fewer than they look.",
    prompts="passages",
    version=2,
)


def test(bench: Bench) -> Outcome:
    """Gather the massive dimensions of each prompt."""
    items = first_tokens(bench)
    frames, power = [], np.zeros(bench.loaded().facts.d_model)
    for place, item in enumerate(items):
        bench.told(place, len(items), "massive activations of")
        rows = bench.runner.store.table(item.run_id, "massive")
        rows = rows[rows["strict"].astype(bool)]
        frames.append(rows[["dim", "value"]].assign(prompt=place))
        power += _ordinary(bench.resid(item), rows["pos"].unique().tolist())
    return judged(pd.concat(frames), len(items), power, bench.seed)


def judged(entries: pd.DataFrame, n_prompts: int, power: Float64[np.ndarray, " d_model"], seed: int = 0) -> Outcome:
    """The verdict on massive entries (``prompt, dim, value``) of prompts that begin differently; ``power`` is how large
    each dimension is where nothing is massive. Raises Untestable where that is unknown."""
    having = int(entries["prompt"].nunique())
    if having < MIN_STARTS:
        return Outcome(
            "cannot be tested here",
            f"{having} of {n_prompts} prompts have a massive activation; it takes {MIN_STARTS}.",
            n=n_prompts,
        )
    if not power.sum() > 0:
        raise Untestable("Every token holds a massive activation, so nothing says how large dimensions ordinarily are.")
    table = constancy(entries, having)
    top = table.iloc[0]
    hits = int(top["n_prompts"])
    interval = stats.binomtest(hits, having).proportion_ci(LEVEL)
    chance = _by_chance(entries.groupby("prompt")["dim"].nunique().tolist(), power / power.sum(), seed)
    level = float(np.quantile(chance, LEVEL, method="higher"))
    share = hits / having
    holds = share > 0.5 and float(interval.low) > level
    rows = table.head(6)[["dim", "n_prompts", "share", "mean", "sd"]]
    return Outcome(
        verdict="holds" if holds else "does not hold",
        reason=f"{having} of {n_prompts} prompts have a massive activation, {hits} of them in dimension "
        f"{int(top['dim'])}; {int((table['share'] > 0.5).sum())} of the {len(table)} dimensions that are ever massive are "
        f"so in more than half.",
        effect=share, low=float(interval.low), high=float(interval.high), unit="share of prompts with a massive entry",
        control=level, control_is="the largest share, 95 % level, where dimensions are drawn by how large they ordinarily are",
        n=having, of="prompts with different first tokens",
        details=plain_rows(rows),
    )  # fmt: skip


def _ordinary(resid: Float32[Tensor, "points tokens d_model"], massive: list[int]) -> Float64[np.ndarray, " d_model"]:
    """Each dimension's part in the mean square of the tokens that hold nothing massive, mean over points."""
    rest = torch.ones(resid.shape[1], dtype=torch.bool)
    rest[massive] = False
    if not rest.any():
        return np.zeros(resid.shape[2])
    square = resid[:, rest].double().square().mean(dim=1)
    found: Float64[np.ndarray, " d_model"] = (square / square.sum(dim=1, keepdim=True)).mean(dim=0).numpy()
    return found


def _by_chance(sizes: list[int], share: Float64[np.ndarray, " d_model"], seed: int) -> np.ndarray:
    """The largest share of a dimension when each prompt draws as many as it has, ``share`` saying how often each comes."""
    rng = np.random.default_rng(seed)
    largest = np.zeros(_DRAWS)
    for draw in range(_DRAWS):
        counts = np.zeros(len(share))
        for size in sizes:
            counts[rng.choice(len(share), size=size, replace=False, p=share)] += 1
        largest[draw] = counts.max() / len(sizes)
    return largest
