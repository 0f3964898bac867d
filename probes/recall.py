"""Recall: do the states of a point tell which words stood before, in texts they were not fitted on?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from analysis.contextual_recall import (
    VOCABULARY,
    frequent_tokens,
    mean_precision,
    position_features,
    window_targets,
)
from analysis.measured import Measured
from probes.parallel import in_parallel, n_workers
from probes.probe import Context, ProbeSpec, Result
from probes.stacked import TYPICAL_TOKENS, check_corpus, other_texts, stacked

if TYPE_CHECKING:
    from probes.model.capture import Capture
    from probes.model.loaded import LoadedModel, ModelFacts

__all__ = ["Params", "compatible", "cost", "run", "spec"]


@dataclass(frozen=True)
class Params:
    """``corpus``: the runs of other texts, by their ids; the shown text is left out of them."""

    __no_type_check__ = True  # values come from people: they are refused in a sentence, not by a type hook

    corpus: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_corpus(self.corpus, "recall.corpus")


spec = ProbeSpec(
    name="recall",
    version=1,
    question="Do the states of a point tell which words stood in the 32 positions before?",
    sites=frozenset({"resid"}),
    reductions=frozenset({"column_sum"}),
    tables=("layer_metrics",),
)


def compatible(model: LoadedModel) -> str | None:
    return None


def cost(params: Params, facts: ModelFacts, n_tokens: int) -> int:
    """The stacked tokens of as many points as are in work at once, and the windows."""
    tokens = len(params.corpus) * TYPICAL_TOKENS
    return tokens * (n_workers() * 4 * facts.d_model * 8 + 3 * VOCABULARY * 8)


def run(capture: Capture, params: Params, context: Context) -> Result:
    """``layer_metrics``, over the corpus without sinks: ``context_recall@no_sink`` at every point, and
    ``context_recall_gain@no_sink``, what that is above ``context_recall_position@no_sink``; ``n_used`` counts texts.

    ``context_recall_words@no_sink`` is the size of the vocabulary. Raises BadRequest as `probes.stacked.other_texts`.
    """
    others = other_texts("recall", params.corpus, capture, context)
    keep = np.concatenate([one.mask("no_sink").numpy() for one in others])
    text = np.concatenate([np.full(one.n_tokens, place) for place, one in enumerate(others)])
    position = np.concatenate([np.arange(one.n_tokens) for one in others])
    ids = np.concatenate([one.token_ids.numpy() for one in others])
    vocabulary = frequent_tokens(ids[keep], text[keep])
    targets = window_targets(ids, text, vocabulary)[keep]
    text, points = text[keep], range(capture.model.facts.n_layers + 1)
    baseline = mean_precision(position_features(position[keep]), targets, text)
    rows: list[tuple[int | None, str, Measured]] = [
        (None, "context_recall_position", baseline),
        (None, "context_recall_words", Measured(float(len(vocabulary)), len(others))),
    ]

    def of_point(point: int) -> Measured:
        return mean_precision(stacked(others, point).numpy()[keep].astype(np.float64), targets, text)

    for point, found in enumerate(in_parallel(of_point, points)):
        context.progress.step(point / len(points), f"words before, from point {point}")
        lacking = next((one for one in (found, baseline) if np.isnan(one.value)), None)
        gain = lacking or Measured(found.value - baseline.value, found.n_used)
        rows += [(point, "context_recall", found), (point, "context_recall_gain", gain)]
    plain = [(layer, f"{metric}@no_sink", one.value, one.n_used, one.status) for layer, metric, one in rows]
    frame = pd.DataFrame(plain, columns=["layer", "metric", "value", "n_used", "status"])
    return Result({"layer_metrics": frame.astype({"layer": "Int64"})})
