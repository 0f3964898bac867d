"""Attention sinks: how much attention each key receives, and what uniform attention would give (docs/methods, 2.1)."""

import math
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor

from analysis.measured import Status

__all__ = [
    "MIN_TOKENS",
    "MIN_TOKENS_IS_SINK",
    "MIN_VISIBLE_QUERIES",
    "SINK_EPSILON",
    "ColumnImportance",
    "Columnar",
    "HeadSinks",
    "column_importance",
    "column_sums",
    "columnar",
    "first_sink_block",
    "gini",
    "head_sinks",
    "sink_heads",
    "token_sinks",
    "uniform_importance",
    "visible_queries",
]

SINK_EPSILON = 0.3
MIN_VISIBLE_QUERIES = 8
MIN_TOKENS_IS_SINK = 32
MIN_TOKENS = 4
_MIN_TOKENS_OK = 16
_ROW_SUM_TOLERANCE = 1e-3
_DELIMITERS = frozenset({"Pc", "Pd", "Pe", "Pf", "Pi", "Po", "Ps", "Sc", "Sk", "Sm"})  # not So: emoji, U+FFFD


@dataclass(frozen=True, eq=False)
class ColumnImportance:
    """``a_k``: mean attention to key k over the queries that can see it, with its uniform baseline.

    ``visible`` counts those queries, which a sliding window makes fewer than T - k.
    """

    a: Float64[Tensor, "blocks heads tokens"]
    visible: Int64[Tensor, "blocks tokens"]
    uniform: Float64[Tensor, "blocks tokens"]

    @property
    def flaggable(self) -> Bool[Tensor, "blocks tokens"]:
        """Keys seen by at least 8 queries: the last token's importance is its attention to itself alone."""
        return self.visible >= MIN_VISIBLE_QUERIES

    @property
    def above(self) -> Bool[Tensor, "blocks heads tokens"]:
        """Flaggable keys with an importance above .3."""
        return (self.a > SINK_EPSILON) & self.flaggable[:, None, :]


@dataclass(frozen=True, eq=False)
class HeadSinks:
    """Position 0 as a sink, per head. ``is_sink`` is 1, 0, or NaN below 32 tokens (``is_sink_status``)."""

    score: Float64[Tensor, "blocks heads"]
    ratio: Float64[Tensor, "blocks heads"]
    is_sink: Float64[Tensor, "blocks heads"]
    status: Status
    is_sink_status: Status


@dataclass(frozen=True, eq=False)
class Columnar:
    """The most attended flaggable key of each head, and how unequal the column sums are.

    ``score`` is NaN and ``pos`` -1 where no key has 8 visible queries. ``gini_uniform`` is the Gini coefficient that
    uniform causal attention has by itself, which is not 0.
    """

    score: Float64[Tensor, "blocks heads"]
    pos: Int64[Tensor, "blocks heads"]
    gini: Float64[Tensor, "blocks heads"]
    gini_uniform: Float64[Tensor, "blocks"]


def visible_queries(n_tokens: int, window: int | None = None) -> Int64[Tensor, "tokens"]:
    """Number of causal queries that can see each key; with a sliding window of w, at most w."""
    counts = torch.arange(n_tokens, 0, -1)
    return counts if window is None else counts.clamp(max=window)


def uniform_importance(n_tokens: int, window: int | None = None) -> Float64[Tensor, "tokens"]:
    """``a_k`` of uniform causal attention; without a window ``a_0`` is the harmonic number H_T over T."""
    seen_keys = torch.arange(1, n_tokens + 1, dtype=torch.float64)
    if window is not None:
        seen_keys = seen_keys.clamp(max=window)
    cumulative = torch.cat([torch.zeros(1, dtype=torch.float64), (1 / seen_keys).cumsum(0)])
    visible = visible_queries(n_tokens, window)
    start = torch.arange(n_tokens)
    return (cumulative[start + visible] - cumulative[start]) / visible


def column_sums(pattern: Float[Tensor, "*lead tokens tokens"]) -> Float64[Tensor, "*lead tokens"]:
    """Attention to each key summed over the queries of a full pattern (rows are queries).

    Raises:
        ValueError: rows do not sum to 1 within 1e-3.
    """
    wide = pattern.double()
    rows = wide.sum(-1)
    worst = float((rows - 1).abs().max())
    if not worst <= _ROW_SUM_TOLERANCE:
        raise ValueError(f"attention rows must sum to 1 within {_ROW_SUM_TOLERANCE}; the worst is off by {worst:.3g}")
    return wide.sum(-2)


def column_importance(
    column_sum: Float64[Tensor, "blocks heads tokens"], windows: Sequence[int | None] | None = None
) -> ColumnImportance:
    """Divide column sums by the number of queries that can see each key.

    Args:
        column_sum: attention to each key summed over queries.
        windows: sliding window of each block in tokens, None where a block attends to everything before it.

    Raises:
        ValueError: fewer than 4 tokens, or not one window for each block.
    """
    n_blocks, _, n_tokens = column_sum.shape
    if n_tokens < MIN_TOKENS:
        raise ValueError(f"sink scores need at least {MIN_TOKENS} tokens, not {n_tokens}")
    windows = [None] * n_blocks if windows is None else windows
    if len(windows) != n_blocks:
        raise ValueError(f"there must be one window for each of the {n_blocks} blocks, not {len(windows)}")
    visible = torch.stack([visible_queries(n_tokens, window) for window in windows])
    uniform = torch.stack([uniform_importance(n_tokens, window) for window in windows])
    return ColumnImportance(column_sum / visible[:, None, :], visible, uniform)


