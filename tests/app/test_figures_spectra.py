"""What the spectral figures draw, from tables and spectra made by hand."""

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest

from analysis.alpha import WINDOWS, fit_spectrum
from analysis.heavy_tail import alpha_tail
from analysis.marchenko_pastur import mp_fit
from analysis.specification import specification
from analysis.spectrum import Spectrum
from app.figures.specification import specification_curve
from app.figures.spectra import eigenvalue_histogram, rank_plot, slope_plot, tail_plot
from app.figures.spectra_layers import METRICS, PREPARATIONS, by_layer, directions_by_layer
from app.figures.weights import tails_by_block, weight_ranks

POWER = Spectrum(10 * np.arange(1, 201.0) ** -0.7, 201, 300)
NULL = np.stack([np.full(210, level) for level in (2.0, 1.5, 2.5, 2.6)])
NULL[:, 205:] = np.nan
LIMIT = 2_000_000


def metrics(name: str, values: list[float], status: str = "ok") -> pd.DataFrame:
    statuses = [status if np.isfinite(value) else "too_few_tokens" for value in values]
    columns = {"layer": range(len(values)), "metric": name, "value": values, "n_used": 258, "status": statuses}
    return pd.DataFrame(columns).sample(frac=1, random_state=0)


def trace(fig: go.Figure, name: str) -> go.Scatter:
    found = [trace for trace in fig.data if trace.name is not None and trace.name.startswith(name)]
    assert len(found) == 1, [trace.name for trace in fig.data]
    return found[0]


def test_the_rank_plot_is_logarithmic_and_its_line_lies_on_a_power_law() -> None:
    fig = rank_plot(POWER.s, fit_spectrum(POWER, "11_100"))
    assert (fig.layout.xaxis.type, fig.layout.yaxis.type) == ("log", "log")
    points, line = trace(fig, "singular values"), trace(fig, "alpha 0.700")
    np.testing.assert_allclose(points.y, POWER.s, rtol=1e-6)
    assert points.customdata[-1] == pytest.approx(1)
    assert points.customdata[0] == pytest.approx(POWER.s[0] ** 2 / (POWER.s**2).sum())
    assert "1.4000 (eigenvalues)<br>R² 1.000 over ranks 11-100" in line.hovertemplate
    np.testing.assert_allclose(line.x, [11, 100])
    np.testing.assert_allclose(line.y, POWER.s[[10, 99]])
    assert (fig.layout.shapes[0].x0, fig.layout.shapes[0].x1) == (11, 100)


def test_the_null_is_a_grey_band_with_its_level_cut_where_it_ends() -> None:
    fig = rank_plot(POWER.s, fit_spectrum(POWER), NULL)
    band = next(trace for trace in fig.data if trace.fill == "tonexty")
    assert band.y.tolist() == [1.5] * 205
    assert trace(fig, "columns permuted").y.tolist() == [2.0] * 205
    np.testing.assert_allclose(trace(fig, "99 % level").y, 2.6)


def test_without_a_fit_there_is_no_line_and_no_shade() -> None:
    fig = rank_plot(POWER.s[:3], fit_spectrum(Spectrum(POWER.s[:3], 4, 300)))
    assert len(fig.data) == 1
    assert not fig.layout.shapes


def test_local_slopes_of_a_power_law_are_one_level_with_the_fit() -> None:
    fig = slope_plot(POWER.s, fit_spectrum(POWER, "lowrank"), NULL)
    np.testing.assert_allclose(trace(fig, "local alpha").y, 0.7, rtol=1e-5)
    assert trace(fig, "fit over ranks 1-100").y.tolist() == pytest.approx([0.7, 0.7])
    np.testing.assert_allclose(trace(fig, "columns permuted").y, 0, atol=1e-6)


