"""Tokens: how surprising each one is, how long its residual vector is, and whether attention or MLP moves it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch

from probes.probe import Context, ProbeSpec, Result

if TYPE_CHECKING:
    from probes.model.capture import Capture
    from probes.model.loaded import LoadedModel, ModelFacts

__all__ = ["Params", "compatible", "cost", "run", "spec"]

_ROWS = 64


@dataclass(frozen=True)
class Params:
    """Nothing to choose."""


spec = ProbeSpec(
    name="tokens",
    version=2,
    question="How surprising is each token, and how much of what moves it is attention, how much MLP?",
    sites=frozenset({"resid"}),
    reductions=frozenset({"update_norms"}),
    tables=("token_metrics", "layer_metrics"),
)


def compatible(model: LoadedModel) -> str | None:
    return None


def cost(params: Params, facts: ModelFacts, n_tokens: int) -> int:
    """Logits of a few rows at a time, and one layer's float64 norms."""
    return 2 * _ROWS * facts.d_vocab * 4 + 2 * n_tokens * facts.d_model * 8


def run(capture: Capture, params: Params, context: Context) -> Result:
    """``nll`` of a token stands at the token (position 0 has none); norms and update shares at layer points.

    ``update_attn_share`` of point b + 1 is the mean over kept tokens but position 0 (whose one massive entry can outgrow
    all others: 0.81 instead of 0.27 in one block of the example) of ``|attn| / (|attn| + |mlp|)`` in block b, and
    ``update_size`` the mean of ``|update| / |residual before it|``.
    """
    keep = getattr(capture.masks, context.mask).clone()
    keep[0] = False
    tokens = [_nll(capture, context)]
    layers = []
    for point in range(capture.model.facts.n_layers + 1):
        resid = capture.resid(point)
        norms = resid.double().norm(dim=-1).numpy()
        tokens.append(_rows(point, "resid_norm", norms))
        if point == 0:
            continue
        before = capture.resid(point - 1)
        attn, mlp = capture.attn_norm[point - 1], capture.mlp_norm[point - 1]
        share = (attn / (attn + mlp))[keep]
        size = ((resid - before).double().norm(dim=-1) / before.double().norm(dim=-1))[keep]
        layers.append(_mean(point, "update_attn_share", share))
        layers.append(_mean(point, "update_size", size))
    columns = ["layer", "metric", "value", "n_used", "status"]
    return Result({"token_metrics": pd.concat(tokens), "layer_metrics": pd.DataFrame(layers, columns=columns)})


def _nll(capture: Capture, context: Context) -> pd.DataFrame:
    last = capture.resid(capture.model.facts.n_layers)
    targets = capture.token_ids[1:]
    values = np.full(capture.n_tokens, np.nan)
    for start in range(0, len(targets), _ROWS):
        context.progress.step(start / len(targets), "loss of every token")
        rows = slice(start, min(start + _ROWS, len(targets)))
        logits = capture.model.unembed(last[rows])
        wanted = targets[rows].to(logits.device)
        values[1 + rows.start : 1 + rows.stop] = torch.nn.functional.cross_entropy(
            logits, wanted, reduction="none"
        ).cpu()
    frame = _rows(None, "nll", values)
    frame.loc[0, "status"] = "not_applicable"
    return frame


def _rows(layer: int | None, metric: str, values: np.ndarray) -> pd.DataFrame:
    frame = pd.DataFrame({"pos": np.arange(len(values)), "value": values})
    frame.insert(0, "layer", pd.Series([layer] * len(values), dtype="Int64"))
    return frame.assign(metric=metric, n_used=1, status="ok")[["layer", "pos", "metric", "value", "n_used", "status"]]


def _mean(point: int, metric: str, values: torch.Tensor) -> tuple[int, str, float, int, str]:
    defined = values[values.isfinite()]
    if len(defined) == 0:
        return point, metric, float("nan"), 0, "too_few_tokens" if len(values) == 0 else "not_applicable"
    return point, metric, float(defined.mean()), len(defined), "ok"