def head_sinks(importance: ColumnImportance) -> HeadSinks:
    """Sink score ``a_0``, its ratio to uniform attention, and ``a_0 > .3`` where the prompt is long enough to say.

    Below 32 tokens ``is_sink`` is missing: uniform attention alone exceeds .3 up to 9 tokens.
    """
    score = importance.a[:, :, 0]
    n_tokens = importance.a.shape[2]
    long_enough = n_tokens >= MIN_TOKENS_IS_SINK
    flags = (score > SINK_EPSILON).double() if long_enough else torch.full_like(score, math.nan)
    return HeadSinks(
        score=score,
        ratio=score / importance.uniform[:, :1],
        is_sink=flags,
        status="ok" if n_tokens >= _MIN_TOKENS_OK else "low_confidence",
        is_sink_status="ok" if long_enough else "too_few_tokens",
    )


def first_sink_block(above: Bool[Tensor, "blocks heads tokens"]) -> int | None:
    """The first block in which a head has its sink at position 0; failing that, at any key; None without sinks."""
    at_start = above[:, :, 0].any(dim=1)
    blocks = (at_start if at_start.any() else above.any(dim=2).any(dim=1)).nonzero()
    return int(blocks[0]) if len(blocks) else None


def sink_heads(importance: ColumnImportance) -> Float64[Tensor, "blocks tokens"]:
    """Number of heads of a block that give a key more than .3; NaN with fewer than 8 visible queries or 32 tokens."""
    counts = importance.above.sum(dim=1).double()
    if importance.a.shape[2] < MIN_TOKENS_IS_SINK:
        return torch.full_like(counts, math.nan)
    return counts.masked_fill(~importance.flaggable, math.nan)


def token_sinks(
    importance: ColumnImportance, tokens: Sequence[str], special: Bool[Tensor, "tokens"], min_share: float = 0.1
) -> pd.DataFrame:
    """Keys with an importance above .3 in at least ``min_share`` of the heads of any one block.

    Returns:
        One row per key, strongest first: ``pos, token, kind, n_heads, first_block, importance, ratio``; ``n_heads``
        counts the heads of the whole model above .3, ``importance`` is the largest ``a_k``, ``ratio`` is that value
        over uniform attention.

    Raises:
        ValueError: not one token for each key.
    """
    n_heads, n_tokens = importance.a.shape[1:]
    if len(tokens) != n_tokens:
        raise ValueError(f"there must be one token for each of the {n_tokens} keys, not {len(tokens)}")
    above = importance.above
    shares = above.double().sum(dim=1) / n_heads
    rows = []
    for pos in (shares >= min_share).any(dim=0).nonzero()[:, 0].tolist():
        peak = int(importance.a[:, :, pos].masked_fill(~importance.flaggable[:, None, pos], -1).argmax())
        block, head = divmod(peak, n_heads)
        value = float(importance.a[block, head, pos])
        rows.append(
            {
                "pos": pos,
                "token": tokens[pos],
                "kind": _kind(pos, tokens, bool(special[pos])),
                "n_heads": int(above[:, :, pos].sum()),
                "first_block": int((shares[:, pos] >= min_share).nonzero()[0]),
                "importance": value,
                "ratio": value / float(importance.uniform[block, pos]),
            }
        )
    columns = ["pos", "token", "kind", "n_heads", "first_block", "importance", "ratio"]
    table = pd.DataFrame(rows, columns=columns)
    return table.sort_values(["n_heads", "importance"], ascending=False, ignore_index=True)


def columnar(column_sum: Float64[Tensor, "blocks heads tokens"], importance: ColumnImportance) -> Columnar:
    """Columnar score ``max_k a_k`` over keys with at least 8 visible queries, its place, and the Gini of the sums."""
    flaggable = importance.flaggable[:, None, :].expand_as(importance.a)
    score, pos = importance.a.masked_fill(~flaggable, -1.0).max(dim=2)
    missing = ~flaggable.any(dim=2)
    return Columnar(
        score=score.masked_fill(missing, math.nan),
        pos=pos.masked_fill(missing, -1),
        gini=gini(column_sum),
        gini_uniform=gini(importance.uniform * importance.visible),
    )


def gini(values: Float64[Tensor, "*lead n"]) -> Float64[Tensor, "*lead"]:
    """Gini coefficient of non-negative values: 0 when all are equal, 1 - 1/n when one holds everything.

    All-zero values have no Gini coefficient and give NaN.
    """
    n = values.shape[-1]
    ranks = torch.arange(1, n + 1, dtype=torch.float64)
    ordered = values.sort(dim=-1).values
    return (ordered * (2 * ranks - n - 1)).sum(-1) / (n * ordered.sum(-1))


def _kind(pos: int, tokens: Sequence[str], special: bool) -> str:
    if pos == 0:
        return "first position"
    text = tokens[pos]
    stripped = text.strip()
    if not stripped and "\n" in text:
        return "newline"
    if special or (text and all(unicodedata.category(letter) in _DELIMITERS for letter in stripped)):
        return "delimiter"
    return "repeated" if text in tokens[:pos] else "other"
