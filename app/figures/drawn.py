"""The numbers of a figure, read back from it: for figures that one builder draws of many different tables."""

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from app.figures.scales import numbers

__all__ = ["drawn_table"]

_COLUMNS = ["trace", "x", "y", "value"]


def drawn_table(fig: go.Figure) -> pd.DataFrame:
    """Every mark of lines, bars and dots, and every cell of heatmaps: ``trace, x, y``, and the ``value`` of a cell.

    Cells without a number are left out, and so are marks without a place.
    """
    frames = []
    for trace in fig.data:
        if trace.type == "heatmap":
            values = numbers(trace.z)
            y, x = (
                given if given.size else np.arange(count, dtype=float)
                for given, count in zip((numbers(trace.y), numbers(trace.x)), values.shape, strict=True)
            )
            rows, columns = np.nonzero(np.isfinite(values))
            frame = pd.DataFrame({"x": x[columns], "y": y[rows], "value": values[rows, columns]})
        elif trace.type in ("scatter", "bar") and np.size(trace.x) == np.size(trace.y):
            frame = pd.DataFrame({"x": np.asarray(trace.x), "y": np.asarray(trace.y)}).dropna().assign(value=np.nan)
        else:
            continue
        frames.append(frame.assign(trace=trace.name or "")[_COLUMNS])
    kept = [frame for frame in frames if len(frame)]
    return pd.concat(kept, ignore_index=True) if kept else pd.DataFrame(columns=_COLUMNS)
