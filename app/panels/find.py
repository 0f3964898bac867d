"""Panels over all latents of an SAE: those that a search finds, and those that tell two texts apart."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from app.figures.latent_population import density_histogram, difference_bars
from app.panels.latent import SAE
from app.panels.latents import latents_call, latents_of, outside_sinks, read_with
from app.panels.pairs import other_run
from app.panels.panel import Drawn, Option, Place, panel
from app.sae_index import STATES, Indexed, fires_on, indexed, sae_info, states
from app.view import Gap, View
from probes.errors import BadRequest

__all__ = ["COLUMNS", "apart", "found_latents", "read_other"]

COLUMNS = (
    "latent", "label", "state", "density", "n_fired", "max", "mean", "precision", "recall", "encoder_cosine",
)  # fmt: skip
_SHOWN = 20
_LOWEST = 12
_SEARCH = {
    **SAE,
    "token": Option(str, "find-token"),
    "label": Option(str, "find-label"),
    "state": Option(tuple(STATES), "find-state"),
    "density": Option(list, "find-density"),
}


@panel("find-latents", "find", "How often latents fire", "How many fire never, rarely, or nearly everywhere?",
       ("latent", "Finding latents"), options=_SEARCH)  # fmt: skip
def search(
    view: View, sae: str = "", token: str = "", label: str = "", state: str = "all", density: Sequence[float] = ()
) -> Drawn:
    index = indexed(view, sae)
    table = found_latents(index, token, label, state, density)
    latents = index.latents
    chosen = latents["latent"].isin(table["latent"]).to_numpy()
    figure = density_histogram(latents["density"].to_numpy(dtype=float), chosen)
    note = f"{len(table):,} of {len(latents):,} latents, over {index.n_tokens:,} tokens."
    return Drawn(figure, note=note, csv=table)


@panel("find-apart", "find", "Here, not there", "Which latents fire on this text but not on the other?",
       ("latent", "Here, not there"), options={**SAE, "b": Option(str)})  # fmt: skip
def here_not_there(view: View, sae: str = "", b: str = "") -> Drawn:
    table = apart(view, sae, b)
    try:
        labels = indexed(view, sae).labels()
    except Gap:
        labels = {}
    rows = table[table["difference"] > 0].head(_SHOWN)
    if rows.empty:
        raise Gap("No latent is stronger here than in the other text.")
    place = Place(y="latent", rows=[int(latent) for latent in rows["latent"]])
    table = table.assign(label=[labels.get(int(latent), "") for latent in table["latent"]])
    note = "0 means not among the strongest latents of any token that is no sink."
    return Drawn(difference_bars(rows, labels), note=note, csv=table, place=place)


def found_latents(
    index: Indexed, token: str = "", label: str = "", state: str = "all", density: Sequence[float] = ()
) -> pd.DataFrame:
    """The latents that fit everything asked for, by number: the columns `COLUMNS`.

    Args:
        index: where to search.
        token: text that a token contains on which the latent fires (:func:`app.sae_index.fires_on`).
        label: text its label contains; case does not count.
        state: one of `STATES`.
        density: lowest and highest share of tokens it fires on, as powers of ten.

    Raises BadRequest for a range that is no two numbers.
    """
    latents, labels = index.latents, index.labels()
    table = latents.assign(
        label=latents["latent"].map(labels).fillna("").astype(str), state=states(latents, index.n_tokens)
    )
    keep = _in_state(table, state) & _within(table["density"].to_numpy(dtype=float), density)
    if label.strip():
        keep &= table["label"].str.casefold().str.contains(label.strip().casefold(), regex=False).to_numpy(dtype=bool)
    if token:
        keep &= table["latent"].isin(fires_on(index, token)).to_numpy()
    return table.loc[keep, list(COLUMNS)].reset_index(drop=True)


def read_other(view: View, sae: str, b: str) -> View:
    """The other run, read with the same SAE. Raises Gap if it is not stored, was not read, or is of another model."""
    info, other = sae_info(view, sae), other_run(view, b)
    if other.facts.fingerprint != view.facts.fingerprint:
        raise Gap("The other run is of another model.")
    beside = View(view.services, other, view.selection, view.answers)
    own = beside.table("latents")
    if not own.empty and str(own["sae"].iloc[0]) == info.name:
        return beside
    return beside.beside(beside.answer(latents_call(info.name)))


def apart(view: View, sae: str, b: str) -> pd.DataFrame:
    """Latents of two runs by the difference of their largest activations outside sinks, greatest first.

    Columns ``latent, a, b, difference``; 0 where it is not among the strongest latents kept of any such token. Raises
    Gap as :func:`read_other` does.
    """
    peaks = [_peaks(one) for one in (read_with(view, sae), read_other(view, sae, b))]
    both: pd.DataFrame = pd.concat(peaks, axis=1, keys=["a", "b"]).fillna(0.0)
    table = both.rename_axis("latent").reset_index()
    table["difference"] = table["a"] - table["b"]
    return table.sort_values(["difference", "latent"], ascending=[False, True]).reset_index(drop=True)


def _peaks(read: View) -> Any:
    rows = latents_of(read)
    kept = rows[outside_sinks(read)[0][rows["pos"].to_numpy(dtype=int)]]
    return kept.groupby("latent")["activation"].max()


def _in_state(table: pd.DataFrame, state: str) -> Any:
    if state == "all":
        return np.ones(len(table), dtype=bool)
    silent = (table["n_fired"] == 0).to_numpy()
    asked = {
        "fires": ~silent,
        "never": silent,
        "dense": table["state"] == "dense",
        "rare": table["state"] == "ultra-rare",
    }
    return np.asarray(asked[state], dtype=bool)


def _within(density: Any, ends: Sequence[float]) -> Any:
    if not len(ends):
        return np.ones(len(density), dtype=bool)
    if len(ends) != 2 or not all(isinstance(end, int | float) and -_LOWEST <= end <= 0 for end in ends):
        raise BadRequest(f"density must be two powers of ten from {-_LOWEST} to 0, such as [-3, -1].")
    low, high = (10.0 ** float(end) for end in ends)
    return (density >= low * (1 - 1e-12)) & (density <= high * (1 + 1e-12))
