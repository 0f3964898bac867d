"""All entries of one residual point: a map of tokens and dimensions, or the surface of a massive activation."""

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from app.figures.hover import HOVER_AXES, name_places, place_names
from app.figures.theme import NULL_GREY, SEQUENTIAL, base, token_axis

__all__ = ["magnitude_map", "magnitude_surface", "map_dimensions", "surface_dimensions"]

_N_DRAWN = 64
_WIDE = 1024


def magnitude_map(H: np.ndarray, tokens: Sequence[str], *, first: int = 0, dims: np.ndarray | None = None) -> go.Figure:
    """log10 |H| of one point, dimensions by tokens; colours start at a tenth of the median.

    ``H`` is [tokens, d_model] of the ``tokens`` from position ``first`` on. More than 1,024 dimensions are thinned out
    as in :func:`magnitude_surface`, unless ``dims`` says which to draw.
    """
    drawn, few = _drawn(H, _WIDE)
    dims = drawn if dims is None else dims
    positions = np.arange(first, first + len(tokens))
    z = _log(H[:, dims]).T
    lowest = float(np.nanmedian(z)) - 1 if np.isfinite(z).any() else None
    fig = go.Figure(
        go.Heatmap(
            x=positions,
            y=np.arange(len(dims)),
            z=z,
            zmin=lowest,
            zmax=None if lowest is None else float(np.nanmax(z)),
            colorscale=SEQUENTIAL,
            colorbar={"title": {"text": "log<sub>10</sub> |a|"}},
            hoverongaps=False,
            hovertemplate="position %{x}<br>dimension %{y}<br>log<sub>10</sub> |a| = %{z:.2f}<extra></extra>",
            **HOVER_AXES,
        )
    )
    base(fig, height=420, x="token", y=f"dimension{few}", legend=False)
    token_axis(fig, tokens, positions=positions.tolist())
    names = [str(dim) for dim in dims]
    step = max(1, -(-len(dims) // 24))
    places = np.arange(len(dims))
    ends = [-0.5, len(dims) - 0.5]
    fig.update_yaxes(tickmode="array", tickvals=places[::step], ticktext=names[::step], showgrid=False, range=ends)
    return name_places(fig, x=(positions, place_names(tokens, first)), y=(places, names))


def map_dimensions(H: np.ndarray) -> np.ndarray:
    """The dimensions that :func:`magnitude_map` draws, from below."""
    return _drawn(H, _WIDE)[0]


def surface_dimensions(H: np.ndarray) -> np.ndarray:
    """The dimensions that :func:`magnitude_surface` draws, in order."""
    return _drawn(H, 2 * _N_DRAWN)[0]


def magnitude_surface(H: np.ndarray, *, first: int = 0, log: bool = False) -> go.Figure:
    """|H| of one point as a surface over positions and dimensions; ``log`` draws log10.

    Of more than 128 dimensions the 64 with the largest entries and 64 others, drawn at random with a fixed seed, are
    shown, in order: the axis says so.
    """
    dims, few = _drawn(H, 2 * _N_DRAWN)
    title = "log<sub>10</sub> |a|" if log else "|a|"
    shown = H[:, dims]
    fig = go.Figure(
        go.Surface(
            x=np.arange(len(dims)),
            y=np.arange(first, first + len(H)),
            z=_log(shown) if log else np.abs(shown).astype("float32"),
            customdata=np.broadcast_to(dims.astype("int32"), shown.shape),
            colorscale=SEQUENTIAL,
            colorbar={"title": {"text": title}},
            hovertemplate="dimension %{customdata}<br>position %{y}<br>%{z:.4g}<extra></extra>",
        )
    )
    base(fig, height=460, legend=False)
    step = max(1, len(dims) // 12)
    axis = {"gridcolor": NULL_GREY, "backgroundcolor": "rgba(0,0,0,0)"}
    ticks = {"tickmode": "array", "tickvals": np.arange(len(dims))[::step], "ticktext": dims.astype(str)[::step]}
    fig.update_layout(
        scene={
            "xaxis": {**axis, **ticks, "title": {"text": f"dimension{few}"}},
            "yaxis": {**axis, "title": {"text": "position"}},
            "zaxis": {**axis, "title": {"text": title}},
            "camera": {"eye": {"x": -1.6, "y": -1.8, "z": 0.8}},
            "aspectmode": "manual",
            "aspectratio": {"x": 1.3, "y": 1.3, "z": 0.8},
        }
    )
    return fig


def _drawn(H: np.ndarray, limit: int) -> tuple[np.ndarray, str]:
    """All dimensions if they are at most ``limit``, otherwise the 64 largest and 64 others; and a word saying so."""
    n_dims = H.shape[1]
    if n_dims <= limit:
        return np.arange(n_dims), ""
    order = np.argsort(-np.abs(H).max(axis=0), kind="stable")
    others = np.random.default_rng(0).choice(order[_N_DRAWN:], _N_DRAWN, replace=False)
    return np.sort(np.concatenate([order[:_N_DRAWN], others])), f" ({_N_DRAWN} + {_N_DRAWN} of {n_dims})"


def _log(H: np.ndarray) -> np.ndarray:
    """log10 |H| with exact zeros as gaps."""
    size = np.abs(H).astype("float32")
    return np.log10(np.where(size > 0, size, np.nan)).astype("float32")
