"""The probe sinks on tiny models, and against what the embedded model is known to show."""

import numpy as np
import pandas as pd
import pytest
import torch

from probes import sinks
from probes.model.capture import Capture
from probes.model.loaded import LoadedModel
from probes.probe import Context, Result
from probes.progress import Cancelled, Progress
from probes.prompts import examples
from tests import tiny
from tests.probes.captured import CONTEXT, capture_of

COLUMNS = {
    "head_metrics": ["layer", "head", "metric", "value", "n_used", "status"],
    "position_head_metrics": ["layer", "head", "pos", "metric", "value"],
    "token_metrics": ["layer", "pos", "metric", "value", "n_used", "status"],
    "layer_metrics": ["layer", "metric", "value", "n_used", "status"],
}
# Sink heads of 9 by block, and mean a_0, computed with plain eager attention and numpy.
SINK_HEADS = [0] * 12 + [6, 8, 8, 6, 6, 9, 8, 6, 8, 7, 9, 9, 9, 8, 9, 7, 6, 4]
MEAN_SCORE = [
    0.0147, 0.0061, 0.0433, 0.1814, 0.1459, 0.1601, 0.1649, 0.1695, 0.1553, 0.1482,
    0.0183, 0.0081, 0.3592, 0.3947, 0.4755, 0.4329, 0.2931, 0.5284, 0.5904, 0.3938,
    0.6140, 0.4090, 0.4349, 0.6264, 0.6219, 0.5533, 0.5977, 0.4271, 0.4724, 0.3302,
]  # fmt: skip


@pytest.fixture(scope="module")
def llama() -> LoadedModel:
    return tiny.loaded("llama")


@pytest.fixture(scope="module")
def capture(llama: LoadedModel) -> Capture:
    return capture_of(llama)


@pytest.fixture(scope="module")
def result(capture: Capture) -> Result:
    return sinks.run(capture, sinks.Params(), CONTEXT)


def grid(result: Result, metric: str) -> np.ndarray:
    table = result.tables["head_metrics"]
    return table[table["metric"] == metric].pivot(index="layer", columns="head", values="value").to_numpy(dtype=float)


def rows(result: Result, table: str, metric: str) -> pd.DataFrame:
    frame = result.tables[table]
    return frame[frame["metric"] == metric]


def test_tables_have_the_columns_of_the_store(result: Result) -> None:
    assert {name: list(frame.columns) for name, frame in result.tables.items()} == COLUMNS
    assert set(result.tables) == set(sinks.spec.tables)


def test_head_metrics_are_of_the_attention_itself(capture: Capture, result: Result) -> None:
    n_tokens = capture.n_tokens
    harmonic = sum(1 / k for k in range(1, n_tokens + 1)) / n_tokens
    for block in range(3):
        pattern = capture.replay(block).pattern.double()
        score = pattern[:, :, 0].mean(dim=1).numpy()
        np.testing.assert_allclose(grid(result, "sink_score")[block], score, rtol=1e-5)
        np.testing.assert_allclose(grid(result, "sink_ratio")[block], score / harmonic, rtol=1e-5)
        entropy = -torch.xlogy(pattern, pattern).sum(-1).mean(-1).numpy()
        np.testing.assert_allclose(grid(result, "attn_entropy")[block], entropy, rtol=1e-4)
        values = capture.replay(block).values.double().abs().sum(-1)
        ratio = (values[:, 0] / values.quantile(0.5, dim=1)).numpy()
        np.testing.assert_allclose(grid(result, "value_norm_ratio")[block], ratio, rtol=1e-5)
    assert (grid(result, "is_sink") == (grid(result, "sink_score") > 0.3)).all()


def test_shares_stand_at_the_point_after_the_block(capture: Capture, result: Result) -> None:
    share = rows(result, "layer_metrics", "sink_share")
    assert share["layer"].tolist() == [1, 2, 3]
    np.testing.assert_allclose(share["value"], grid(result, "is_sink").mean(1))
    uniform = rows(result, "layer_metrics", "sink_uniform")["value"]
    np.testing.assert_allclose(uniform, capture.importance.uniform[:, 0])


def test_sink_heads_counts_heads_of_the_model_and_has_no_layer(capture: Capture, result: Result) -> None:
    counts = rows(result, "token_metrics", "sink_heads")
    assert counts["layer"].isna().all()
    assert counts["value"].iloc[0] == grid(result, "is_sink").sum()
    assert counts["value"].iloc[-7:].isna().all()
    assert not counts["value"].iloc[:-7].isna().any()
    assert counts["status"].iloc[[0, -1]].tolist() == ["ok", "too_few_tokens"]
    assert counts["n_used"].iloc[[0, -1]].tolist() == [12, 0]


