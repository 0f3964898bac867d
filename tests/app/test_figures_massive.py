"""What the massive-activation figures draw, from tables made by hand."""

import numpy as np
import pandas as pd
import pytest

from app.figures.magnitudes import magnitude_map, magnitude_surface
from app.figures.massive import (
    entry_table,
    life_lines,
    origin_bars,
    rogue_map,
    top_values,
)

TOKENS = ["<b>x</b>", " a", "\n", "$y$"]


@pytest.fixture
def massive() -> pd.DataFrame:
    rows = [
        (0, 0, 3, -1.0, 0.1, 10.0, False, False, False),
        (0, 1, 2, 0.5, 0.1, 5.0, False, False, False),
        (1, 0, 3, -2000.0, 1.0, 2000.0, True, True, True),
        (1, 1, 7, 30.0, 1.0, 30.0, False, False, True),
        (2, 0, 3, -2400.0, 2.0, 1200.0, True, True, True),
        (2, 2, 7, 99.0, 2.0, 1e3, False, True, False),
    ]
    return pd.DataFrame(
        rows, columns=["layer", "pos", "dim", "value", "median", "ratio", "strict", "relative", "robust"]
    )


def layer_metrics(massive: pd.DataFrame) -> pd.DataFrame:
    parts = [massive.groupby("layer", as_index=False)["median"].first().rename(columns={"median": "value"})]
    parts[0]["metric"] = "massive_median"
    sizes = massive.assign(value=massive["value"].abs()).sort_values(["layer", "value"], ascending=[True, False])
    sizes["metric"] = "massive_top" + (sizes.groupby("layer").cumcount() + 1).astype(str)
    return pd.concat([*parts, sizes])[["layer", "metric", "value"]]


def test_top_values_name_sign_place_and_flag(massive):
    fig = top_values(layer_metrics(massive), massive, TOKENS, n_layers=2)
    by_name = {trace.name: trace for trace in fig.data}
    largest = by_name["largest"]
    assert largest.y.tolist() == [1, 2000, 2400]
    assert largest.marker.symbol == ("line-ew-open", "circle", "circle")
    assert by_name["second"].marker.symbol == ("line-ew-open", "diamond-open", "circle-open")
    assert largest.customdata[1] == (
        "-2,000 at position 0 &lt;b&gt;x&lt;/b&gt;, dimension 3<br>2,000 times the median, massive (strict)"
    )
    assert "by no criterion massive" in largest.customdata[0]
    assert by_name["strict: 100 and 1000 × median"].y.tolist() == [100, 1000, 2000]
    assert len(by_name["third"].x) == 0
    assert fig.layout.yaxis.type == "log"


def test_top_values_stand_beside_those_without_sinks(massive):
    others = pd.DataFrame({"layer": [0, 1, 2], "metric": "massive_top1@no_sink", "value": [0.5, 30.0, np.nan]})
    fig = top_values(pd.concat([layer_metrics(massive), others]), massive, TOKENS, n_layers=2)
    line = next(trace for trace in fig.data if trace.name == "largest without sinks")
    np.testing.assert_array_equal(line.y, np.array([0.5, 30, np.nan], dtype="float32"))


def test_top_values_without_a_listed_entry(massive):
    fig = top_values(layer_metrics(massive), massive[massive["layer"] > 0], TOKENS, n_layers=2)
    largest = next(trace for trace in fig.data if trace.name == "largest")
    assert largest.customdata[0] == "not listed"


def test_magnitudes_are_log10_with_zeros_as_gaps():
    H = np.array([[0.0, -100], [1, 10]])
    fig = magnitude_map(H, TOKENS[:2], first=8)
    np.testing.assert_allclose(fig.data[0].z, [[np.nan, 0], [2, 1]], rtol=1e-6)
    assert fig.layout.yaxis.range == (-0.5, 1.5), "plotly sees no dimension behind the hover's axes"
    assert fig.data[0].x.tolist() == [8, 9]
    assert fig.layout.yaxis99.ticktext == ("0", "1")
    assert fig.layout.xaxis99.ticktext == ("8 &lt;b&gt;x&lt;/b&gt;", "9 ·a")
    assert (fig.data[0].zmin, fig.data[0].zmax) == (0, pytest.approx(2, rel=1e-6))


