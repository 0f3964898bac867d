"""A figure as a picture file: PNG, SVG or PDF, drawn by kaleido in a Chromium that is kept between calls."""

import json
from typing import Any

import plotly.graph_objects as go

from app.report.chromium import PictureError
from app.report.kept import Kept

__all__ = ["FORMATS", "SEEN", "PictureError", "close", "picture", "specification"]

FORMATS = ("png", "svg", "pdf")
SEEN = {"light": ("#ffffff", "#1a1f24"), "dark": ("#12161b", "#e6e9ec")}
"""Ground and text colour of each theme: a page gives figures its own, a picture has to bring them."""

_FONT = "'Source Sans 3', 'Source Sans Pro', 'Open Sans', 'Helvetica Neue', Arial, 'Liberation Sans', sans-serif"
_HEIGHT = 420
_MARGIN = 14
_SCALE = 2  # of PNG: 1800 pixels for 900
_KEPT = Kept(within=25.0)


def picture(fig: go.Figure, suffix: str, *, theme: str = "light", width: int = 900, height: int | None = None) -> bytes:
    """The figure as a file of a suffix of `FORMATS`, ``width`` by ``height`` pixels (by default as high as it says).

    ``theme`` is light or dark. The first call starts a Chromium (3 s), later ones take 0.3 s; any thread may call.

    Raises PictureError, within 30 s, where Chromium is missing, hangs or fails; ValueError for another suffix.
    """
    if suffix not in FORMATS:
        raise ValueError(f"suffix must be one of {', '.join(FORMATS)}, not {suffix!r}")
    spec = specification(fig, theme)
    size = {"width": width, "height": int(height or spec["layout"].get("height") or _HEIGHT)}
    spec["layout"] |= size
    opts = {"format": suffix, "scale": _SCALE if suffix == "png" else 1, **size}
    return _KEPT.draw(json.dumps({"fig": spec, "opts": opts}).encode())


def specification(fig: go.Figure, theme: str = "light") -> dict[str, Any]:
    """A copy of a figure as plain JSON that brings its ground, its text colour and its font."""
    spec: dict[str, Any] = json.loads(fig.to_json())
    ground, text = SEEN["dark" if theme == "dark" else "light"]
    layout = spec["layout"]
    layout |= {"paper_bgcolor": ground, "plot_bgcolor": ground}
    layout["font"] = {**layout.get("font", {}), "color": text, "family": _FONT}
    layout["margin"] = {**layout.get("margin", {}), **{side: _margin(layout, side) for side in "lrb"}}
    return spec


def _margin(layout: dict[str, Any], side: str) -> float:
    """A page has space around a figure; a picture ends where its numbers end."""
    return max(float(layout.get("margin", {}).get(side, 80)), _MARGIN)


def close() -> None:
    """End the browser that is kept for the next picture, if there is one."""
    _KEPT.close()
