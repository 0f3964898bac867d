"""One spectrum: its rank plot with its null, its local slopes, its tail, and its eigenvalues beside a reference law."""

import numpy as np
import plotly.graph_objects as go

from analysis.alpha import RankFit, local_slopes
from analysis.heavy_tail import TailFit
from analysis.marchenko_pastur import MPFit, mp_cdf
from app.figures.theme import CATEGORICAL, NULL_GREY, base, fade, mark

__all__ = ["eigenvalue_histogram", "rank_plot", "slope_plot", "tail_plot"]

_FIT = CATEGORICAL[5]
_HISTOGRAM_BINS = 60


def rank_plot(s: np.ndarray, fit: RankFit, null: np.ndarray | None = None) -> go.Figure:
    """Singular values by rank, both axes logarithmic, with the fitted line over its shaded ranks.

    Args:
        s: usable singular values, descending.
        fit: the fit to draw; one without a value draws no line.
        null: permuted singular values [mean, low, high, 99 % level; rank], drawn grey; NaN beyond their rank.
    """
    k = np.arange(1, s.size + 1)
    fig = go.Figure()
    if null is not None:
        _null_band(fig, null)
    share = np.cumsum(s**2) / np.sum(s**2)
    fig.add_scatter(
        x=k,
        y=s.astype("float32"),
        customdata=share.astype("float32"),
        mode="markers",
        name="singular values",
        marker={"size": 4, "color": CATEGORICAL[0]},
        hovertemplate="rank %{x}: s = %{y:.4g}<br>%{customdata:.2%} of the variance up to here<extra></extra>",
    )
    if np.isfinite(fit.alpha):
        ends = np.array([fit.kmin, fit.kmax], dtype=float)
        fig.add_scatter(
            x=ends, y=fit.predict(ends), mode="lines", name=f"alpha {fit.alpha:.3f}", line={"color": _FIT, "width": 2},
            hovertemplate=f"alpha {fit.alpha:.4f} (singular values), {fit.alpha_lambda:.4f} (eigenvalues)"
            f"<br>R² {fit.r2:.3f} over ranks {fit.kmin}-{fit.kmax}<extra></extra>",
        )  # fmt: skip
        fig.add_vrect(x0=fit.kmin, x1=fit.kmax, fillcolor=fade(_FIT, 0.07), line_width=0, layer="below")
    base(fig, height=360, x="rank k", y="singular value s<sub>k</sub>")
    fig.update_xaxes(type="log", dtick="D2")
    return fig.update_yaxes(type="log", dtick="D2", exponentformat="power")


def slope_plot(s: np.ndarray, fit: RankFit, null: np.ndarray | None = None) -> go.Figure:
    """Alpha in one octave around each rank: a power law is a horizontal line at the fitted alpha.

    ``null`` as in :func:`rank_plot`; its mean is drawn grey.
    """
    fig = go.Figure()
    if null is not None:
        mean = null[0][np.isfinite(null[0])]
        ranks, slopes = local_slopes(mean)
        fig.add_scatter(
            x=ranks, y=slopes.astype("float32"), mode="lines", name="columns permuted",
            line={"color": NULL_GREY, "width": 1.5}, hoverinfo="skip",
        )  # fmt: skip
    ranks, slopes = local_slopes(s)
    fig.add_scatter(
        x=ranks,
        y=slopes.astype("float32"),
        mode="lines",
        name="local alpha",
        line={"color": CATEGORICAL[0], "width": 2},
        hovertemplate="around rank %{x}: alpha %{y:.3f} (singular values)<extra></extra>",
    )
    if np.isfinite(fit.alpha):
        ends = np.array([fit.kmin, fit.kmax])
        line = {"color": _FIT, "width": 2}
        name = f"fit over ranks {fit.kmin}-{fit.kmax}"
        fig.add_scatter(x=ends, y=np.full(2, fit.alpha), mode="lines", name=name, line=line, hoverinfo="skip")
    base(fig, height=360, x="rank k", y="local alpha (singular values)")
    fig.update_xaxes(type="log", dtick="D2")
    return fig.update_yaxes(rangemode="tozero")


