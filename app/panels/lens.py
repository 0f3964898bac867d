"""Panels of the logit lens: the map, one position on its way to the answer, and all positions together."""

from typing import cast

import pandas as pd
import plotly.graph_objects as go

from app.figures.lens import COLOURS, lens_map
from app.figures.lens_lines import SUFFIX, Variant, layer_curves, rank_lines, trajectories
from app.panels.panel import CELL, POINT, Drawn, Option, panel
from app.view import Gap, View
from probes.request import ProbeCall

__all__ = ["LENS", "SHORT", "TAIL", "VARIANTS", "lens_call", "of_variant", "position_rows", "read_lens", "window"]

SHORT = 300
"""Tokens up to which a text is read whole."""
VARIANTS = {"mean": "mean-corrected", "raw": "raw", "no_norm": "without final norm", "tuned": "tuned", "tail": "tail"}
TAIL = 2
"""Blocks of the tail lens to begin with, as Huginn's coda has."""
_WINDOW = 256  # positions of a longer text read at once
_SETTLING = {
    "lens_depth": "settled at point",
    "lens_first_nat": "below 1 nat from point",
    "lens_monotonicity": "monotone",
    "lens_convergence": "rate",
    "lens_ce_area": "area (nats)",
}
LENS = {
    "variant": Option(tuple(VARIANTS), "lens-variant"), "tuned": Option(str, "lens-tuned"), "tail": Option(int, "lens-tail"),
}  # fmt: skip
"""How the page looks: through which lens, which tuned one, and how many blocks the tail lens runs."""


def window(view: View) -> tuple[int, int]:
    """The first and last position to read: everything, or 256 of a longer text.

    They begin where the selection says, or are the stretch that holds the selected token.
    """
    count, chosen = len(view.tokens), view.selection
    if count <= SHORT:
        return 0, count - 1
    first = chosen.position // _WINDOW * _WINDOW if chosen.first is None else view.sight(_WINDOW)[0]
    return first, min(first + _WINDOW, count) - 1


def lens_call(view: View, variant: str, tuned: str = "", tail: int = TAIL) -> ProbeCall:
    """The question whose answer holds the lens at every position of the window; ``tuned`` names a tuned lens, ``tail``
    says how many of the last blocks the tail lens runs; both are read beside raw and mean-corrected."""
    first, last = window(view)
    whole = last - first + 1 == len(view.tokens)
    params: dict[str, object] = {"positions": "all" if whole else tuple(range(first, last + 1))}
    return ProbeCall("lens", params | of_variant(variant, tuned, tail))


def of_variant(variant: str, tuned: str, tail: int) -> dict[str, object]:
    """What the probe is told to read, so that the variant is among it."""
    more: dict[str, dict[str, object]] = {
        "no_norm": {"variants": ("no_norm",)}, "tuned": {"tuned": tuned}, "tail": {"tail": tail},
    }  # fmt: skip
    return more.get(variant, {})


def read_lens(view: View, variant: str, tuned: str = "", tail: int = TAIL) -> View | None:
    """The answer to :func:`lens_call`; until it is there, the run with whatever it has read. None if it has not that."""
    answer = None if variant == "tuned" and not tuned else view.find(lens_call(view, variant, tuned, tail))
    read = view if answer is None else view.beside(answer)
    rows = read.table("lens_topk")
    return read if not rows.empty and (rows["variant"] == variant).any() else None


def position_rows(read: View) -> pd.DataFrame:
    """What the lens says of the selected position."""
    rows = _lens_rows(read)
    return rows if rows.empty else rows[rows["pos"] == read.selection.position]


@panel(
    "lens-map",
    "lens",
    "The map",
    "What does each state read as? Dots: where it has settled on the final answer.",
    ("lens", "Raw and mean-corrected"),
    ("lens", "The map"),
    options={**LENS, "colour": Option(tuple(COLOURS), "lens-colour")},
)
def whole_map(
    view: View, variant: str = "mean", tuned: str = "", tail: int = TAIL, colour: str = "p of the top token"
) -> Drawn:
    read, lens = _read(view, variant, tuned, tail), cast(Variant, variant)
    if len(view.tokens) <= SHORT:
        first, tokens = view.sight()
    else:
        first, last = window(view)
        tokens = view.tokens[first : last + 1]

    def build() -> go.Figure:
        topk = read.table("lens_topk")
        topk = topk[topk["variant"] == lens]
        metrics, layers = read.table("token_metrics"), read.facts.n_layers
        return lens_map(topk, metrics, tokens, layers, _texts(read, topk), colour=colour, variant=lens, first=first)

    figure = read.figure("lens-map", build, variant, colour, first)
    return Drawn(figure, f"The map, {VARIANTS[variant]}", csv=lambda: _readings(read), place=CELL)


