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
from probes.model.editing import Editing, resolve
from probes.model.edits import Edit, Mean, Source
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
    """The clean logits of all compared positions, those of a changed pass a few at a time, and the states of one pass."""
    given = params.positions
    compared = len(given) if isinstance(given, tuple) else n_tokens if given == "all" else min(_SAMPLE, n_tokens)
    return (compared + 10 * _ROWS) * facts.d_vocab * 4 + 6 * n_tokens * max(facts.d_mlp, 4 * facts.d_model) * 4


def run(capture: Capture, params: Params, context: Context) -> Result:
    """``head_metrics``: ``effect_nll``, the rise of the mean nll (nats) over the compared targets, and ``effect_kl``,
    the mean KL(clean || edited), when the head is set to zero or to its mean at all positions. Each pass starts at the
    head's block. Undefined without a target: one token alone predicts none.
    """
    model, n_tokens = capture.model, capture.n_tokens
    positions = _positions(params, n_tokens)
    nll, kl = torch.full((2, model.facts.n_layers, model.facts.n_heads), torch.nan, dtype=torch.float64)
    chunks = torch.split(positions, _ROWS) if len(positions) else ()
    last = capture.resid(model.facts.n_layers)
    clean = [model.unembed(last[chunk]).cpu() for chunk in chunks]
    heads = [(block, head) for block in range(model.facts.n_layers) for head in range(model.facts.n_heads) if chunks]
    source: Source = "zero" if params.to == "zero" else Mean(BUILTIN)
    without = [Edit("head_z", block, "set", source, heads=(head,)) for block, head in heads]
    own = () if capture.editing is None else capture.editing.edits
    numbered = resolve(without, model, context.other, context.progress).edits
    for done, ((block, head), edit) in enumerate(zip(heads, numbered, strict=True)):
        context.progress.step(done / len(heads), f"without head {block}.{head}")
        editing = Editing((*own, edit))
        end = resume(model, capture.token_ids, block, capture.resid(block)[None], editing)[0]
        rise, moved = 0.0, 0.0
        for chunk, before in zip(chunks, clean, strict=True):
            after, targets = model.unembed(end[chunk]).cpu(), capture.token_ids[chunk + 1]
            rise += float((_nll(after, targets) - _nll(before, targets)).sum())
            moved += float(effect(before, after).kl.double().sum())
        nll[block, head], kl[block, head] = rise / len(positions), moved / len(positions)
    return Result(
        {"head_metrics": pd.concat([_rows("effect_nll", nll, len(positions)), _rows("effect_kl", kl, len(positions))])}
    )


def _positions(params: Params, n_tokens: int) -> Tensor:
    """Positions that predict a token of the text; position 0, which sees nothing, is left out of ``sample`` and ``all``."""
    if isinstance(params.positions, tuple):
        return torch.tensor([p for p in params.positions if p < n_tokens - 1], dtype=torch.long)
    last = n_tokens - 2
    if params.positions == "all" or last <= _SAMPLE:
        return torch.arange(min(1, max(last, 0)), last + 1)
    return torch.from_numpy(np.unique(np.linspace(1, last, _SAMPLE).round().astype(np.int64)))


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
            "status": np.where(np.isfinite(flat), "ok", "non_finite" if n_used else "too_few_tokens"),
        }
    )