def test_alpha_by_layer_has_a_line_for_each_preparation_and_both_nulls() -> None:
    suffixes = ("", "@raw_all", "@raw_no_bos", "@raw_no_sink")
    frames = [metrics(f"alpha_sigma{suffix}", [0.5 + i, 1.0, np.nan]) for i, suffix in enumerate(suffixes)]
    frames += [metrics("alpha_null", [0.4, 0.4, 0.4]), metrics("alpha_null_iid", [0.3, 0.3, 0.3])]
    fig = by_layer(pd.concat(frames), "alpha_sigma", 2, nulls=True)
    assert [line.name for line in fig.data] == [*PREPARATIONS.values(), "columns permuted", "iid Gaussian"]
    assert fig.data[1].x.tolist() == [0, 1, 2]
    np.testing.assert_allclose(fig.data[1].y, [1.5, 1.0, np.nan])
    assert fig.data[0].customdata.tolist() == [258] * 3
    assert "singular values" in fig.layout.yaxis.title.text
    assert fig.layout.xaxis.range == (-0.5, 2.5)


def test_a_metric_that_was_not_asked_for_draws_no_line_and_low_confidence_an_open_marker() -> None:
    frame = pd.concat(
        [metrics("stable_rank", [2.0, 3.0], "low_confidence"), metrics("stable_rank@raw_all", [np.nan, np.nan])]
    )
    fig = by_layer(frame, "stable_rank", 1)
    assert [line.name for line in fig.data] == ["normed"]
    assert list(fig.data[0].marker.symbol) == ["circle-open", "circle-open"]


def test_the_collapse_is_marked_and_every_metric_has_a_title() -> None:
    fig = by_layer(metrics("matrix_entropy", [4.0, 2.0]), "matrix_entropy", 1, event=(1, "collapse"))
    assert fig.layout.shapes[0].x0 == 1
    assert fig.layout.annotations[0].xanchor == "right"
    assert fig.layout.annotations[0].text == "collapse"
    for metric in METRICS:
        assert by_layer(metrics(metric, [1.0, 2.0]), metric, 1).data
    with pytest.raises(KeyError):
        by_layer(metrics("nll", [1.0]), "nll", 1)


def test_directions_count_parallel_analysis_and_outliers_of_each_point() -> None:
    rows = pd.concat([metrics("n_parallel", [3.0, 0.0, 1.0]), metrics("n_mp_outliers", [2.0, np.nan, 1.0])])
    fig = directions_by_layer(rows, 2)
    assert trace(fig, "parallel analysis").y.tolist() == [3, 0, 1]
    np.testing.assert_array_equal(trace(fig, "Marchenko-Pastur").y, [2, np.nan, 1], "where no law applies is a gap")


def test_the_specification_curve_has_every_convention_twice_and_says_how_to_open_it() -> None:
    curve = specification({"normed": POWER, "raw_all": Spectrum(POWER.s[:50] ** 2, 201, 300)})
    fig = specification_curve(curve)
    top = [trace for trace in fig.data if trace.yaxis == "y"]
    assert [trace.name for trace in top] == ["normed", "raw, all tokens"]
    shown = {(x, tuple(told[:3])) for trace in top for x, told in zip(trace.x, trace.customdata, strict=True)}
    assert shown == {(i, (row.prep, row.window, row.estimator)) for i, row in enumerate(curve.itertuples())}
    assert len(fig.data) == 2 * 4
    labels = dict(zip(fig.layout.yaxis2.tickvals, fig.layout.yaxis2.ticktext, strict=True))
    windows = fig.data[2]
    first = curve[curve["prep"] == "normed"].iloc[0]
    assert labels[windows.y[0]] == WINDOWS[first["window"]]
    assert list(top[0].marker.symbol).count("star") == 1


def test_an_undefined_convention_is_a_gap_with_its_reason() -> None:
    fig = specification_curve(specification({"normed": Spectrum(POWER.s[:30], 31, 300)}))
    told = {tuple(row[:3]): row[3] for row in fig.data[0].customdata}
    assert told["normed", "11_100", "slope"] == "undefined: not applicable"
    assert np.isnan(fig.data[0].y[-1])


