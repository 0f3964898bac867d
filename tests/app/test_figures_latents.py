"""What the latent figures draw, from tables made by hand."""

import numpy as np
import pandas as pd
import pytest

from app.figures.latents import effect_bars, fit_by_token, latent_map, latent_trace, strongest, token_bars

TOKENS = ["<s>", " <b>x</b>", "\n", "$y$"]
NO_SINK = np.array([False, True, True, True])


@pytest.fixture
def latents() -> pd.DataFrame:
    rows = [(0, 9, 5000.0), (0, 2, 700.0), (1, 7, 3.0), (1, 2, 1.0), (2, 5, 8.0), (3, 7, 4.0), (3, 5, 2.0)]
    return pd.DataFrame(rows, columns=["pos", "latent", "activation"]).assign(sae="s", layer=3)


def test_strongest_ignores_sinks_and_follows_the_text(latents: pd.DataFrame) -> None:
    assert strongest(latents, NO_SINK) == [2, 5, 7]  # peaks at tokens 1, 2 and 3; latent 9 fires at the sink only
    assert strongest(latents, NO_SINK, limit=1) == [5]
    assert strongest(latents, np.zeros(4, dtype=bool), limit=2) == [2, 9]


def test_map_has_blanks_and_colours_that_end_outside_sinks(latents: pd.DataFrame) -> None:
    fig = latent_map(latents, [2, 5, 7], TOKENS, NO_SINK)
    heatmap = fig.data[0]
    expected = [[700, 1, np.nan, np.nan], [np.nan, np.nan, 8, 2], [np.nan, 3, np.nan, 4]]
    np.testing.assert_array_equal(heatmap.z, np.array(expected, dtype="float32"))
    assert heatmap.zmax == 8
    assert heatmap.hoverongaps is False
    assert fig.layout.yaxis.ticktext == ("2", "5", "7")
    assert fig.layout.xaxis.ticktext[1] == "·&lt;b&gt;x&lt;/b&gt;"
    assert fig.layout.xaxis99.ticktext[1] == "1 ·&lt;b&gt;x&lt;/b&gt;"
    assert fig.layout.yaxis99.ticktext == ("latent 2", "latent 5", "latent 7")


def test_map_of_a_stretch_of_the_text_keeps_positions(latents: pd.DataFrame) -> None:
    heatmap = latent_map(latents, [7, 5], TOKENS[2:], NO_SINK, first=2).data[0]
    assert heatmap.x.tolist() == [2, 3]
    np.testing.assert_array_equal(heatmap.z, np.array([[np.nan, 4], [8, 2]], dtype="float32"))


def test_bars_of_a_token_are_strongest_first(latents: pd.DataFrame) -> None:
    fig = token_bars(latents, 3)
    assert fig.data[0].customdata.tolist() == [7, 5]
    assert fig.data[0].x.tolist() == [4, 2]
    assert fig.layout.yaxis.ticktext == ("7", "5")


def test_trace_sets_sinks_apart_and_scales_to_the_rest(latents: pd.DataFrame) -> None:
    fig = latent_trace(latents, 2, TOKENS, NO_SINK)
    rest, sinks = fig.data
    assert rest.x.tolist() == [1, 2, 3]
    np.testing.assert_array_equal(rest.y, np.array([1, np.nan, np.nan], dtype="float32"))
    assert sinks.y.tolist() == [700]
    assert fig.layout.yaxis.range[1] == pytest.approx(1.05)
    assert "&lt;b&gt;" in rest.customdata[0]


def test_fit_clips_what_is_below_the_edge_and_tells_it_on_hover() -> None:
    values = [-40_000.0, 0.8, 0.6, -0.2]
    explained = pd.DataFrame({"pos": range(4), "metric": "sae_explained_variance", "value": values})
    active = pd.DataFrame({"pos": range(4), "metric": "sae_l0", "value": [32.0, 30, 31, 32]})
    fig = fit_by_token(pd.concat([explained, active]), TOKENS, NO_SINK)
    kept, kept_l0, sink, sink_l0 = fig.data
    assert kept.y.tolist() == pytest.approx([0.8, 0.6, -0.2])
    assert kept.marker.symbol.tolist() == ["circle"] * 3
    assert sink.y.tolist() == pytest.approx([-0.3])
    assert sink.marker.symbol.tolist() == ["triangle-down"]
    assert "-4e+04" in sink.customdata[0]
    assert kept_l0.y.tolist() == [30, 31, 32]
    assert sink_l0.y.tolist() == [32]


def test_fit_without_explained_variance_still_shows_l0() -> None:
    explained = pd.DataFrame({"pos": range(4), "metric": "sae_explained_variance", "value": np.nan})
    active = pd.DataFrame({"pos": range(4), "metric": "sae_l0", "value": [32.0, 30, 31, 32]})
    fig = fit_by_token(pd.concat([explained, active]), TOKENS, NO_SINK)
    assert np.isnan(fig.data[0].y).all()
    assert fig.data[1].y.tolist() == [30, 31, 32]


def test_effects_are_literal_on_both_sides() -> None:
    fig = effect_bars([("<b>", 2.0), ("$x$", 1.0)], [("\n", -3.0)])
    promoted, suppressed = fig.data
    assert promoted.customdata.tolist() == ["&lt;b&gt;", "&#36;x&#36;"]
    assert promoted.x.tolist() == [2, 1]
    assert suppressed.customdata.tolist() == ["⏎"]
    assert [note.text for note in fig.layout.annotations] == ["promotes", "suppresses"]


def test_figures_keep_arrays(latents: pd.DataFrame) -> None:
    for fig in (latent_map(latents, [2], TOKENS, NO_SINK), latent_trace(latents, 2, TOKENS, NO_SINK)):
        trace = fig.data[0]
        assert isinstance(trace.z if trace.type == "heatmap" else trace.y, np.ndarray)