@panel(
    "lens-position",
    "lens",
    "One position",
    "How does the reading get to the answer?",
    ("lens", "One position"),
    options=LENS,
)
def one_position(view: View, variant: str = "mean", tuned: str = "", tail: int = TAIL) -> Drawn:
    read, position = _read(view, variant, tuned, tail), view.selection.position
    rows = _here(read)
    figure = read.figure("lens-position", lambda: trajectories(rows, position, read.facts.n_layers), position)
    note = _settling(rows, cast(Variant, variant))
    return Drawn(figure, f"Position {position}", note=note, csv=rows, place=POINT)


@panel("lens-rank", "lens", "Rank of the token that follows", "Is it known here, above chance?",
       ("lens", "Rank of the target"), options=LENS)  # fmt: skip
def one_rank(view: View, variant: str = "mean", tuned: str = "", tail: int = TAIL) -> Drawn:
    read, position = _read(view, variant, tuned, tail), view.selection.position
    rows = _here(read)
    if position == len(view.tokens) - 1:
        raise Gap("The last token has no next one: there is no rank.")
    layers, n_vocab = read.facts.n_layers, read.facts.d_vocab
    figure = read.figure("lens-rank", lambda: rank_lines(rows, position, layers, n_vocab), position)
    return Drawn(figure, f"Rank of the token after position {position}", csv=lambda: _ranks(rows), place=POINT)


@panel("lens-kl", "lens", "KL to the end, all positions", "How far is each point from the answer?",
       ("lens", "All positions"), options=LENS)  # fmt: skip
def divergence(view: View, variant: str = "mean", tuned: str = "", tail: int = TAIL) -> Drawn:
    read, rows = _everywhere(view, variant, tuned, tail)
    layers, n_vocab = read.facts.n_layers, read.facts.d_vocab
    figure = read.figure("lens-kl", lambda: layer_curves(rows, layers, n_vocab)[0])
    return Drawn(figure, csv=rows, place=POINT)


@panel("lens-ranks", "lens", "Rank of the next token, median", "When does it pass the control?",
       ("lens", "Rank of the target"), options=LENS)  # fmt: skip
def ranks(view: View, variant: str = "mean", tuned: str = "", tail: int = TAIL) -> Drawn:
    read, rows = _everywhere(view, variant, tuned, tail)
    layers, n_vocab = read.facts.n_layers, read.facts.d_vocab
    figure = read.figure("lens-ranks", lambda: layer_curves(rows, layers, n_vocab)[1])
    return Drawn(figure, csv=lambda: _ranks(rows), place=POINT)


def _read(view: View, variant: str, tuned: str, tail: int) -> View:
    read = read_lens(view, variant, tuned, tail)
    if read is None:
        if variant == "tuned" and not tuned:
            raise Gap("No tuned lens was named: give one as the option `tuned`.")
        raise Gap("This lens has not been read here.")
    return read


def _here(read: View) -> pd.DataFrame:
    rows = position_rows(read)
    if rows.empty:
        raise Gap("The lens was not read at this position.")
    return rows


def _everywhere(view: View, variant: str, tuned: str, tail: int) -> tuple[View, pd.DataFrame]:
    read = _read(view, variant, tuned, tail)
    rows = _lens_rows(read)
    if rows.empty:
        raise Gap("The lens was not measured at any position.")
    return read, rows


def _lens_rows(read: View) -> pd.DataFrame:
    def rows() -> pd.DataFrame:
        metrics = read.table("token_metrics")
        return metrics if metrics.empty else metrics[metrics["metric"].str.startswith("lens_")]

    found: pd.DataFrame = read.memo("lens rows", rows)
    return found


def _ranks(rows: pd.DataFrame) -> pd.DataFrame:
    return rows[rows["metric"].str.startswith("lens_rank")]


def _texts(read: View, topk: pd.DataFrame) -> dict[int, str]:
    ids = topk["token_id"].unique().tolist()
    return dict(zip(ids, read.decode(ids), strict=True))


def _readings(read: View) -> pd.DataFrame:
    """The top tokens of every state, with their text."""
    topk = read.table("lens_topk")
    return topk.assign(text=topk["token_id"].map(_texts(read, topk)))


def _settling(rows: pd.DataFrame, variant: Variant) -> str | None:
    """How the position settles in the chosen lens, in one line."""
    values = rows[rows["layer"].isna()].set_index("metric")["value"]
    told = []
    for metric, name in _SETTLING.items():
        value = values.get(metric + SUFFIX[variant])
        if value is not None:
            told.append(f"{name} {value:.3g}" if pd.notna(value) else f"{name}: undefined")
    return f"{VARIANTS[variant]}: {' · '.join(told)}" if told else None
