"""The probe massive on a tiny model with a planted writer, and against what the embedded model is known to show."""

import jaxtyping
import numpy as np
import pandas as pd
import pytest
import torch

from probes import massive
from probes.model.capture import Capture
from probes.model.loaded import LoadedModel
from probes.probe import Result
from probes.prompts import examples
from tests import tiny
from tests.probes.captured import CONTEXT, capture_of

COLUMNS = {
    "massive": ["layer", "pos", "dim", "value", "median", "ratio", "strict", "relative", "robust"],
    "massive_events": ["pos", "dim", "birth", "death", "attn_delta", "mlp_delta"],
    "massive_neurons": ["pos", "dim", "layer", "neuron", "contribution"],
    "layer_metrics": ["layer", "metric", "value", "n_used", "status"],
}
# The largest entry by point and the median of |H|, computed from plain hidden states with numpy.
LARGEST = {
    0: (247, -1.07, 0.0694), 1: (247, -38.94, 0.5686), 6: (507, 754.05, 1.1643), 12: (507, 24926.2, 1.5899),
    15: (507, 24890.94, 1.9018), 18: (507, 24843.87, 2.7173), 24: (507, 24831.71, 6.1633), 28: (507, 24538.31, 10.3099),
    30: (507, 4426.66, 14.5838),
}  # fmt: skip
PLANTED_DIM, PLANTED_NEURON = 5, 7


@pytest.fixture(scope="module")
def writing() -> Capture:
    """A tiny model in whose block 1 one neuron writes a huge value to one dimension of every token."""
    model = tiny.loaded("llama")
    with torch.no_grad():
        model.hf.model.layers[1].mlp.down_proj.weight[PLANTED_DIM, PLANTED_NEURON] = 1e6
    return capture_of(model)


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parameters come from people: outside tests nothing checks their types before they do."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


@pytest.fixture(scope="module")
def result(writing: Capture) -> Result:
    return massive.run(writing, massive.Params(), CONTEXT)


def metric(result: Result, name: str) -> pd.DataFrame:
    table = result.tables["layer_metrics"]
    return table[table["metric"] == name].set_index("layer")


def test_tables_have_the_columns_of_the_store(result: Result) -> None:
    assert {name: list(frame.columns) for name, frame in result.tables.items()} == COLUMNS
    assert set(result.tables) == set(massive.spec.tables)


def test_the_planted_entries_are_born_in_their_block(writing: Capture, result: Result) -> None:
    events = result.tables["massive_events"]
    assert len(events) > 0
    assert set(events["dim"]) == {PLANTED_DIM}
    assert set(events["birth"]) == {2}
    assert events["death"].isna().all()
    entries = result.tables["massive"]
    strict = entries[entries["strict"] & (entries["layer"] == 2)]
    assert set(strict["dim"]) == {PLANTED_DIM}
    states = writing.resid(2)
    for row in strict.to_dict("records"):
        assert row["value"] == states[row["pos"], PLANTED_DIM].item()


def test_the_mlp_and_the_planted_neuron_wrote_them(writing: Capture, result: Result) -> None:
    events, neurons = result.tables["massive_events"], result.tables["massive_neurons"]
    assert (events["mlp_delta"].abs() > 100 * events["attn_delta"].abs()).all()
    grown = writing.resid(2) - writing.resid(1)
    added = [grown[pos, PLANTED_DIM].item() for pos in events["pos"]]
    np.testing.assert_allclose(events["attn_delta"] + events["mlp_delta"], added, rtol=1e-4)
    first = neurons.groupby("pos").first()
    assert set(first["neuron"]) == {PLANTED_NEURON}
    assert set(neurons["layer"]) == {1}
    np.testing.assert_allclose(first.loc[events["pos"], "contribution"], events["mlp_delta"], rtol=1e-3)
    assert neurons.groupby("pos").size().eq(10).all()
    assert result.notes == ()


def test_layer_metrics_are_the_largest_entries_and_the_median(writing: Capture, result: Result) -> None:
    for point in range(4):
        magnitude = writing.resid(point).abs().flatten()
        for rank, value in enumerate(magnitude.topk(3).values.tolist(), start=1):
            assert metric(result, f"massive_top{rank}").loc[point, "value"] == value
        assert metric(result, "massive_median").loc[point, "value"] == np.median(magnitude.numpy())
        kept = writing.resid(point)[writing.masks.no_sink].abs().max().item()
        assert metric(result, "massive_top1@no_sink").loc[point, "value"] == kept
    counts = result.tables["massive"].groupby("layer")["strict"].sum()
    assert metric(result, "massive_strict")["value"].tolist() == counts.tolist()