def test_the_histogram_counts_all_eigenvalues_and_the_law_expects_the_bulk() -> None:
    x = np.random.default_rng(0).standard_normal((400, 200))
    x[:, :20] += 2 * np.random.default_rng(1).standard_normal((400, 1))
    eigenvalues = np.linalg.eigvalsh(np.corrcoef(x.T))[::-1].copy()
    fit = mp_fit(eigenvalues, 400, 200)
    assert fit.n_outliers == 1
    fig = eigenvalue_histogram(eigenvalues, fit)
    assert sum(trace(fig, "eigenvalues").y) == 200
    law = trace(fig, "Marchenko-Pastur").y
    assert law.sum() == pytest.approx(200 - fit.n_outliers, abs=1)
    ticks = trace(fig, "1 outlier")
    np.testing.assert_allclose(10 ** np.asarray(ticks.x), eigenvalues[: fit.n_outliers])
    assert ticks.customdata[0, 2] == pytest.approx(eigenvalues[0] / fit.upper)
    assert [note.text for note in fig.layout.annotations] == ["edge", "lower edge"]


def test_without_a_law_the_histogram_stands_alone() -> None:
    eigenvalues = np.arange(10.0, 0, -1)
    fig = eigenvalue_histogram(eigenvalues, mp_fit(eigenvalues, 11, 40))
    assert len(fig.data) == 1
    assert not fig.layout.shapes


def test_the_tail_line_starts_at_x_min_on_the_share_of_the_tail() -> None:
    values = np.random.default_rng(0).pareto(1.5, 500) + 1
    fit = alpha_tail(values)
    fig = tail_plot(values, fit)
    line = trace(fig, f"tail exponent {fit.alpha:.2f} ± {fit.sigma:.2f}, {fit.n_tail} of 500")
    assert (line.x[0], line.y[0]) == (fit.xmin, fit.n_tail / 500)
    slope = np.log(line.y[1] / line.y[0]) / np.log(line.x[1] / line.x[0])
    assert slope == pytest.approx(1 - fit.alpha)
    assert len(tail_plot(np.ones(30), alpha_tail(np.ones(30))).data) == 1


def test_weight_spectra_are_relative_to_their_largest_and_labels_are_data() -> None:
    fig = weight_ranks({"attn.q": np.array([4.0, 2.0, 1.0]), "<b>x</b>": np.array([8.0, 1.0])})
    assert fig.data[0].y.tolist() == [1, 0.5, 0.25]
    assert fig.data[1].name == "&lt;b&gt;x&lt;/b&gt;"


def test_tails_stand_by_block_over_the_band() -> None:
    tails = pd.DataFrame(
        {
            "block": [1, 0, 0, 1],
            "matrix": ["attn.q", "attn.q", "mlp.in", "mlp.in"],
            "alpha": [3.0, 2.5, np.nan, 7.0],
            "sigma": 0.1,
            "n_tail": 40,
            "ks": 0.05,
        }
    )
    fig = tails_by_block(tails, 2)
    assert (fig.layout.shapes[0].y0, fig.layout.shapes[0].y1) == (2, 6)
    assert (trace(fig, "attn.q").x.tolist(), trace(fig, "attn.q").y.tolist()) == ([0, 1], [2.5, 3.0])
    assert np.isnan(trace(fig, "mlp.in").y[0])
    assert fig.layout.xaxis.range == (-0.5, 1.5)


def test_figures_of_a_wide_model_stay_small() -> None:
    wide = Spectrum(np.arange(1, 4097.0) ** -0.5, 8192, 4096)
    null = np.stack([wide.s] * 4)
    for fig in (rank_plot(wide.s, fit_spectrum(wide), null), slope_plot(wide.s, fit_spectrum(wide), null)):
        assert len(fig.to_json()) < LIMIT
