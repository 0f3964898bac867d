"""Readings of the lens as rows of the result tables."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Int

from analysis.lens import NO_TARGET, Reading, View
from analysis.lens_depth import convergence, prediction_depth
from analysis.measured import Measured

__all__ = ["METRICS", "layer_means", "metric_rows", "settling_rows", "top_rows"]

METRICS = {
    "lens_entropy": "entropy",
    "lens_kl": "kl",
    "lens_kl_reverse": "kl_reverse",
    "lens_js": "js",
    "lens_rank": "rank",
    "lens_rank_control": "rank_control",
    "lens_ce": "ce",
    "lens_ce_final": "ce_final",
    "lens_top1_nlp": "top1_nlp",
}
_TOKEN_COLUMNS = ["layer", "pos", "metric", "value", "n_used", "status"]
_SUFFIX = {"raw": "", "mean": "@mean", "no_norm": "@no_norm", "tuned": "@tuned", "tail": "@tail"}

Positions = Int[np.ndarray, " positions"]


def top_rows(views: Sequence[View], positions: Positions, reading: Reading) -> pd.DataFrame:
    """``lens_topk``: rank 1 is the best token; states that were not finite have no rows."""
    n_views, n_positions, k = reading.top_ids.shape
    frame = pd.DataFrame(
        {
            "layer": np.repeat([view.layer for view in views], n_positions * k),
            "pos": np.tile(np.repeat(positions, k), n_views),
            "variant": np.repeat([view.variant for view in views], n_positions * k),
            "rank": np.tile(np.arange(1, k + 1), n_views * n_positions),
            "token_id": reading.top_ids.flatten().numpy(),
            "prob": reading.top_prob.flatten().numpy(),
        }
    )
    return frame[frame["token_id"] != NO_TARGET].reset_index(drop=True)


def metric_rows(views: Sequence[View], positions: Positions, reading: Reading) -> pd.DataFrame:
    """``token_metrics`` of every view; a divergence that was not asked for has no rows."""
    n_views, n_positions = len(views), len(positions)
    finite = np.isfinite(reading.entropy.numpy()).ravel()
    frames = []
    for metric, values in _columns(reading).items():
        flat = values.ravel().astype(np.float64)
        frames.append(
            pd.DataFrame(
                {
                    "layer": np.repeat([view.layer for view in views], n_positions),
                    "pos": np.tile(positions, n_views),
                    "metric": np.repeat([metric + _SUFFIX[view.variant] for view in views], n_positions),
                    "value": flat,
                    "n_used": 1,
                    "status": np.where(~np.isnan(flat), "ok", np.where(finite, "not_applicable", "non_finite")),
                }
            )
        )
    return pd.concat(frames, ignore_index=True).astype({"layer": "Int64"})[_TOKEN_COLUMNS]


def settling_rows(views: Sequence[View], positions: Positions, reading: Reading) -> pd.DataFrame:
    """``lens_depth`` and the convergence of each position; ``views`` hold every point of each of their variants."""
    rows: list[tuple[int, str, float, int, str]] = []
    for variant, suffix in _SUFFIX.items():
        own = [i for i, view in enumerate(views) if view.variant == variant]
        if not own:
            continue
        top1 = reading.top_ids[own, :, 0]
        depth = prediction_depth(top1)
        broken = (top1 == NO_TARGET).any(0)
        for i, pos in enumerate(positions.tolist()):
            settled = convergence(reading.ce_final[own, i], reading.kl[own, i])
            depth_of = Measured(torch.nan, len(own), "non_finite") if broken[i] else Measured(float(depth[i]), len(own))
            found = {
                "lens_depth": depth_of,
                "lens_monotonicity": settled.monotonicity,
                "lens_convergence": settled.rate,
                "lens_ce_area": settled.area,
                "lens_first_nat": settled.first_nat,
            }
            rows += [(pos, name + suffix, m.value, m.n_used, m.status) for name, m in found.items()]
    frame = pd.DataFrame(rows, columns=_TOKEN_COLUMNS[1:])
    frame.insert(0, "layer", pd.Series([pd.NA] * len(frame), dtype="Int64"))
    return frame


def layer_means(views: Sequence[View], keep: Bool[np.ndarray, " positions"], reading: Reading) -> pd.DataFrame:
    """``layer_metrics``: means over the kept positions at which the metric is defined."""
    rows: list[tuple[int, str, float, int, str]] = []
    for metric, values in _columns(reading).items():
        for view, row in zip(views, values, strict=True):
            defined = row[keep & ~np.isnan(row)].astype(np.float64)
            name = metric + _SUFFIX[view.variant]
            if defined.size:
                rows.append((view.layer, name, float(defined.mean()), defined.size, "ok"))
            else:
                rows.append((view.layer, name, float("nan"), 0, "too_few_tokens"))
    return pd.DataFrame(rows, columns=["layer", "metric", "value", "n_used", "status"])


def _columns(reading: Reading) -> dict[str, Float[np.ndarray, "views positions"]]:
    columns = {metric: getattr(reading, name).numpy() for metric, name in METRICS.items()}
    return {m: values for m, values in columns.items() if m != "lens_js" or not np.isnan(values).all()}
