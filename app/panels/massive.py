"""Panels of massive activations: how large, from when to when, written by what; and dimensions that are always large."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.massive import CRITERIA as _FLAGS
from analysis.massive import life_spans
from app.figures.magnitudes import magnitude_map, magnitude_surface, map_dimensions, surface_dimensions
from app.figures.massive import life_lines, origin_bars, rogue_dimensions, rogue_map, top_values
from app.panels.panel import POINT, Click, Drawn, Option, Place, panel
from app.text import markdown, visible
from app.view import Gap, View

__all__ = ["CRITERIA", "DRAWINGS", "spans", "written"]

CRITERIA = {name: name for name in _FLAGS}
DRAWINGS = {"surface": "surface", "log surface": "log surface", "map": "map"}
_SURFACE_TOKENS = 128
_NOT_ASKED = "This run did not ask for massive activations."
_GONE = "This tensor is no longer kept: run the text again to see it."


def spans(view: View, criterion: str) -> pd.DataFrame:
    """From when to when each entry is massive by a criterion. Raises Gap for a run that did not look."""
    massive = _massive(view)
    found: pd.DataFrame = view.memo(
        ("spans", criterion), lambda: life_spans(massive, view.facts.n_layers + 1, criterion)
    )
    return found


@panel(
    "massive-top",
    "massive",
    "Largest entries by point",
    "How large is the largest entry, beside the median and beside tokens that are no sinks?",
    ("massive", "Largest entries by point"),
)
def top(view: View) -> Drawn:
    massive, layers = _massive(view), view.table("layer_metrics")
    rows = layers if layers.empty else layers[layers["metric"].str.startswith("massive_")]
    if rows.empty:
        raise Gap(_NOT_ASKED)
    figure = view.figure("massive-top", lambda: top_values(rows, massive, view.tokens, view.facts.n_layers))
    return Drawn(figure, csv=massive, place=POINT)


@panel(
    "massive-lives",
    "massive",
    "Birth and death",
    "From which point to which is an entry massive?",
    ("massive", "Birth, death and writers"),
    options={"criterion": Option(tuple(CRITERIA), "massive-criterion")},
)
def lives(view: View, criterion: str = "strict") -> Drawn:
    found = spans(view, criterion)
    if found.empty:
        raise Gap(f"No entry is massive by the {criterion} criterion in this run.")
    figure = view.figure("massive-lives", lambda: life_lines(found, view.tokens, view.facts.n_layers), criterion)
    return Drawn(figure, f"Birth and death, {criterion}", csv=found, place=POINT, pick=_life)


@panel(
    "massive-writers",
    "massive",
    "Writers",
    "Did attention or the MLP write it, and which neurons?",
    ("massive", "Birth, death and writers"),
)
def writers(view: View) -> Drawn:
    _massive(view)
    events = view.table("massive_events")
    if events.empty:
        raise Gap("Nothing was born in this run, so nothing was written.")
    event = _event(view, events)
    pos, dim, birth = (int(event[name]) for name in ("pos", "dim", "birth"))
    where = f"position {pos} {markdown(visible(view.tokens[pos]))}, dimension {dim}"
    if birth == 0:
        raise Gap(f"The entry at {where} is in the embeddings: no block wrote it.")
    block, neurons = birth - 1, view.table("massive_neurons")
    if neurons.empty:
        neurons = pd.DataFrame(columns=["pos", "dim", "layer", "neuron", "contribution"])
    mine = neurons[(neurons["pos"] == pos) & (neurons["dim"] == dim) & (neurons["layer"] == block)]
    return Drawn(
        view.figure("massive-writers", lambda: origin_bars(event, mine), pos, dim, block),
        f"Writers of the entry at {where}, born in block {block}",
        csv=lambda: written(event, mine),
        pick=lambda click: {"point": birth, "position": pos, "dimension": dim},
    )


@panel(
    "massive-rogue",
    "massive",
    "Rogue dimensions",
    "Which dimensions are large at every token?",
    ("massive", "Rogue dimensions"),
)
def rogue(view: View) -> Drawn:
    _massive(view)
    share, mean, sd = (view.kept(f"rogue_{name}") for name in ("share", "mean", "sd"))
    if share is None or mean is None or sd is None:
        raise Gap(_GONE)
    if share.isnan().all():
        raise Gap("Fewer than two tokens are no sinks, or the median is 0: shares cannot be given.")
    shares, means, sds = share.numpy(), mean.numpy(), sd.numpy()

    def numbers() -> pd.DataFrame:
        point, dim = np.indices(shares.shape).reshape(2, -1)
        return pd.DataFrame(
            {"point": point, "dim": dim, "share": shares.ravel(), "mean": means.ravel(), "sd": sds.ravel()}
        )

    figure = view.figure("massive-rogue", lambda: rogue_map(shares, means, sds))
    return Drawn(figure, csv=numbers, place=Place("point", "dimension", _whole(rogue_dimensions(shares))))


@panel(
    "massive-entries-map",
    "massive",
    "All entries of one point",
    "Where do the large entries sit?",
    ("massive", "One point, entry by entry"),
    options={"drawing": Option(tuple(DRAWINGS), "massive-drawing")},
)
def entries(view: View, drawing: str = "surface") -> Drawn:
    point, flat = view.selection.point, drawing == "map"
    resid = view.kept(f"resid.{point}")
    if resid is None:
        raise Gap(_GONE)
    first, tokens = view.sight() if flat else view.sight(_SURFACE_TOKENS)
    H = resid[first : first + len(tokens)].numpy()
    dims = map_dimensions(H) if flat else surface_dimensions(H)
    figure = view.figure(
        "massive-entries-map",
        lambda: (
            magnitude_map(H, tokens, first=first)
            if flat
            else magnitude_surface(H, first=first, log=drawing == "log surface")
        ),
        *(point, first, drawing),
    )
    return Drawn(
        figure,
        f"All entries of point {point}",
        note=None if len(tokens) == len(view.tokens) else f"Positions {first} to {first + len(tokens) - 1}.",
        csv=lambda: _values(H, dims, first),
        place=Place("position", "dimension", _whole(dims)) if flat else None,
    )


def _massive(view: View) -> pd.DataFrame:
    massive = view.table("massive")
    if massive.empty:
        raise Gap(_NOT_ASKED)
    return massive


def _event(view: View, events: pd.DataFrame) -> pd.Series:
    """The birth at the selected position and dimension, in the selected dimension, or the largest of all."""
    chosen = view.selection
    by_size = events.assign(size=events[["attn_delta", "mlp_delta"]].abs().sum(axis=1))
    by_size = by_size.sort_values("size", ascending=False)
    same_dim = by_size[by_size["dim"] == chosen.dimension] if chosen.dimension is not None else by_size.iloc[:0]
    same_entry = same_dim[same_dim["pos"] == chosen.position]
    return next(rows.iloc[0] for rows in (same_entry, same_dim, by_size) if len(rows))


def written(event: pd.Series, neurons: pd.DataFrame) -> pd.DataFrame:
    """What attention, the MLP and its neurons added to one entry."""
    sublayers = pd.DataFrame({"part": ["attention", "MLP"], "added": [event["attn_delta"], event["mlp_delta"]]})
    by_neuron = pd.DataFrame({"part": "neuron", "neuron": neurons["neuron"], "added": neurons["contribution"]})
    table = pd.concat([sublayers, by_neuron.astype({"added": float})], ignore_index=True)
    where = {"pos": int(event["pos"]), "dim": int(event["dim"]), "layer": int(event["birth"]) - 1}
    return table.assign(**where)[[*where, "part", "neuron", "added"]].astype({"neuron": "Int64"})


def _values(H: NDArray[np.floating], dims: NDArray[np.integer], first: int) -> pd.DataFrame:
    pos, dim = np.meshgrid(np.arange(first, first + len(H)), dims, indexing="ij")
    return pd.DataFrame({"pos": pos.ravel(), "dim": dim.ravel(), "value": H[:, dims].ravel()})


def _whole(dims: NDArray[np.integer]) -> tuple[int, ...]:
    return tuple(int(dim) for dim in dims)


def _life(click: Click) -> dict[str, int | None]:
    pos, dim = click.customdata
    return {"point": round(click.x), "position": int(pos), "dimension": int(dim)}
