"""Head effects: every head of the model set to zero in turn, and what the text then costs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float32, Float64
from torch import Tensor

from analysis.effect import effect
from probes.checks import require, some_whole
from probes.model.bank import BUILTIN
from probes.model.editing import resolve
from probes.model.edits import Edit, Mean
from probes.model.resume import resume
from probes.probe import Context, ProbeSpec, Result

if TYPE_CHECKING:
    from probes.model.capture import Capture
    from probes.model.loaded import LoadedModel, ModelFacts

__all__ = ["Params", "compatible", "cost", "run", "spec"]

_ROWS = 64
_SAMPLE = 64


@dataclass(frozen=True)
class Params:
    """``positions`` whose predictions are compared: "sample" (64 of them, spread evenly), "all", or a list.

    ``to``: what a head's output is set to, "zero" or "mean" (of the built-in bank).
    """

    __no_type_check__ = True  # values come from people: refused in a sentence, not by the type hook of the tests

    positions: Literal["sample", "all"] | tuple[int, ...] = "sample"
    to: Literal["zero", "mean"] = "zero"

    def __post_init__(self) -> None:
        known = self.positions in ("sample", "all") or some_whole(self.positions)
        require(known, "head_effects.positions", '"sample", "all" or positions', self.positions)
        require(self.to in ("zero", "mean"), "head_effects.to", '"zero" or "mean"', self.to)


spec = ProbeSpec(
    name="head_effects",
    version=1,
    question="Which head does the text need most?",
    sites=frozenset({"resid"}),
    reductions=frozenset(),
    tables=("head_metrics",),
    masks=False,
)


def compatible(model: LoadedModel) -> str | None:
    return None


def cost(params: Params, facts: ModelFacts, n_tokens: int) -> int:
    """Logits of the compared positions twice, a few at a time, and the states of one pass."""
    return 10 * _ROWS * facts.d_vocab * 4 + 6 * n_tokens * max(facts.d_mlp, 4 * facts.d_model) * 4


def run(capture: Capture, params: Params, context: Context) -> Result:
    """``head_metrics``: ``effect_nll``, the rise of the mean nll (nats) over the compared targets, and ``effect_kl``,
    the mean KL(clean || edited), when the head is set to zero or to its mean at all positions. Each pass starts at the
    head's block.
    """
    model, n_tokens = capture.model, capture.n_tokens
    positions = _positions(params, n_tokens)
    clean = _logits(model, capture.resid(model.facts.n_layers)[positions])
    targets = capture.token_ids[positions + 1]
    base = float(_nll(clean, targets).mean())
    nll, kl = torch.empty(2, model.facts.n_layers, model.facts.n_heads, dtype=torch.float64)
    total = nll.numel()
    for block in range(model.facts.n_layers):
        start = capture.resid(block)
        for head in range(model.facts.n_heads):
            context.progress.step((block * model.facts.n_heads + head) / total, f"without head {block}.{head}")
            edit = Edit("head_z", block, "set", "zero" if params.to == "zero" else Mean(BUILTIN), heads=(head,))
            editing = resolve((*capture.edits, edit), model, context.other, context.progress)
            end = resume(model, capture.token_ids, block, start[None], editing)[0]
            changed = _logits(model, end[positions])
            nll[block, head] = _nll(changed, targets).mean() - base
            kl[block, head] = effect(clean, changed).kl.double().mean()
    return Result(
        {"head_metrics": pd.concat([_rows("effect_nll", nll, len(positions)), _rows("effect_kl", kl, len(positions))])}
    )


def _positions(params: Params, n_tokens: int) -> Tensor:
    """Positions that predict a token of the text; position 0, which sees nothing, is left out of ``sample`` and ``all``."""
    if isinstance(params.positions, tuple):
        return torch.tensor([p for p in params.positions if p < n_tokens - 1])
    last = n_tokens - 2
    if params.positions == "all" or last <= _SAMPLE:
        return torch.arange(min(1, max(last, 0)), last + 1)
    return torch.from_numpy(np.unique(np.linspace(1, last, _SAMPLE).round().astype(np.int64)))


def _logits(model: LoadedModel, states: Float32[Tensor, "n d_model"]) -> Float32[Tensor, "n vocab"]:
    return torch.cat([model.unembed(states[i : i + _ROWS]).cpu() for i in range(0, len(states), _ROWS)])


def _nll(logits: Float32[Tensor, "n vocab"], targets: Tensor) -> Float64[Tensor, " n"]:
    return torch.nn.functional.cross_entropy(logits, targets, reduction="none").double()


def _rows(metric: str, values: Float64[Tensor, "blocks heads"], n_used: int) -> pd.DataFrame:
    blocks, heads = values.shape
    flat = values.numpy().ravel()
    return pd.DataFrame(
        {
            "layer": np.repeat(np.arange(blocks), heads),
            "head": np.tile(np.arange(heads), blocks),
            "metric": metric,
            "value": flat,
            "n_used": n_used,
            "status": np.where(np.isfinite(flat), "ok", "too_few_tokens"),
        }
    )
