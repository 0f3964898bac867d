"""Sinks: which heads look at position 0, which other tokens draw attention, and how like position 0 every token is."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from analysis.bos_cosine import bos_cosine
from analysis.measured import Status
from analysis.sinks import MIN_TOKENS, MIN_TOKENS_IS_SINK, columnar, head_sinks, sink_heads, token_sinks
from analysis.values import value_norm_ratio
from probes.probe import Context, ProbeSpec, Result

if TYPE_CHECKING:
    from probes.model.capture import Capture
    from probes.model.loaded import LoadedModel, ModelFacts

__all__ = ["Params", "compatible", "cost", "run", "spec"]

_EVERY_POSITION = 512


@dataclass(frozen=True)
class Params:
    """Nothing to choose: the threshold .3 and the rule of 8 visible queries are those of docs/methods."""


spec = ProbeSpec(
    name="sinks",
    version=1,
    question="Which heads and tokens take attention without need, and what does it move?",
    sites=frozenset({"resid"}),
    reductions=frozenset({"column_sum", "row_entropy", "value_norms"}),
    tables=("head_metrics", "position_head_metrics", "token_metrics", "layer_metrics"),
)


def compatible(model: LoadedModel) -> str | None:
    return None


def cost(params: Params, facts: ModelFacts, n_tokens: int) -> int:
    """Float64 copies of the reductions and of one residual point, and the rows of the tables."""
    keys = facts.n_layers * facts.n_heads * n_tokens
    rows = 3 * (facts.n_layers + 1) * n_tokens + min(keys, facts.n_layers * facts.n_heads * _EVERY_POSITION)
    return 6 * keys * 8 + 5 * n_tokens * facts.d_model * 8 + rows * 60


def run(capture: Capture, params: Params, context: Context) -> Result:
    """Head metrics by block; the share of sink heads of block b, its uniform level and its mean stand at point b + 1.

    ``sink_heads`` of a token counts the heads of the whole model and has no layer. ``column_score`` is kept of all keys
    up to 512 tokens, beyond that of position 0 and the token sinks. The tensor ``special`` marks special ids.
    """
    token_rows = _cosines(capture, context)
    notes = (_dropped(capture),)
    tensors = {"special": capture.special.to(torch.uint8)}
    if capture.n_tokens < MIN_TOKENS:
        return Result({"head_metrics": _nothing(capture), "token_metrics": token_rows}, tensors, notes)
    importance, attention = capture.importance, capture.attention
    sinks = head_sinks(importance)
    columns = columnar(attention.column_sum, importance)
    every = torch.full_like(sinks.score, capture.n_tokens)
    first = importance.visible[:, :1].expand_as(sinks.score)
    seen = importance.flaggable.sum(dim=1, keepdim=True).expand_as(sinks.score)
    heads = (
        _heads("sink_score", sinks.score, first, sinks.status),
        _heads("sink_ratio", sinks.ratio, first, sinks.status),
        _heads("is_sink", sinks.is_sink, first, sinks.is_sink_status),
        _heads("attn_entropy", attention.row_entropy.double().mean(dim=2), every, sinks.status),
        _heads("value_norm_ratio", value_norm_ratio(attention.value_l1), every, sinks.status),
        _heads("columnar_score", columns.score, seen, sinks.status),
        _heads("column_gini", columns.gini, every, sinks.status),
    )
    layers = (
        _layers("sink_share", sinks.is_sink.mean(dim=1), capture, sinks.is_sink_status),
        _layers("sink_score_mean", sinks.score.mean(dim=1), capture, sinks.status),
        _layers("sink_uniform", importance.uniform[:, 0], capture, sinks.status),
        _layers("column_gini_uniform", columns.gini_uniform, capture, sinks.status),
    )
    return Result(
        {
            "head_metrics": pd.concat(heads, ignore_index=True),
            "position_head_metrics": _column_scores(capture),
            "token_metrics": pd.concat([_sink_heads(capture), token_rows], ignore_index=True),
            "layer_metrics": pd.concat(layers, ignore_index=True),
        },
        tensors,
        notes,
    )


def _heads(metric: str, values: Tensor, n_used: Tensor, status: Status) -> pd.DataFrame:
    blocks, heads = np.indices(values.shape)
    columns = {"layer": blocks.ravel(), "head": heads.ravel(), "metric": metric, "value": values.numpy().ravel()}
    return pd.DataFrame(columns).assign(n_used=n_used.long().numpy().ravel(), status=_status(values, status))


def _layers(metric: str, values: Tensor, capture: Capture, status: Status) -> pd.DataFrame:
    columns = {"layer": np.arange(1, len(values) + 1), "metric": metric, "value": values.double().numpy()}
    return pd.DataFrame(columns).assign(n_used=capture.model.facts.n_heads, status=_status(values, status))


def _status(values: Tensor, status: Status) -> list[Status]:
    """``status`` for numbers; a missing number of a metric that is otherwise defined does not apply here."""
    missing: Status = "not_applicable" if status in ("ok", "low_confidence") else status
    return [missing if gap else status for gap in values.isnan().flatten().tolist()]


def _sink_heads(capture: Capture) -> pd.DataFrame:
    importance = capture.importance
    by_block = sink_heads(importance)
    total = by_block.nansum(dim=0).masked_fill(by_block.isnan().all(dim=0), math.nan)
    frame = pd.DataFrame({"pos": np.arange(capture.n_tokens), "value": total.numpy()})
    frame.insert(0, "layer", pd.Series([None] * len(frame), dtype="Int64"))
    n_heads = importance.flaggable.sum(dim=0) * capture.model.facts.n_heads
    enough = capture.n_tokens >= MIN_TOKENS_IS_SINK
    n_used = n_heads if enough else torch.zeros_like(n_heads)
    frame = frame.assign(metric="sink_heads", n_used=n_used.numpy(), status=_status(total, "ok"))
    frame.loc[frame["value"].isna(), "status"] = "too_few_tokens"
    return frame[["layer", "pos", "metric", "value", "n_used", "status"]]


def _cosines(capture: Capture, context: Context) -> pd.DataFrame:
    n_layers, n_tokens = capture.model.facts.n_layers, capture.n_tokens
    non_sink = capture.masks.no_sink
    points = []
    for point in range(n_layers + 1):
        context.progress.step(point / (n_layers + 1), f"cosines to position 0, point {point} of {n_layers}")
        points.append(bos_cosine(capture.resid(point), non_sink))
    layer, pos = np.indices((n_layers + 1, n_tokens))
    parts = []
    for name, n_used in (("raw", 1), ("centred", int(non_sink.sum())), ("nomassive", 1)):
        values = torch.stack([getattr(point, name) for point in points])
        columns = {"layer": layer.ravel(), "pos": pos.ravel(), "metric": f"bos_cosine_{name}"}
        frame = pd.DataFrame({**columns, "value": values.numpy().ravel(), "n_used": n_used})
        parts.append(frame.assign(status=_status(values, "ok")))
    return pd.concat(parts, ignore_index=True).astype({"layer": "Int64"})


def _column_scores(capture: Capture) -> pd.DataFrame:
    a = capture.importance.a
    if capture.n_tokens <= _EVERY_POSITION:
        positions = np.arange(capture.n_tokens)
    else:
        found = token_sinks(capture.importance, capture.tokens, capture.special)["pos"]
        positions = np.array(sorted({0, *found.tolist()}))
    blocks, heads, places = np.indices((a.shape[0], a.shape[1], len(positions)))
    values = a[:, :, torch.from_numpy(positions)].numpy().ravel()
    columns = {
        "layer": blocks.ravel(),
        "head": heads.ravel(),
        "pos": positions[places.ravel()],
        "metric": "column_score",
    }
    return pd.DataFrame(columns).assign(value=values)


def _nothing(capture: Capture) -> pd.DataFrame:
    facts = capture.model.facts
    missing = torch.full((facts.n_layers, facts.n_heads), math.nan)
    n_used = torch.full_like(missing, capture.n_tokens)
    names = ("sink_score", "sink_ratio", "is_sink", "attn_entropy", "value_norm_ratio")
    return pd.concat([_heads(name, missing, n_used, "too_few_tokens") for name in names], ignore_index=True)


def _dropped(capture: Capture) -> str:
    dropped = capture.masks.dropped
    listed = "; ".join(f"{pos} ({reason})" if pos else reason for pos, reason in dropped[:8])
    more = f" and {len(dropped) - 8} more" if len(dropped) > 8 else ""
    return f"The mask no_sink leaves out {len(dropped)} of {capture.n_tokens} tokens: {listed}{more}."
