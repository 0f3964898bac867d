"""Panels of a response: its spectra against the prompt's, and alpha of the latest tokens as it grows."""

from collections import Counter

import numpy as np
import pandas as pd

from analysis.response_shift import shift_class
from app.figures.response import growth_lines, shift_lines
from app.panels.panel import POINT, POSITION, Drawn, Option, panel
from app.panels.token_spectra import ROWS, alpha_grid
from app.view import Gap, View
from probes.respond import response_start
from probes.token_spectra import WINDOW

__all__ = ["PAPER", "start_of"]

PAPER = {"equilibrium": "equilibrium", "flatter": "flatter (“expansion”)", "steeper": "steeper (“compression”)"}
"""Classes of a shift, with the words of arXiv 2604.15350 for one from prompt to response."""


def start_of(view: View) -> int:
    """The first token of the response. Raises Gap where the run has none."""
    start = response_start(view.info.request)
    if start is None:
        raise Gap("This run has no response: its text was given whole.")
    return start


@panel(
    "response-shift",
    "response",
    "From prompt to response",
    "At which points is the spectrum of the response flatter or steeper than the prompt's?",
    ("token-spectra", "From prompt to response"),
)
def shift(view: View) -> Drawn:
    start = start_of(view)
    rows = view.table("layer_metrics")
    rows = rows[rows["metric"].str.match(r"alpha_prompt|alpha_response_matched|response_shift")]
    n = int(rows.loc[rows["metric"] == "response_shift", "n_used"].max()) if len(rows) else 0
    if rows["value"].isna().all():
        raise Gap(f"The shorter side has {n} tokens that count: alpha needs 5.")
    figure = view.figure("response-shift", lambda: shift_lines(rows, view.facts.n_layers))
    return Drawn(figure, note=f"{_repeats(view, start, n)} {_classes(rows)}", csv=rows, place=POINT)


@panel(
    "response-growth",
    "response",
    "Alpha as the response grows",
    "Does the spectrum of the latest tokens change where the model begins to write?",
    ("token-spectra", "Alpha along the text"),
    options={"window": Option(int, "windows-w"), "rows": Option(tuple(ROWS), "windows-rows")},
)
def growth(view: View, window: int = WINDOW, rows: str = "normed") -> Drawn:
    start, grid = start_of(view), alpha_grid(view, window, rows)
    first, tokens = view.sight()
    point = view.selection.point
    figure = view.figure(
        "response-growth",
        lambda: growth_lines(grid, point, start, window, tokens, first=first),
        window, rows, point, first,
    )  # fmt: skip
    table = pd.DataFrame({"pos": np.arange(grid.shape[1]), "layer": point, "alpha": grid[point]})
    note = f"Windows of {window} tokens; those in the shaded stretch hold tokens of both sides."
    return Drawn(figure, note=note, csv=table, place=POSITION)


def _classes(rows: pd.DataFrame) -> str:
    """How many points shift which way, and what the interval is of."""
    values = rows.pivot_table(index="layer", columns="metric", values="value", dropna=False)
    ends = values.reindex(columns=[f"response_shift{end}" for end in ("", "_low", "_high")])
    classes: Counter[str | None] = Counter(shift_class(*map(float, row)) for row in ends.itertuples(index=False))
    told = ", ".join(f"{PAPER[name]} at {classes[name]}" for name in PAPER if classes[name])
    if not told:
        return "No class: both sides are one stretch, so there is no interval."
    return (
        f"{told} of {len(values)} points. The interval is of stretches of this one text; a class of the model needs a prompt "
        "set (`run --prompt-set NAME --generate N`)."
    )


def _repeats(view: View, start: int, n: int) -> str:
    """How much each side repeats itself, which alone makes a spectrum steeper."""
    shares = [len(set(side)) / len(side) for side in (view.tokens[:start][-n:], view.tokens[start:][:n])]
    return f"{n} tokens of each side, of which {shares[0]:.0%} of the prompt's and {shares[1]:.0%} of the response's differ."
