"""Claim: shuffling the tokens of a text raises its intrinsic dimension (core.md 6.3)."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Float64

from analysis.cosine import mean_cosine
from analysis.neighbours import MIN_TOKENS, NEIGHBOURS, neighbourhood, overlap, point_distances
from analysis.paired import compare_paired
from analysis.shuffle import shuffled_order
from probes.claims.bench import Bench
from probes.claims.claim import Claim, Outcome, Untestable, finite
from probes.claims.dimension_loss import dimensions
from probes.model.forward import forward
from probes.progress import Progress

__all__ = ["claim", "judged", "test"]

_PROMPTS = 12
_SEEDS = 2
_MIN_PROMPTS = 5

claim = Claim(
    name="shuffled-dimension",
    title="Shuffled tokens lie in more dimensions",
    paper="The Geometry of Tokens, arXiv 2501.10573",
    reported="Shuffling the tokens of a prompt raises the peak of the intrinsic dimension over layers; near it the mean "
    "cosine rises and the overlap of neighbourhoods between layers falls.",
    tested="The largest intrinsic dimension over points (GRIDE, mean of scales 2 and 4, without position 0) of the longest "
    "12 prompts, of the same tokens in two random orders (position 0 stays): shuffled, mean of both, less as written, by "
    "a paired t.",
    rule="Holds if the 95 % interval of the difference lies above 0.",
    distrust="Only 12 prompts: an interval over them is wide. High dimensions are underestimated, more so with few tokens, "
    "which makes the difference too small.",
    prompts="passages",
)


def test(bench: Bench) -> Outcome:
    """Shuffle the longest prompts."""
    captures = {item: bench.capture(item) for item in bench.items()}
    items = sorted(
        (one for one in captures if captures[one].n_tokens > MIN_TOKENS), key=lambda one: -captures[one].n_tokens
    )
    items = items[:_PROMPTS]
    if len(items) < _MIN_PROMPTS:
        raise Untestable(f"{len(items)} prompts have more than {MIN_TOKENS} tokens; it takes {_MIN_PROMPTS}.")
    model = bench.loaded()
    rows = []
    for place, item in enumerate(items):
        bench.told(place, len(items), "shuffles of")
        ids = captures[item].token_ids
        orders = [shuffled_order(len(ids), bench.seed + seed) for seed in range(_SEEDS)]
        measured = [_geometry(bench.resid(item))]
        for order in orders:
            left = forward(model, ids[torch.from_numpy(order)], frozenset({"resid"}), frozenset(), Progress())
            measured.append(_geometry(torch.stack([left[f"resid.{p}"] for p in range(model.facts.n_layers + 1)])))
        rows.append(measured)
    return judged(np.array(rows), bench.seed)


def judged(curves: Float64[np.ndarray, "prompts orders 3 points"], seed: int = 0) -> Outcome:
    """The verdict on dimension, cosine and overlap by point, as written (order 0) and shuffled. Raises Untestable."""
    peaks = np.where(np.isfinite(curves[:, :, 0]), curves[:, :, 0], -np.inf).max(axis=2)
    peaks = np.where(np.isfinite(peaks), peaks, np.nan)
    if np.isnan(peaks).all():
        raise Untestable("The intrinsic dimension is undefined at every point: too many tokens repeat.")
    written, shuffled = peaks[:, :1], peaks[:, 1:].mean(axis=1, keepdims=True)
    overall = compare_paired(written, shuffled, seed=seed).overall
    effect, low, high = (finite(float(overall[name])) for name in ("difference", "low", "high"))
    if effect is None or low is None:
        raise Untestable(f"The difference is not defined ({overall['status']}).")
    between = float(np.nanmean(np.abs(peaks[:, 1] - peaks[:, -1])))
    defined = np.isfinite(curves[:, 0, 0])
    means = np.where(defined, curves[:, 0, 0], 0).sum(axis=0) / np.maximum(defined.sum(axis=0), 1)
    at = int(means.argmax())
    rows = []
    for kind, name in enumerate(("intrinsic dimension", "mean cosine", "overlap with the next point")):
        one = compare_paired(curves[:, 0, kind], curves[:, 1:, kind].mean(axis=1), seed=seed).table.iloc[at]
        row: dict[str, str | float | None] = {"measure": f"{name} at point {at}"}
        row |= {"as written": finite(float(one["mean_first"])), "shuffled": finite(float(one["mean_second"]))}
        rows.append(row | {end: finite(float(one[end])) for end in ("difference", "low", "high")})
    return Outcome(
        verdict="holds" if low > 0 else "does not hold",
        reason=f"The largest dimension is {float(overall['mean_first']):.1f} as written and "
        f"{float(overall['mean_second']):.1f} shuffled, over {int(overall['n'])} prompts.",
        effect=effect, low=low, high=high, unit="intrinsic dimension at its peak, shuffled less written",
        control=finite(between), control_is="size of the difference between two shuffles of the same prompt",
        n=int(overall["n"]), details=tuple(rows),
    )  # fmt: skip


def _geometry(resid: torch.Tensor) -> Float64[np.ndarray, "3 points"]:
    """Dimension, mean cosine, and overlap of neighbourhoods with the next point (NaN at the last), without position 0."""
    rows = resid[:, 1:]
    k = min(NEIGHBOURS, rows.shape[1] // 10)
    near = [neighbourhood(point_distances(point), k) for point in rows]
    shared = [float(overlap(pair)[0, 1]) for pair in pairwise(near)]
    return np.array([dimensions(rows), [mean_cosine(point).value for point in rows], [*shared, np.nan]])
