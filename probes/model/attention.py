"""Attention reduced where it is computed: the function registered with transformers as ``eigenscope``.

The T x T pattern is never kept. Queries are worked off in blocks; beside the output, each block adds to the reductions
of the current :class:`Recorder`. Masks are built here (causal, offset by keys minus queries, sliding window), because
transformers passes none to a custom attention name. The full pattern is kept only for queries a recorder asks for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Float32, Float64
from torch import Tensor, nn
from transformers import AttentionInterface

if TYPE_CHECKING:
    from probes.model.editing import Editing

__all__ = ["ATTENTION_NAME", "AttentionReductions", "Recorder", "attend", "recording"]

ATTENTION_NAME = "eigenscope"
QUERY_BLOCK = 256
_MASKED = -1e30  # finite, so that 0 * score stays 0 in the entropy


@dataclass(frozen=True, slots=True)
class AttentionReductions:
    """What is kept of attention, each ``[blocks, heads, tokens]``.

    ``column_sum``: attention a key receives, summed over queries. ``row_entropy``: entropy of a query's row, nats.
    ``value_l1``, ``value_l2``: norms of the value vectors, KV heads repeated for their query heads. ``value_out``:
    ``||v_k W_O^h||_2``, the norm of what a key would add to the residual stream at attention 1.
    """

    column_sum: Float64[Tensor, "blocks heads tokens"]
    row_entropy: Float32[Tensor, "blocks heads tokens"]
    value_l1: Float32[Tensor, "blocks heads tokens"]
    value_l2: Float32[Tensor, "blocks heads tokens"]
    value_out: Float32[Tensor, "blocks heads tokens"]


@dataclass
class Recorder:
    """Collects what one forward pass says about attention: first dimension the rows of the batch, right-padded.

    ``blocks`` maps the identity of an attention module to its block. ``lengths`` says how many tokens of each row are
    real (None: all); queries beyond do not count. ``reduce`` turns the reductions on, ``keep_values`` keeps the value
    vectors too. ``patterns`` names, for a block, the queries whose whole rows are kept (None: all). ``editing`` changes
    values and patterns where they are computed. ``calls`` counts how often each block attended, ``windows`` holds its
    sliding window, None where it sees everything before it.
    """

    blocks: dict[int, int]
    lengths: Sequence[int] | None = None
    reduce: bool = False
    keep_values: bool = False
    editing: Editing | None = None
    patterns: dict[int, Sequence[int] | None] = field(default_factory=dict)
    calls: dict[int, int] = field(default_factory=dict)
    windows: dict[int, int | None] = field(default_factory=dict)
    column_sum: dict[int, Tensor] = field(default_factory=dict)
    row_entropy: dict[int, Tensor] = field(default_factory=dict)
    values: dict[int, Tensor] = field(default_factory=dict)
    pattern: dict[int, Tensor] = field(default_factory=dict)


_current: ContextVar[Recorder | None] = ContextVar("recorder", default=None)


@contextmanager
def recording(recorder: Recorder) -> Iterator[Recorder]:
    """Let attention of this thread report to ``recorder``."""
    token = _current.set(recorder)
    try:
        yield recorder
    finally:
        _current.reset(token)


def attend(
    module: nn.Module,
    query: Float[Tensor, "batch heads queries d_head"],
    key: Float[Tensor, "batch kv_heads keys d_head"],
    value: Float[Tensor, "batch kv_heads keys d_value"],
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    softcap: float | None = None,
    sliding_window: int | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Causal attention in query blocks. Returns ``[batch, queries, heads, d_value]`` and no weights.

    ``attention_mask`` is None by the interface's convention; a mask would mean that the caller expects something this
    function does not do, so it raises ValueError. Softmax runs in float32 whatever the model's dtype.
    """
    if attention_mask is not None:
        raise ValueError("The registered attention function builds its own causal mask and takes none.")
    if dropout:
        raise ValueError("Attention dropout must be 0: put the model in evaluation mode.")
    batch, heads, n_queries, d_head = query.shape
    kv_heads, n_keys = key.shape[1], key.shape[2]
    groups = heads // kv_heads
    scale = d_head**-0.5 if scaling is None else scaling
    offset = n_keys - n_queries
    recorder = _current.get()
    block = recorder.blocks.get(id(module)) if recorder is not None else None
    if recorder is not None and block is not None:
        recorder.windows[block] = sliding_window
    tally = (
        _Tally(recorder, block, batch, heads, n_queries, n_keys) if recorder is not None and block is not None else None
    )
    editing = recorder.editing if recorder is not None and block is not None else None
    edited = editing is not None and block is not None and editing.edits_pattern(block)
    if editing is not None and block is not None:
        value = editing.values(block, value)

    grouped = query.reshape(batch, kv_heads, groups, n_queries, d_head)
    output = torch.empty(batch, n_queries, heads, value.shape[-1], dtype=query.dtype, device=query.device)
    for start in range(0, n_queries, QUERY_BLOCK):
        stop = min(start + QUERY_BLOCK, n_queries)
        width = stop - start
        first = 0 if sliding_window is None else max(0, offset + start - sliding_window + 1)
        last = offset + stop
        rows = grouped[:, :, :, start:stop].reshape(batch, kv_heads, groups * width, d_head)
        scores = (rows @ key[:, :, first:last].transpose(-1, -2)).float().mul_(scale)
        if softcap is not None:
            scores = scores.div_(softcap).tanh_() * softcap  # not in place: the gradient of tanh needs its value
        scores = scores.view(batch, heads, width, last - first)
        hidden = _hidden(start, stop, first, last, offset, sliding_window, query.device)
        scores.masked_fill_(hidden, _MASKED)
        weights = torch.softmax(scores, dim=-1)
        if editing is not None and block is not None and edited:
            weights = editing.pattern(block, weights, hidden, offset + start, first)
        mixed = weights.to(query.dtype).view(batch, kv_heads, groups * width, last - first) @ value[:, :, first:last]
        output[:, start:stop] = mixed.view(batch, heads, width, -1).transpose(1, 2)
        if tally is not None:
            tally.add(weights, None if edited else scores, start, stop, first, last)
    if tally is not None:
        tally.finish(value)
    return output, None


