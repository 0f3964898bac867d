"""Linearity: how nearly each block is one linear map of the residual stream, and which tokens of the text it is not for.

The maps are fitted on the tokens of other stored runs, many times as many as the model is wide; the shown text is held out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float32
from torch import Tensor

from analysis.linearity import LinearMap, linearity, nonlinearity, score_on
from analysis.measured import Measured, undefined
from probes.probe import Context, ProbeSpec, Result
from probes.stacked import TYPICAL_TOKENS, check_corpus, other_texts, stacked

if TYPE_CHECKING:
    from probes.model.capture import Capture
    from probes.model.loaded import LoadedModel, ModelFacts

__all__ = ["Params", "compatible", "cost", "run", "spec"]

_OF_MAP = ("linearity_chance", "linearity_held_out", "linearity_update_held_out")
_COPIES = 12  # of one point: two points in float32, four matrices of the fit in float64, and room


@dataclass(frozen=True)
class Params:
    """``corpus``: the runs of other texts, by their ids, whose tokens the maps are fitted on."""

    __no_type_check__ = True  # values come from people: they are refused in a sentence, not by a type hook

    corpus: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_corpus(self.corpus, "linearity.corpus")


spec = ProbeSpec(
    name="linearity",
    version=1,
    question="How nearly is each block one linear map of the stream, and for which tokens of this text is it not?",
    sites=frozenset({"resid"}),
    reductions=frozenset({"column_sum"}),
    tables=("layer_metrics", "token_metrics"),
)


def compatible(model: LoadedModel) -> str | None:
    return None


def cost(params: Params, facts: ModelFacts, n_tokens: int) -> int:
    """The stacked tokens of two points and what a fit makes of them."""
    return len(params.corpus) * TYPICAL_TOKENS * facts.d_model * 4 * _COPIES + 6 * facts.d_model**2 * 8


def run(capture: Capture, params: Params, context: Context) -> Result:
    """``layer_metrics`` at point b + 1 of block b, on the run's mask and ``@no_sink``: ``linearity`` and
    ``linearity_update`` over the corpus, ``linearity_chance`` (what independent tokens would score), and
    ``linearity_held_out`` and ``linearity_update_held_out``, what the same map scores on this text.

    ``token_metrics``: ``nonlinearity@no_sink`` and ``nonlinearity_relative@no_sink`` of this text's tokens under the map
    fitted without sinks. Raises BadRequest for a corpus of another model, or of this text alone.
    """
    others = other_texts("linearity", params.corpus, capture, context)
    masks = {"": context.mask, "@no_sink": "no_sink"}
    kept = {mask: torch.cat([one.mask(mask) for one in others]) for mask in set(masks.values())}
    layers: list[tuple[int, str, float, int, str]] = []
    tokens: list[pd.DataFrame] = []
    blocks = capture.model.facts.n_layers
    before = stacked(others, 0)
    for block in range(blocks):
        context.progress.step(block / blocks, f"linear map of block {block}, {len(before):,} tokens")
        after, point = stacked(others, block + 1), block + 1
        found = {mask: _fitted(before[keep], after[keep], capture, block, mask) for mask, keep in kept.items()}
        for suffix, mask in masks.items():
            numbers = found[mask][0]
            layers += [(point, f"{name}{suffix}", one.value, one.n_used, one.status) for name, one in numbers.items()]
        tokens += _of_tokens(*found["no_sink"], capture, block)
        before = after
    note = "This text is part of the corpus: its own tokens were left out of the fit."
    return Result(
        {
            "layer_metrics": pd.DataFrame(layers, columns=["layer", "metric", "value", "n_used", "status"]),
            "token_metrics": pd.concat(tokens, ignore_index=True),
        },
        notes=(note,) if len(others) < len(params.corpus) else (),
    )


def _fitted(
    x: Float32[Tensor, "n d_model"], y: Float32[Tensor, "n d_model"], capture: Capture, block: int, mask: str
) -> tuple[dict[str, Measured], LinearMap | None]:
    """Scores over the corpus, and of its map on the text; and the map."""
    fit = linearity(x, y)
    n = fit.score.n_used
    numbers = {"linearity": fit.score, "linearity_update": fit.update_score}
    if fit.map is None:
        missing = undefined(fit.score.status, n)
        return numbers | dict.fromkeys(_OF_MAP, missing), None
    keep = capture.mask(mask)
    here, there = capture.resid(block)[keep], capture.resid(block + 1)[keep]
    held_out = score_on(fit.map, here, there)
    found = (Measured(fit.rank / (n - 1), n), held_out, _update_on(held_out, here, there))
    return numbers | dict(zip(_OF_MAP, found, strict=True)), fit.map


def _update_on(score: Measured, x: Float32[Tensor, "n d_model"], y: Float32[Tensor, "n d_model"]) -> Measured:
    """The held-out score of the update: the same residuals, over what the update varies instead of the stream."""
    if np.isnan(score.value):
        return score
    stream, update = y.double(), y.double() - x.double()
    energy = [float((one - one.mean(dim=0)).square().sum()) for one in (stream, update)]
    if energy[1] == 0:
        return undefined("rank_deficient", score.n_used)
    return Measured(1 - (1 - score.value) * energy[0] / energy[1], score.n_used, score.status)


def _of_tokens(
    scores: Mapping[str, Measured], known: LinearMap | None, capture: Capture, block: int
) -> list[pd.DataFrame]:
    """Each token's distance from the map, absolute and relative; those that are sinks have none."""
    keep: Bool[Tensor, "tokens"] = capture.mask("no_sink")
    names = ("nonlinearity@no_sink", "nonlinearity_relative@no_sink")
    found = [np.full(capture.n_tokens, np.nan) for _ in names]
    n_used = scores["linearity"].n_used
    if known is not None:
        numbers = nonlinearity(known, capture.resid(block)[keep], capture.resid(block + 1)[keep])
        for values, one in zip(found, numbers, strict=True):
            values[keep.numpy()] = one.numpy()
    status = "too_few_tokens" if known is None else "not_applicable"
    frames = []
    for name, values in zip(names, found, strict=True):
        frame = pd.DataFrame({"layer": block + 1, "pos": np.arange(capture.n_tokens), "metric": name, "value": values})
        frames.append(frame.assign(n_used=n_used, status=np.where(np.isnan(values), status, "ok")))
    return [frame.astype({"layer": "Int64"}) for frame in frames]
