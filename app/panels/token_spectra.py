"""Panels of alpha along the text: the maps, how alike points move, and whether they jump at boundaries."""

import numpy as np
import pandas as pd

from analysis.cascade import Cascade, cascade
from analysis.punctuation import PunctuationTest, boundaries, punctuation
from app.figures.token_spectra import correlation_map, lift_by_layer, rho_curve, token_map
from app.panels.panel import CELL, POINT, Drawn, Option, Place, panel
from app.view import Gap, View
from probes.request import ProbeCall
from probes.respond import response_start
from probes.token_spectra import WINDOW

__all__ = ["OVER", "ROWS", "alpha_grid", "cascade_call", "first_token", "marks", "windows_call"]

ROWS = {"normed": "normed rows", "raw": "raw rows"}
OVER = {"response": "of the response", "text": "of the whole text"}
_OPTIONS = {"window": Option(int, "windows-w"), "rows": Option(tuple(ROWS), "windows-rows")}
_CASCADE = {**_OPTIONS, "over": Option(tuple(OVER), "windows-over")}
_REFUSED = {
    "too_few_tokens": "{n} windows are too few: a cascade needs 24.",
    "not_applicable": "Fewer than 6 points have windows enough: there is no distance to speak of.",
    "rank_deficient": "Fewer than 6 points move at all along this text.",
}


def windows_call(window: int, rows: str) -> ProbeCall:
    """The question whose answer holds alpha of every window."""
    return ProbeCall("token_spectra", {"window": window, "rows": rows})


def cascade_call(view: View, window: int, rows: str, over: str) -> ProbeCall:
    """The question whose answer holds the cascade and its nulls."""
    return ProbeCall("cascade", {"window": window, "rows": rows, "start": first_token(view, over)})


def first_token(view: View, over: str) -> int:
    """The first token whose window counts: the start of the response, or of the text where there is none."""
    start = response_start(view.info.request)
    return start if over == "response" and start is not None else 0


def marks(view: View) -> np.ndarray:
    """Which tokens begin a boundary of the text."""
    found: np.ndarray = view.memo("boundaries", lambda: boundaries(view.tokens))
    return found


def alpha_grid(view: View, window: int, rows: str) -> np.ndarray:
    """Alpha [points, tokens], NaN where it is missing. Raises Gap where it was not asked for."""
    read = view.beside(view.answer(windows_call(window, rows)))

    def build() -> np.ndarray:
        frame = read.metric("token_metrics", "token_alpha")
        grid = np.full((view.facts.n_layers + 1, len(view.tokens)), np.nan)
        grid[frame["layer"].to_numpy(dtype=int), frame["pos"].to_numpy(dtype=int)] = frame["value"].to_numpy(float)
        return grid

    grid: np.ndarray = read.memo("alpha grid", build)
    return grid


@panel(
    "windows-alpha",
    "token_spectra",
    "Alpha along the text",
    "Where do the latest tokens spread over fewer directions?",
    ("token-spectra", "Alpha along the text"),
    options=_OPTIONS,
)
def alpha_map(view: View, window: int = WINDOW, rows: str = "normed") -> Drawn:
    return _map(view, "token_alpha", window, rows)


@panel(
    "windows-step",
    "token_spectra",
    "Steps of alpha",
    "Where does it jump, and at which points together?",
    ("token-spectra", "Steps of alpha"),
    options=_OPTIONS,
)
def step_map(view: View, window: int = WINDOW, rows: str = "normed") -> Drawn:
    return _map(view, "token_alpha_step", window, rows)


@panel(
    "windows-cascade",
    "token_spectra",
    "Cascade",
    "How far apart are points that still move together, and is that more than their states share anyway?",
    ("token-spectra", "Cascade"),
    options=_CASCADE,
)
def rho(view: View, window: int = WINDOW, rows: str = "normed", over: str = "response") -> Drawn:
    read = view.beside(view.answer(cascade_call(view, window, rows, over)))
    table = read.table("layer_metrics")
    alone = table[table["layer"].isna()].set_index("metric")
    status = str(table.loc[table["metric"] == "cascade_rho", "status"].iloc[0])
    n = int(alone.loc["cascade_rate", "n_used"])
    if status in _REFUSED and table.loc[table["metric"] == "cascade_rho", "value"].isna().all():
        raise Gap(_REFUSED[status].format(n=n))
    figure = read.figure("windows-cascade", lambda: rho_curve(table, view.facts.n_layers))
    return Drawn(figure, f"Cascade {OVER[over] if first_token(view, over) else OVER['text']}", note=_lengths(alone, n),
                 csv=table)  # fmt: skip


