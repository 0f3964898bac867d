"""Pattern: the whole attention of one block, on demand; the one forward pass of a run never keeps it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from probes.errors import BadRequest
from probes.probe import Context, ProbeSpec, Result

if TYPE_CHECKING:
    from probes.model.capture import Capture
    from probes.model.loaded import LoadedModel, ModelFacts

__all__ = ["LIMIT", "Params", "compatible", "cost", "pool_step", "run", "spec"]

LIMIT = 1024
_CHUNK_BYTES = 256 << 20


@dataclass(frozen=True)
class Params:
    """``block``: whose attention, 0..L-1."""

    block: int = 0

    def __post_init__(self) -> None:
        whole = isinstance(self.block, int) and not isinstance(self.block, bool)
        if not whole or self.block < 0:
            raise ValueError(f"pattern.block must be a whole number from 0, not {str(self.block)[:80]!r}")


spec = ProbeSpec(
    name="pattern",
    version=1,
    question="Which query attends to which key, in every head of one block?",
    sites=frozenset({"resid"}),
    reductions=frozenset(),
    tables=(),
)


def compatible(model: LoadedModel) -> str | None:
    return None


def pool_step(n_tokens: int) -> int:
    """Tokens that a row and a column of the stored pattern stand for: 1 up to 1,024 tokens."""
    return math.ceil(n_tokens / LIMIT)


def cost(params: Params, facts: ModelFacts, n_tokens: int) -> int:
    """One chunk of whole rows, twice while it is pooled, and the pooled pattern."""
    side = math.ceil(n_tokens / pool_step(n_tokens))
    rows = _chunk(facts.n_heads, n_tokens)
    return 2 * facts.n_heads * rows * n_tokens * 4 + facts.n_heads * side * side * 4


def run(capture: Capture, params: Params, context: Context) -> Result:
    """The tensor ``pattern`` [heads, queries, keys], float32.

    Beyond 1,024 tokens a row and a column stand for ``pool_step`` tokens, and each square shows its largest entry.
    """
    n_layers = capture.model.facts.n_layers
    if params.block >= n_layers:
        raise BadRequest(f"pattern.block must be from 0 to {n_layers - 1}, not {params.block}")
    n_tokens = capture.n_tokens
    step, rows = pool_step(n_tokens), _chunk(capture.model.facts.n_heads, n_tokens)
    chunks = []
    for start in range(0, n_tokens, rows):
        context.progress.step(start / n_tokens, f"attention of block {params.block}, queries from {start}")
        queries = tuple(range(start, min(start + rows, n_tokens)))
        chunks.append(_pooled(capture.replay(params.block, queries).pattern, step))
    note = f"Attention of block {params.block} is shown in squares of {step} x {step} tokens by their largest entry."
    return Result({}, {"pattern": torch.cat(chunks, dim=1)}, (note,) if step > 1 else ())


def _chunk(n_heads: int, n_tokens: int) -> int:
    """Queries worked off at once, a multiple of the squares' side."""
    step = pool_step(n_tokens)
    fitting = _CHUNK_BYTES // (4 * n_heads * n_tokens)
    return max(step, min(fitting, n_tokens + step) // step * step)


def _pooled(pattern: Float[Tensor, "heads queries keys"], step: int) -> Float[Tensor, "heads rows columns"]:
    if step == 1:
        return pattern
    return torch.nn.functional.max_pool2d(pattern[None], step, ceil_mode=True)[0]
