"""The probe of contextual recall on a tiny model: what the analysis says of the stacked texts."""

import numpy as np
import pytest

from analysis.contextual_recall import frequent_tokens, mean_precision, position_features, window_targets
from probes.errors import BadRequest
from probes.model.loaded import LoadedModel
from probes.probe import Context
from probes.progress import Progress
from probes.recall import Params, run
from tests import tiny
from tests.probes.captured import capture_of
from tests.probes.test_geometry import LONG


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    return tiny.loaded("llama")


def test_a_gain_is_over_the_position_and_the_shown_text_is_left_out(model: LoadedModel) -> None:
    corpus = {str(start): capture_of(model, LONG[start : start + 90]) for start in range(12)}
    shown = capture_of(model)
    context = Context("all", {}, Progress(), (corpus | {"itself": shown}).__getitem__)
    rows = (
        run(shown, Params((*corpus, "itself")), context).tables["layer_metrics"].set_index(["layer", "metric"])["value"]
    )
    captures = list(corpus.values())
    keep = np.concatenate([one.mask("no_sink").numpy() for one in captures])
    text = np.concatenate([np.full(one.n_tokens, place) for place, one in enumerate(captures)])
    ids = np.concatenate([one.token_ids.numpy() for one in captures])
    position = np.concatenate([np.arange(one.n_tokens) for one in captures])[keep]
    targets = window_targets(ids, text, frequent_tokens(ids[keep], text[keep]))[keep]
    states = np.concatenate([one.resid(2).numpy() for one in captures])[keep].astype(np.float64)
    expected = mean_precision(states, targets, text[keep]).value
    assert rows[(2, "context_recall@no_sink")] == pytest.approx(expected, rel=1e-9)
    baseline = mean_precision(position_features(position), targets, text[keep]).value
    assert rows[(2, "context_recall_gain@no_sink")] == pytest.approx(expected - baseline, rel=1e-9)
    assert rows.notna().all()


def test_a_corpus_of_the_text_alone_is_refused(model: LoadedModel) -> None:
    shown = capture_of(model)
    with pytest.raises(BadRequest, match="recall needs other texts than the shown one"):
        run(shown, Params(("itself",)), Context("all", {}, Progress(), lambda _: shown))