def test_magnitudes_of_nothing_but_zeros():
    assert np.isnan(magnitude_map(np.zeros((2, 2)), TOKENS[:2]).data[0].z).all()


def test_the_surface_of_a_wide_model_keeps_the_largest_dimensions():
    H = np.random.default_rng(0).normal(size=(6, 4096))
    H[0, 3000] = 500
    surface = magnitude_surface(H).data[0]
    dims = surface.customdata[0]
    assert surface.z.shape == (6, 128)
    assert len(set(dims)) == 128
    assert set(np.argsort(np.abs(H).max(0))[-64:]) < set(dims)
    assert (np.diff(dims) > 0).all()
    np.testing.assert_allclose(surface.z, np.abs(H)[:, dims], rtol=1e-6)
    drawn = magnitude_map(H, TOKENS[:1] * 6)
    assert drawn.data[0].z.shape == (128, 6)
    assert drawn.layout.yaxis.title.text == "dimension (64 + 64 of 4096)"
    whole = magnitude_surface(H[:, :20], first=3, log=True).data[0]
    np.testing.assert_allclose(whole.z, np.log10(np.abs(H[:, :20])), rtol=1e-4, atol=1e-6)
    assert whole.y.tolist() == [3, 4, 5, 6, 7, 8]


def test_entry_table(massive):
    table = entry_table(massive, TOKENS)
    assert table.to_numpy().tolist() == [["<b>x</b>", 0, 3, 1, 2, -2400.0, 1200.0]]
    assert entry_table(massive, TOKENS, "relative")["dim"].tolist() == [3, 7]
    assert entry_table(massive.assign(strict=False), TOKENS).empty


def test_life_lines_end_before_the_death():
    events = pd.DataFrame({"pos": [0, 1, 0], "dim": [3, 7, 3], "birth": [1, 2, 5], "death": [4, 6, pd.NA]}).astype(
        "Int64"
    )
    fig = life_lines(events, TOKENS, n_layers=6)
    assert [trace.x.tolist() for trace in fig.data] == [[1, 2, 3], [2, 3, 4, 5], [5, 6]]
    assert [trace.y[0] for trace in fig.data] == [0, 1, 0]
    assert fig.data[1].customdata.tolist() == [[1, 7]] * 4
    assert [trace.marker.symbol[-1] for trace in fig.data] == ["x", "x", "triangle-right"]
    assert fig.data[0].marker.symbol == ("circle", "line-ew", "x")
    assert fig.layout.yaxis.ticktext[0] == "position 0 &lt;b&gt;x&lt;/b&gt;, dimension 3"


def test_an_entry_of_one_point_is_one_mark():
    events = pd.DataFrame({"pos": [0], "dim": [3], "birth": [2], "death": [3]}).astype("Int64")
    (trace,) = life_lines(events, TOKENS, n_layers=6).data
    assert (trace.x.tolist(), trace.marker.symbol) == ([2], ("x",))


def test_origin_shows_the_largest_neurons_first():
    event = pd.Series({"dim": 3, "birth": 12, "attn_delta": -1.0, "mlp_delta": 100.0})
    neurons = pd.DataFrame({"neuron": [4, 9], "contribution": [20.0, -75.0]})
    parts, writers = origin_bars(event, neurons).data
    assert parts.y.tolist() == [-1, 100]
    assert writers.x == ("9", "4")
    np.testing.assert_allclose(writers.customdata, [-0.75, 0.2], rtol=1e-6)
    silent = origin_bars(event.replace(100.0, 0.0), neurons).data[1]
    assert np.isnan(silent.customdata).all()


def test_rogue_map_shows_the_dimensions_with_the_largest_share():
    share = np.zeros((3, 20))
    share[:, 5], share[1, 2] = 1, 0.5
    fig = rogue_map(share, share + 7, share + 9, n_dims=2)
    assert fig.layout.yaxis99.ticktext == ("5", "2")
    assert fig.data[0].z.tolist() == [[1, 1, 1], [0, 0.5, 0]]
    assert fig.data[0].customdata[1, 1].tolist() == [7.5, 9.5, 2]
    assert np.isnan(rogue_map(share * np.nan, share, share).data[0].z).all()
