"""The layer metrics of SAEs as they are named now, whatever version of the probe wrote them. No streamlit."""

import pandas as pd

__all__ = ["sae_rows"]

_SINCE_2 = {"": "@all", "@no_sink": ""}


def sae_rows(layer_metrics: pd.DataFrame) -> pd.DataFrame:
    """The rows of ``sae_*``: plain without sinks and massive tokens, ``@all`` with them.

    Version 1 of the probe called the first ``@no_sink`` and left the second plain.
    """
    if layer_metrics.empty:
        return layer_metrics
    rows = layer_metrics[layer_metrics["metric"].str.startswith("sae_")]
    if not rows["metric"].str.endswith("@no_sink").any():
        return rows
    parts = rows["metric"].str.extract(r"^([^@]+)(.*)$")
    return rows.assign(metric=parts[0] + parts[1].map(lambda suffix: _SINCE_2.get(suffix, suffix)))
