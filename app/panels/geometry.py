"""Panels of geometry: dimensions, neighbours and cosines of a run's tokens, beside the same tokens in another order."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from analysis.neighbours import FEW_TOKENS, MIN_TOKENS
from app.figures.geometry import (
    COSINES,
    OVERLAPS,
    cosine_lines,
    dimension_lines,
    metric_rows,
    overlap_lines,
    overlap_map,
    scale_lines,
)
from app.geometry import ORDERS, of_run, shuffled
from app.panels.panel import POINT, Drawn, Option, Place, panel
from app.view import Gap, View
from probes.errors import BadRequest

__all__ = ["SHUFFLES"]

SHUFFLES = {"full": "all tokens shuffled", "blocks": "four blocks shuffled", "none": "none"}
_SHUFFLE = {"shuffle": Option(tuple(SHUFFLES), "geometry-shuffle")}


@panel("geometry-dimension", "geometry", "Intrinsic dimension", "How many dimensions do the tokens fill at each point?",
       ("geometry", "Intrinsic dimension"), ("geometry", "The shuffle control"), options=_SHUFFLE)  # fmt: skip
def dimension(view: View, shuffle: str = "full") -> Drawn:
    beside = of_run(view)
    layers = beside.table("layer_metrics")
    rows = metric_rows(layers, ["id_gride@no_sink"])
    if rows["value"].isna().all():
        raise Gap(_few(rows))
    bands = _bands(view, shuffle)
    metrics = ["id_gride@no_sink", "id_gride_error@no_sink", "id_gride", "id_twonn@no_sink", "id_microscope@no_sink"]
    metrics += ["duplicates@no_sink"]
    return Drawn(
        dimension_lines(layers, bands, view.facts.n_layers),
        note=" ".join([*_counted(rows), *_repeated(layers), *_difference(rows, bands)]),
        csv=metric_rows(layers, metrics),
        place=POINT,
    )


@panel("geometry-scale", "geometry", "Dimension by scale", "Is there one dimension, or does it depend on how far one looks?",
       ("geometry", "Dimension by scale"), options=_SHUFFLE)  # fmt: skip
def scale(view: View, shuffle: str = "full") -> Drawn:
    point, layers = view.selection.point, of_run(view).table("layer_metrics")
    rows = layers[(layers["layer"] == point) & layers["metric"].str.match(r"gride_k\d+.*@no_sink$")]
    if rows["value"].isna().all():
        raise Gap(f"Point {point}: {_few(rows)}")
    known = rows[rows["metric"].str.match(r"gride_k\d+@no_sink$")]
    missing = known.loc[known["value"].isna(), "metric"].str.extract(r"k(\d+)")[0]
    note = f"No value at k = {', '.join(missing)}: 2k is more than the other tokens." if len(missing) else None
    return Drawn(
        scale_lines(layers, _bands(view, shuffle), point), f"Dimension by scale, point {point}", note=note, csv=rows
    )


@panel("geometry-overlap", "geometry", "Neighbours kept", "Do tokens keep their neighbours from point to point?",
       ("geometry", "Neighbourhood overlap"), options=_SHUFFLE)  # fmt: skip
def kept(view: View, shuffle: str = "full") -> Drawn:
    layers = of_run(view).table("layer_metrics")
    metrics = [f"{name}{end}@no_sink" for name in OVERLAPS for end in ("", "_chance")]
    rows = metric_rows(layers, metrics)
    if rows["value"].isna().all():
        raise Gap(_few(rows))
    own, first = (_n_used(layers, f"overlap_{name}@no_sink") for name in ("output", "input"))
    note = f"Neighbours among {own:,} tokens without sinks."
    if first < own:
        note += (
            f" With the embeddings, only among the {first:,} that are distinct there: repeated tokens are one point."
        )
    if metric_rows(layers, ["overlap_input@no_sink"])["value"].isna().all():
        note += f" Those are fewer than {MIN_TOKENS}: a gap."
    return Drawn(overlap_lines(layers, _bands(view, shuffle), view.facts.n_layers), note=note, csv=rows, place=POINT)


@panel("geometry-matrix", "geometry", "Overlap of all pairs of points", "Which points see the same neighbours?",
       ("geometry", "Neighbourhood overlap"))  # fmt: skip
def matrix(view: View) -> Drawn:
    beside = of_run(view)
    tensor = beside.kept("overlap@no_sink")
    if tensor is None:
        raise Gap("This matrix is no longer kept: measure the geometry again to see it.")
    values = tensor.numpy()
    if np.isnan(values).all():
        raise Gap(_few(metric_rows(beside.table("layer_metrics"), ["overlap_output@no_sink"])))
    y, x = np.indices(values.shape).reshape(2, -1)
    return Drawn(
        beside.figure("geometry-matrix", lambda: overlap_map(values)),
        csv=lambda: pd.DataFrame({"point": y, "other": x, "overlap": values.ravel()}),
        place=Place("point", "point"),
        pick=lambda click: {"point": round(float(click.y))},
    )


@panel("geometry-cosine", "geometry", "Mean pairwise cosine", "Do all tokens point one way, and is it more than their mean?",
       ("geometry", "Cosine and anisotropy"), options=_SHUFFLE)  # fmt: skip
def cosine(view: View, shuffle: str = "full") -> Drawn:
    layers = of_run(view).table("layer_metrics")
    spectra = view.table("layer_metrics")
    both = pd.concat([layers, spectra[spectra["metric"] == "anisotropy@raw_no_sink"]]) if len(spectra) else layers
    rows = metric_rows(both, list(COSINES))
    if rows["value"].isna().all():
        raise Gap("There are fewer than two tokens to compare.")
    return Drawn(cosine_lines(both, _bands(view, shuffle), view.facts.n_layers), csv=rows, place=POINT)


def _bands(view: View, shuffle: str) -> Mapping[str, pd.DataFrame]:
    """The band of the shuffled text, by its name; none where it was not run or is not wanted."""
    if shuffle not in ORDERS:
        return {}
    try:
        band = shuffled(view, shuffle)
    except BadRequest:
        return {}
    return {} if band.empty else {SHUFFLES[shuffle]: band}


def _few(rows: pd.DataFrame) -> str:
    """Why there is no dimension and no overlap."""
    statuses, n = set(rows["status"]), int(rows["n_used"].max())
    if statuses == {"rank_deficient"}:
        return f"More than a fifth of the tokens repeat another exactly; {n:,} are distinct."
    return f"{n:,} distinct tokens without sinks: distances take {MIN_TOKENS}, and {FEW_TOKENS} to be trusted."


def _counted(rows: pd.DataFrame) -> list[str]:
    n = int(rows["n_used"].max())
    few = "" if n >= FEW_TOKENS else f", fewer than {FEW_TOKENS}: low confidence (open marks)"
    return [f"{n:,} tokens without sinks{few}. Bars are one standard error, which takes tokens for independent."]


def _repeated(layers: pd.DataFrame) -> list[str]:
    """Where so many tokens are the same that there is no dimension."""
    gaps = metric_rows(layers, ["id_gride@no_sink"])
    gaps = gaps[gaps["status"] == "rank_deficient"]
    counts = metric_rows(layers, ["duplicates@no_sink"]).set_index("layer")
    said = [
        f"At point {layer} {int(counts['value'][layer]):,} of {int(counts['n_used'][layer]):,} tokens repeat another exactly: "
        "more than a fifth, so no dimension."
        for layer in gaps["layer"]
    ]
    many = [f"At {len(said)} points more than a fifth of the tokens repeat another exactly."]
    return said if len(said) <= 2 else many


def _difference(rows: pd.DataFrame, bands: Mapping[str, pd.DataFrame]) -> list[str]:
    """The peak of the text against that of the shuffled one, with the 95 % interval over the shuffles."""
    said = []
    for name, band in bands.items():
        null = band[band["metric"] == "id_gride@no_sink"].set_index("layer")
        real = rows.set_index("layer")["value"].reindex(null.index).dropna()
        if real.empty:
            continue
        peak = int(real.idxmax())
        there = null.loc[peak]
        said.append(
            f"At its peak, point {peak}: {real[peak]:.1f} in the text, {there['mean']:.1f} with {name}, "
            f"{there['mean'] - real[peak]:+.1f} ± {there['margin']:.1f} (95 %, {int(there['seeds'])} shuffles)."
        )
    return said


def _n_used(layers: pd.DataFrame, metric: str) -> int:
    """The most tokens that any point of a metric rests on, but those pairs that hold the embeddings."""
    rows = metric_rows(layers, [metric])
    inner = rows[rows["layer"] > 0]
    return int(inner["n_used"].max()) if len(inner) else 0