@panel(
    "windows-matrix",
    "token_spectra",
    "Which points move together",
    "Is it distance alone, or are there groups of layers?",
    ("token-spectra", "Cascade"),
    options=_CASCADE,
)
def matrix(view: View, window: int = WINDOW, rows: str = "normed", over: str = "response") -> Drawn:
    start, grid = first_token(view, over), alpha_grid(view, window, rows)
    key = (window, rows, start)
    found: Cascade = view.memo(("cascade", key), lambda: cascade(grid, start))
    if found.status != "ok":
        raise Gap(_REFUSED[found.status].format(n=found.n_windows))
    figure = view.figure("windows-matrix", lambda: correlation_map(found.correlation), key)
    return Drawn(figure, csv=lambda: _pairs(found), place=Place("point", "point"))


@panel(
    "windows-boundaries",
    "token_spectra",
    "Jumps at boundaries",
    "Do points jump where a sentence, a step or a clause begins or ends?",
    ("token-spectra", "Jumps at boundaries"),
    options=_OPTIONS,
)
def at_boundaries(view: View, window: int = WINDOW, rows: str = "normed") -> Drawn:
    grid, key = alpha_grid(view, window, rows), (window, rows)
    found: PunctuationTest = view.memo(("punctuation", key), lambda: punctuation([grid], [marks(view)]))
    if found.table["status"].ne("ok").all():
        raise Gap(
            "No point has an event that could fall on a boundary or beside it: the text is too short or too even."
        )
    figure = view.figure("windows-boundaries", lambda: lift_by_layer(found.table, view.facts.n_layers), key)
    return Drawn(figure, note=_together(found), csv=found.table, place=POINT)


def _map(view: View, metric: str, window: int, rows: str) -> Drawn:
    read = view.beside(view.answer(windows_call(window, rows)))
    frame = read.metric("token_metrics", metric)
    first, tokens = view.sight()
    start = response_start(view.info.request)
    figure = read.figure(
        f"windows-{metric}",
        lambda: token_map(frame, tokens, view.facts.n_layers, first=first, boundaries=np.flatnonzero(marks(view)).tolist(),
                          start=start),
        first,
    )  # fmt: skip
    note = f"Windows of {window} tokens, {ROWS[rows]}, centred; none before token {window - 1}."
    return Drawn(figure, note=note, csv=frame, place=CELL)


def _lengths(alone: pd.DataFrame, n: int) -> str:
    """The lengths of text and walks, and how well the fit does."""
    names = ("cascade_rate", "cascade_rate_turned", "cascade_rate_walk")
    rates = [float(alone["value"].get(name, np.nan)) for name in names]
    own, turned, walk = (
        "undefined" if np.isnan(rate) else "no decay" if rate == 0 else f"{1 / rate:.1f}" for rate in rates
    )
    r2 = float(alone["value"].get("cascade_r2", np.nan))
    said = "" if np.isnan(r2) else f"; R² of the fit {r2:.2f}"
    return (
        f"tau {own} points, of updates turned at random {turned}, of the random walk {walk}{said}. {n} windows of one text: an "
        "interval needs several."
    )


def _together(found: PunctuationTest) -> str:
    row = found.overall
    return (
        f"All points together: {int(row['events'])} events, {row['hit_rate']:.0%} within 2 tokens of a boundary, as are "
        f"{row['base_rate']:.0%} of all tokens: lift {row['lift']:.2f}, p {row['p']:.3f} by 1000 circular shifts."
    )


def _pairs(found: Cascade) -> pd.DataFrame:
    x, y = np.triu_indices(len(found.correlation), 1)
    return pd.DataFrame({"point": x, "other": y, "correlation": found.correlation[x, y]})
