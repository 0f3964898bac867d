"""Spectra of the weight matrices of the model, whatever text the run has read."""

import pandas as pd

from analysis.heavy_tail import WEIGHT_BAND, alpha_tail
from app.components.explore import extra
from app.components.panel import panel
from app.components.plot_clicks import PlotClick
from app.components.reading import block_of
from app.components.view import View
from app.figures.weights import tails_by_block, weight_ranks
from app.methods import section
from app.state import select
from probes.request import ProbeCall

__all__ = ["tails", "weight_panels"]


def weight_panels(view: View) -> None:
    """The matrices of the selected block, then the tail exponents of all blocks, each computed once for a model."""
    block, n_layers = block_of(view), view.facts.n_layers
    every = extra(view, ProbeCall("weights"), label=f"Decompose the matrices of all {n_layers} blocks")
    if every is not None:
        table = view.memo("weight spectra", lambda: every.table("weight_spectra"))
    else:
        call = ProbeCall("weights", {"blocks": [block]})
        one = extra(view, call, label=f"Decompose the matrices of block {block}", auto=view.loaded)
        if one is None:
            return
        table = view.memo(("weight spectra", block), lambda: one.table("weight_spectra"))
    here = table[table["block"] == block].sort_values("k")
    spectra = {str(role): rows["singular_value"].to_numpy() for role, rows in here.groupby("matrix")}
    panel(
        "spectra-weights",
        f"Weight matrices of block {block}",
        "How fast do the singular values of each map fall off?",
        view.figure("spectra-weights", lambda: weight_ranks(spectra), block),
        note=_told(view.memo(("tails", block), lambda: tails(here))),
        how=section("spectra", "Weight matrices"),
        csv=here,
    )
    if every is None:
        return
    found = view.memo("weight tails", lambda: tails(table))
    panel(
        "spectra-weight-tails",
        "Tail exponents of all blocks",
        "Which matrices leave the band of 2 to 6?",
        view.figure("spectra-weight-tails", lambda: tails_by_block(found, n_layers)),
        how=section("spectra", "Weight matrices"),
        csv=found,
        on_click=_go_block,
        x=block,
    )


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


def _go_block(click: PlotClick) -> None:
    select(point=round(float(click.x)) + 1)
