"""Prompts that stand out from their own group: what to look at first in a heatmap of layers by prompts."""

from typing import Final

import numpy as np
import pandas as pd
from jaxtyping import Float64

from analysis.descriptors import MAD_TO_SD

__all__ = ["OUTLYING", "outlier_prompts", "robust_z"]

OUTLYING: Final = 3.5
"""Robust z above which a prompt is called an outlier (Iglewicz and Hoaglin 1993)."""


def robust_z(values: Float64[np.ndarray, "prompts layers"]) -> Float64[np.ndarray, "prompts layers"]:
    """(value - median) / (1.4826 MAD) over the prompts, layer by layer; NaN where undefined or half are equal."""
    z = np.full(values.shape, np.nan)
    for layer, column in enumerate(values.T):
        defined = np.isfinite(column)
        if defined.sum() < 3:
            continue
        middle = np.median(column[defined])
        spread = MAD_TO_SD * np.median(np.abs(column[defined] - middle))
        if spread > 0:
            z[defined, layer] = (column[defined] - middle) / spread
    return z


def outlier_prompts(values: Float64[np.ndarray, "prompts layers"]) -> pd.DataFrame:
    """Prompts of one group, the farthest out first: prompt (row), layer and z of its largest |z|, layers_out (|z| > 3.5),
    outlier.

    ``outlier``: at least one layer is out. A prompt without any z comes last, with layer missing.
    """
    z = robust_z(values)
    size = np.where(np.isnan(z), -1.0, np.abs(z))
    at = size.argmax(axis=1)
    rows = np.arange(len(values))
    out = (size > OUTLYING).sum(axis=1)
    has = size[rows, at] >= 0
    table = pd.DataFrame({"prompt": rows, "layer": pd.array(at, dtype="Int64"), "z": z[rows, at], "layers_out": out})
    table.loc[~has, "layer"] = pd.NA
    table["outlier"] = out > 0
    return table.iloc[np.argsort(-size[rows, at], kind="stable")].reset_index(drop=True)