def _hidden(
    start: int, stop: int, first: int, last: int, offset: int, window: int | None, device: torch.device
) -> Tensor:
    """True where query ``start..stop`` may not see key ``first..last``: the future, and what left the window."""
    queries = torch.arange(offset + start, offset + stop, device=device)[:, None]
    keys = torch.arange(first, last, device=device)[None, :]
    hidden = keys > queries
    return hidden if window is None else hidden | (keys <= queries - window)


class _Tally:
    """Adds the query blocks of one attention call into the recorder."""

    def __init__(self, recorder: Recorder, block: int, batch: int, heads: int, n_queries: int, n_keys: int) -> None:
        self._recorder, self._block = recorder, block
        self._lengths = recorder.lengths or [n_queries] * batch
        recorder.calls[block] = recorder.calls.get(block, 0) + 1
        if recorder.reduce:
            self._columns = torch.zeros(batch, heads, n_keys, dtype=torch.float64)
            self._entropy = torch.zeros(batch, heads, n_queries)
        self._rows: Tensor | None = None
        if block in recorder.patterns:
            wanted = recorder.patterns[block]
            self._wanted = list(range(n_queries)) if wanted is None else list(wanted)
            self._rows = torch.zeros(batch, heads, len(self._wanted), n_keys)

    def add(self, weights: Tensor, scores: Tensor | None, start: int, stop: int, first: int, last: int) -> None:
        """``scores`` are those whose softmax ``weights`` is; None if the weights were edited."""
        if self._recorder.reduce:
            for row, length in enumerate(self._lengths):
                real = weights[row, :, : max(0, length - start)]
                self._columns[row, :, first:last] += real.sum(dim=-2).double().cpu()
            if scores is None:
                entropy = -torch.xlogy(weights, weights).sum(dim=-1)
            else:
                # H = logsumexp(s) - sum p s: one pass over the block, no p log p temporary
                expected = torch.einsum("bhqk,bhqk->bhq", weights, scores)
                entropy = torch.logsumexp(scores, dim=-1) - expected
            self._entropy[:, :, start:stop] = entropy.clamp_min_(0).cpu()
        if self._rows is not None:
            for slot, position in enumerate(self._wanted):
                if start <= position < stop:
                    self._rows[:, :, slot, first:last] = weights[:, :, position - start].cpu()

    def finish(self, value: Tensor) -> None:
        recorder, block = self._recorder, self._block
        if recorder.reduce:
            recorder.column_sum[block] = self._columns
            recorder.row_entropy[block] = self._entropy
        if recorder.reduce or recorder.keep_values or self._rows is not None:
            recorder.values[block] = value.float().cpu()
        if self._rows is not None:
            recorder.pattern[block] = self._rows


AttentionInterface.register(ATTENTION_NAME, attend)