def test_column_scores_of_every_key(capture: Capture, result: Result) -> None:
    table = result.tables["position_head_metrics"]
    row = table[(table["layer"] == 2) & (table["head"] == 1) & (table["pos"] == 40)]
    assert row["value"].tolist() == [capture.importance.a[2, 1, 40].item()]
    assert len(table) == 3 * 4 * capture.n_tokens


def test_cosines_of_every_point(capture: Capture, result: Result) -> None:
    states = capture.resid(2).double()
    cosine = torch.nn.functional.cosine_similarity(states, states[:1])
    raw = rows(result, "token_metrics", "bos_cosine_raw")
    np.testing.assert_allclose(raw.loc[raw["layer"] == 2, "value"], cosine, rtol=1e-9)
    assert raw["layer"].max() == 3
    assert {"bos_cosine_centred", "bos_cosine_nomassive"} < set(result.tables["token_metrics"]["metric"])


def test_notes_say_what_no_sink_leaves_out(result: Result) -> None:
    assert result.notes[0].startswith("The mask no_sink leaves out")
    assert "position 0" in result.notes[0]


@pytest.mark.parametrize("n_tokens", [1, 3])
def test_fewer_than_four_tokens_have_no_scores_but_cosines(llama: LoadedModel, n_tokens: int) -> None:
    result = sinks.run(capture_of(llama, token_ids=list(range(10, 10 + n_tokens))), sinks.Params(), CONTEXT)
    heads = result.tables["head_metrics"]
    assert heads["value"].isna().all()
    assert set(heads["status"]) == {"too_few_tokens"}
    raw = rows(result, "token_metrics", "bos_cosine_raw")
    assert raw.loc[raw["pos"] == 0, "value"].tolist() == pytest.approx([1.0] * 4)


def test_short_prompts_have_scores_but_no_flags(llama: LoadedModel) -> None:
    result = sinks.run(capture_of(llama, token_ids=list(range(10, 30))), sinks.Params(), CONTEXT)
    assert set(rows(result, "head_metrics", "sink_score")["status"]) == {"ok"}
    assert set(rows(result, "head_metrics", "is_sink")["status"]) == {"too_few_tokens"}
    assert rows(result, "layer_metrics", "sink_share")["value"].isna().all()
    assert rows(result, "token_metrics", "sink_heads")["value"].isna().all()


def test_long_prompts_keep_the_columns_of_sinks_alone(llama: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sinks, "_EVERY_POSITION", 50)
    capture = capture_of(llama)
    table = sinks.run(capture, sinks.Params(), CONTEXT).tables["position_head_metrics"]
    kept = sorted(set(table["pos"]))
    assert kept[0] == 0
    assert 12 <= len(table) == 12 * len(kept) < 12 * capture.n_tokens
    last = table[table["pos"] == kept[-1]]
    np.testing.assert_allclose(last["value"], capture.importance.a[:, :, kept[-1]].ravel())


def test_sliding_windows_count_the_queries_that_see_a_key() -> None:
    capture = capture_of(tiny.loaded("gemma2"))
    result = sinks.run(capture, sinks.Params(), CONTEXT)
    assert 16 in capture.model.facts.windows
    scores = rows(result, "head_metrics", "sink_score")
    assert set(scores["n_used"]) == {16, capture.n_tokens}
    for block, window in enumerate(capture.model.facts.windows):
        column = capture.replay(block).pattern[:, :window, 0].double().mean(dim=1)
        np.testing.assert_allclose(grid(result, "sink_score")[block], column, rtol=1e-5)


def test_can_be_cancelled(capture: Capture) -> None:
    with pytest.raises(Cancelled):
        sinks.run(capture, sinks.Params(), Context("all", {}, Progress(cancelled=lambda: True)))


@pytest.mark.model
def test_landmarks_of_the_embedded_model(embedded: LoadedModel) -> None:
    capture = capture_of(embedded, examples()[0].text)
    assert capture.n_tokens == 258
    result = sinks.run(capture, sinks.Params(), CONTEXT)
    assert grid(result, "is_sink").sum(1).tolist() == SINK_HEADS
    np.testing.assert_allclose(grid(result, "sink_score").mean(1), MEAN_SCORE, atol=6e-5)
    assert rows(result, "token_metrics", "sink_heads")["value"].iloc[0] == sum(SINK_HEADS)
    assert capture.masks.dropped == ((0, "position 0"),)
    assert grid(result, "value_norm_ratio")[12:].max() < 1