def test_rogue_tensors_are_of_every_point_and_dimension(writing: Capture, result: Result) -> None:
    share = result.tensors["rogue_share"]
    assert share.shape == result.tensors["rogue_mean"].shape == result.tensors["rogue_sd"].shape == (4, 32)
    assert share.dtype == torch.float32


def test_nothing_massive_says_how_large_the_largest_is() -> None:
    capture = capture_of(tiny.loaded("llama"))
    result = massive.run(capture, massive.Params(), CONTEXT)
    assert result.tables["massive_events"].empty
    assert list(result.tables["massive_neurons"].columns) == COLUMNS["massive_neurons"]
    assert result.notes[0].startswith("No entry is massive by the strict criterion; the largest is ")
    assert result.tables["massive"].groupby("layer").size().tolist() == [3, 3, 3, 3]


def test_entries_born_in_the_embeddings_have_no_writer() -> None:
    model = tiny.loaded("llama", hidden_size=64)
    with torch.no_grad():
        model.hf.model.embed_tokens.weight[20, 3] = 5e4
    capture = capture_of(model, token_ids=[1, 20, 30, 40])
    events = massive.run(capture, massive.Params(), CONTEXT).tables["massive_events"]
    born = events[(events["pos"] == 1) & (events["dim"] == 3)]
    assert born["birth"].tolist() == [0]
    assert born[["attn_delta", "mlp_delta"]].isna().all(axis=None)


@pytest.mark.parametrize("architecture", ["gpt2", "gemma2", "phi"])
def test_other_layouts_add_up(architecture: str) -> None:
    capture = capture_of(tiny.loaded(architecture))
    result = massive.run(capture, massive.Params(criterion="robust"), CONTEXT)
    events = result.tables["massive_events"]
    for row in events[events["birth"] > 0].to_dict("records"):
        before, after = capture.resid(row["birth"] - 1), capture.resid(row["birth"])
        grown = (after - before)[row["pos"], row["dim"]].item()
        assert row["attn_delta"] + row["mlp_delta"] == pytest.approx(grown, abs=1e-3)


@pytest.mark.parametrize("criterion", ["huge", "", None, 3])
@pytest.mark.usefixtures("unchecked")
def test_an_unknown_criterion(criterion: object) -> None:
    with pytest.raises(ValueError, match=r"massive\.criterion must be one of strict, relative, robust"):
        massive.Params(criterion=criterion)  # type: ignore[arg-type]


@pytest.mark.parametrize("n_neurons", [0, -1, 101, True, "9", 2.0, float("nan"), float("inf"), None])
@pytest.mark.usefixtures("unchecked")
def test_too_many_neurons(n_neurons: object) -> None:
    with pytest.raises(ValueError, match=r"massive\.n_neurons must be a whole number from 1 to 100"):
        massive.Params(n_neurons=n_neurons)  # type: ignore[arg-type]


@pytest.mark.model
def test_landmarks_of_the_embedded_model(embedded: LoadedModel) -> None:
    result = massive.run(capture_of(embedded, examples()[0].text), massive.Params(), CONTEXT)
    largest = result.tables["massive"].groupby("layer").first()
    for point, (dim, value, median) in LARGEST.items():
        row = largest.loc[point]
        assert (row["pos"], row["dim"]) == (0, dim)
        assert row["value"] == pytest.approx(value, rel=1e-3, abs=0.005)
        assert row["median"] == pytest.approx(median, rel=1e-3)
        assert metric(result, "massive_top1").loc[point, "value"] == abs(row["value"])
    events = result.tables["massive_events"].set_index("dim")
    assert events.loc[507, ["pos", "birth", "death"]].tolist() == [0, 12, 29]
    assert events.loc[507, "mlp_delta"] == pytest.approx(24881.6, rel=1e-3)
    neurons = result.tables["massive_neurons"]
    writers = neurons[neurons["dim"] == 507]
    assert set(writers["layer"]) == {11}
    assert writers["neuron"].tolist()[:4] == [1229, 1487, 1010, 357]
    np.testing.assert_allclose(writers["contribution"][:4], [18008.2, 6786.7, 14.0, 7.9], rtol=1e-2)
    np.testing.assert_allclose(writers["contribution"][:2], [18008.2, 6786.7], rtol=1e-3)
