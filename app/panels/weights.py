"""Panels of the spectra of the weight matrices of the model, whatever text the run has read."""

import pandas as pd

from analysis.heavy_tail import WEIGHT_BAND, alpha_tail
from app.figures.weights import tails_by_block, weight_ranks
from app.panels.panel import Drawn, Place, panel
from app.panels.reading import block_of
from app.view import View
from probes.request import ProbeCall

__all__ = ["ALL_BLOCKS", "block_call", "tails"]

ALL_BLOCKS = ProbeCall("weights")
"""The question whose answer holds the spectra of all blocks."""


@panel(
    "spectra-weights",
    "spectra",
    "Weight matrices of a block",
    "How fast do the singular values of each map fall off?",
    ("spectra", "Weight matrices"),
)
def matrices(view: View) -> Drawn:
    block, one = block_of(view), view.find(block_call(view))
    beside = view.beside(view.answer(ALL_BLOCKS) if one is None else one)
    table = beside.table("weight_spectra")
    here = table[table["block"] == block].sort_values("k")
    spectra = {str(role): rows["singular_value"].to_numpy() for role, rows in here.groupby("matrix")}
    return Drawn(
        beside.figure("spectra-weights", lambda: weight_ranks(spectra), block),
        f"Weight matrices of block {block}",
        note=_told(beside.memo(("tails", block), lambda: tails(here))),
        csv=here,
    )


@panel(
    "spectra-weight-tails",
    "spectra",
    "Tail exponents of all blocks",
    "Which matrices leave the band of 2 to 6?",
    ("spectra", "Weight matrices"),
)
def weight_tails(view: View) -> Drawn:
    beside = view.beside(view.answer(ALL_BLOCKS))
    found = beside.memo("weight tails", lambda: tails(beside.table("weight_spectra")))
    figure = beside.figure("spectra-weight-tails", lambda: tails_by_block(found, view.facts.n_layers))
    return Drawn(figure, csv=found, place=Place("block"))


def block_call(view: View) -> ProbeCall:
    """The question whose answer holds the spectra of the selected block."""
    return ProbeCall("weights", {"blocks": [block_of(view)]})


def tails(table: pd.DataFrame) -> pd.DataFrame:
    """The heavy-tail fit of every matrix: ``block, matrix, alpha, sigma, n_tail, ks, status``."""
    rows = []
    for (block, role), values in table.groupby(["block", "matrix"], sort=True)["singular_value"]:
        fit = alpha_tail(values.to_numpy(dtype="float64") ** 2)
        rows.append((block, role, fit.alpha, fit.sigma, fit.n_tail, fit.ks, fit.status))
    return pd.DataFrame(rows, columns=["block", "matrix", "alpha", "sigma", "n_tail", "ks", "status"])


def _told(found: pd.DataFrame) -> str:
    low, high = WEIGHT_BAND
    fitted = [
        f"`{row.matrix}` {row.alpha:.1f} ± {row.sigma:.1f}" + ("" if low <= row.alpha <= high else " (outside)")
        for row in found.dropna(subset=["alpha"]).itertuples()
    ]
    missing = [f"`{row.matrix}`" for row in found[found["alpha"].isna()].itertuples()]
    gap = f"; no tail could be fitted to {', '.join(missing)}" if missing else ""
    return f"Tail exponents (reported healthy band {low:g} to {high:g}): {', '.join(fitted) or 'none'}{gap}."