def eigenvalue_histogram(eigenvalues: np.ndarray, fit: MPFit) -> go.Figure:
    """Histogram of log10 eigenvalues of the correlation matrix with the Marchenko-Pastur law, its edges and outliers.

    The law is drawn as the count it expects in each bin of the eigenvalues that are no outliers.
    """
    logs = np.log10(eigenvalues)
    bins = np.linspace(logs.min(), logs.max() + 1e-9, _HISTOGRAM_BINS + 1)
    counts, _ = np.histogram(logs, bins)
    centres = (bins[:-1] + bins[1:]) / 2
    fig = go.Figure()
    fig.add_bar(
        x=centres, y=counts, width=np.diff(bins), name="eigenvalues",
        marker={"color": fade(CATEGORICAL[0], 0.55), "line": {"width": 0}},
        hovertemplate="%{y} eigenvalues around 10<sup>%{x:.2f}</sup><extra></extra>",
    )  # fmt: skip
    if fit.status == "ok":
        expected = np.diff(mp_cdf(10**bins, fit.gamma, fit.sigma2)) * (fit.n_used - fit.n_outliers)
        fig.add_scatter(
            x=centres, y=expected.astype("float32"), mode="lines", name="Marchenko-Pastur",
            line={"color": NULL_GREY, "width": 2}, hovertemplate="%{y:.1f} expected<extra></extra>",
        )  # fmt: skip
        outliers = eigenvalues[: fit.n_outliers]
        fig.add_scatter(
            x=np.log10(outliers),
            y=np.zeros(outliers.size),
            mode="markers",
            name=f"{fit.n_outliers} outlier{'' if fit.n_outliers == 1 else 's'}",
            marker={"symbol": "line-ns-open", "size": 14, "color": _FIT},
            customdata=np.column_stack([np.arange(1, outliers.size + 1), outliers, outliers / fit.upper]),
            hovertemplate="eigenvalue %{customdata[0]}: %{customdata[1]:.4g}<br>%{customdata[2]:.2f} times the edge"
            "<extra></extra>",
        )
    base(fig, height=340, x="log<sub>10</sub> eigenvalue of the correlation matrix", y="count")
    if fit.status == "ok":
        mark(fig, float(np.log10(fit.upper)), "edge")
        if fit.lower > 0:
            mark(fig, float(np.log10(fit.lower)), "lower edge")
    # Room for the labels of the edges between the plot and the legend.
    return fig.update_layout(bargap=0, margin={"t": 48}, legend={"y": 1.07})


def tail_plot(eigenvalues: np.ndarray, fit: TailFit) -> go.Figure:
    """Share of eigenvalues at least as large as x, both axes logarithmic, with the fitted tail from x_min on."""
    values = np.sort(eigenvalues)[::-1]
    share = np.arange(1, values.size + 1) / values.size
    fig = go.Figure()
    fig.add_scatter(
        x=values, y=share.astype("float32"), mode="markers", name="eigenvalues",
        marker={"size": 4, "color": CATEGORICAL[0]},
        hovertemplate="%{y:.2%} of the eigenvalues are at least %{x:.4g}<extra></extra>",
    )  # fmt: skip
    if fit.status == "ok":
        ends = np.array([fit.xmin, values[0]])
        name = f"tail exponent {fit.alpha:.2f} ± {fit.sigma:.2f}, {fit.n_tail} of {values.size}"
        law = fit.n_tail / values.size * (ends / fit.xmin) ** (1 - fit.alpha)
        fig.add_scatter(x=ends, y=law, mode="lines", name=name, line={"color": _FIT, "width": 2}, hoverinfo="skip")
    base(fig, height=340, x="eigenvalue", y="share at least as large")
    fig.update_xaxes(type="log", exponentformat="power")
    return fig.update_yaxes(type="log", exponentformat="power")


def _null_band(fig: go.Figure, null: np.ndarray) -> None:
    known = np.isfinite(null[0])
    mean, low, high, level = (row[known].astype("float32") for row in null)
    k = np.arange(1, mean.size + 1)
    edge = {"mode": "lines", "line": {"width": 0}, "hoverinfo": "skip", "showlegend": False}
    fig.add_scatter(x=k, y=high, **edge)
    fig.add_scatter(x=k, y=low, fill="tonexty", fillcolor=fade(NULL_GREY, 0.35), **edge)
    for y, name, dash in ((mean, "columns permuted", "solid"), (level, "99 % level", "dot")):
        fig.add_scatter(
            x=k, y=y, mode="lines", name=name, line={"color": NULL_GREY, "width": 1, "dash": dash},
            hovertemplate=f"rank %{{x}}: %{{y:.4g}} {name}<extra></extra>",
        )  # fmt: skip
