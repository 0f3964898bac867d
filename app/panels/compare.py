"""Panels of two runs: A, B and B − A of every view, on the tokens and points of A."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd
import plotly.graph_objects as go

from analysis.alignment import layer_map
from app.comparable import VIEWS, Comparable
from app.comparison import Pair, Side
from app.figures.difference import difference, difference_table
from app.figures.drawn import drawn_table
from app.figures.scales import share_scales
from app.panels.pairs import PAIR, Align, pair_of
from app.panels.panel import Click, Drawn, Marks, Option, Pick, Place, panel
from app.view import SIGHT, Gap, View

__all__ = ["view_key"]

Part = Literal["a", "b", "d"]
_NAMES: Mapping[Part, str] = {"a": "A", "b": "B", "d": "B − A"}
_LABELS = 32  # token labels that fit half the page


@dataclass(frozen=True)
class _Made:
    """A figure, or the sentence why there is none."""

    fig: go.Figure | None
    reason: str = ""


def view_key(panel_key: str) -> str | None:
    """The key of the view that a panel of two runs shows; None for any other panel."""
    known = (shown.key for shown in VIEWS if panel_key in [f"compare-{shown.key}-{part}" for part in _NAMES])
    return next(known, None)


def _register(shown: Comparable, part: Part) -> None:
    """The panel of one side of a view, or of its difference."""
    key, title = f"compare-{shown.key}-{part}", f"{shown.title}: {_NAMES[part]}"
    if part == "d":
        question, how = "What is more in B, and what in A?", (shown.docs, ("compare", "Differences"))

        @panel(key, "compare", title, question, *how, options=PAIR)
        def change(view: View, b: str = "", align: Align = "default", pairs: list[Any] | None = None) -> Drawn:
            return _change(shown, pair_of(view, b, align, pairs))

        return

    @panel(key, "compare", title, shown.question, options={**PAIR, "shared": Option(bool, "compare-shared")})
    def side(
        view: View, b: str = "", align: Align = "default", pairs: list[Any] | None = None, shared: bool = True
    ) -> Drawn:
        return _side(shown, pair_of(view, b, align, pairs), part, shared)


def _side(shown: Comparable, pair: Pair, part: Part, shared: bool) -> Drawn:
    """A or B; ``shared`` puts both on the same axes and colours."""
    apart = shown.apart(pair)
    side = pair.a if part == "a" else _b(shown, pair)
    made = _made(shown, pair, side)
    info, fig = side.own.info, made.fig
    question = f"run {info.run_id[:8]}, {info.n_tokens:,} tokens"
    if fig is None:
        return Drawn(None, question=question, note=made.reason)
    other = _made(shown, pair, _b(shown, pair) if part == "a" else pair.a).fig
    key = (shown.key, _key(shown, pair))
    if shared and apart is None and other is not None:
        both = (fig, other) if part == "a" else (other, fig)
        fig = pair.a.remember(("shared", *key), lambda: share_scales(*both))["ab".index(part)]
    drawn = fig
    if not shown.wide:
        fig = pair.a.remember(("thinned", part, shared, *key), lambda: _thinned(drawn))
    place, pick = _place(shown, pair, side)
    return Drawn(
        fig, question=question, csv=lambda: _named(drawn_table(drawn), shown, pair, side), place=place, pick=pick
    )


def _change(shown: Comparable, pair: Pair) -> Drawn:
    """B − A, or why there is none."""
    apart = shown.apart(pair)
    if apart is not None:
        raise Gap(apart)
    made = [_made(shown, pair, side) for side in (pair.a, pair.b)]
    if made[0].fig is None or made[1].fig is None:
        raise Gap(next(one.reason for one in made if one.fig is None))
    a, b = made[0].fig, made[1].fig
    fig: go.Figure = pair.a.remember(("difference", shown.key, _key(shown, pair)), lambda: difference(a, b))
    if not fig.data:
        raise Gap("Nothing stands in both at the same place: there is no difference to draw.")
    coloured = any(trace.type == "heatmap" for trace in fig.data)
    place, pick = _place(shown, pair, pair.a)
    return Drawn(
        fig,
        question="Red: more in B. Blue: more in A." if coloured else "",
        csv=lambda: _named(difference_table(fig), shown, pair, pair.a),
        place=place,
        pick=pick,
    )


def _b(shown: Comparable, pair: Pair) -> Side:
    return pair.b.on_own_layers if shown.own_layers and shown.apart(pair) is not None else pair.b


def _made(shown: Comparable, pair: Pair, side: Side) -> _Made:
    def make() -> _Made:
        try:
            return _Made(shown.build(side, pair))
        except Gap as gap:
            return _Made(None, str(gap))

    made: _Made = side.remember(("drawn", shown.key, side.name, _key(shown, pair)), make)
    return made


def _key(shown: Comparable, pair: Pair) -> tuple[object, ...]:
    """What of the selection a figure changes with: what it says, and the tokens in sight of a long text."""
    place = pair.a.place
    return (place.first, pair.a.window(SIGHT)[0], *(getattr(place, part) for part in shown.depends))


def _thinned(fig: go.Figure) -> go.Figure:
    """The figure with at most half as many token labels along x: it is drawn half as wide. The figure itself if few."""
    crowded = [name for name in ("xaxis", "xaxis2") if name in fig.layout and _labels(fig, name) > _LABELS]
    if not crowded:
        return fig
    copy = go.Figure(fig)
    for name in crowded:
        axis = copy.layout[name]
        step = -(-len(axis.tickvals) // _LABELS)
        axis.update(tickvals=axis.tickvals[::step], ticktext=axis.ticktext[::step])
    return copy


def _labels(fig: go.Figure, name: str) -> int:
    return 0 if fig.layout[name].tickvals is None else len(fig.layout[name].tickvals)


def _place(shown: Comparable, pair: Pair, side: Side) -> tuple[Place | Marks | None, Pick | None]:
    """What the axes of a side stand for, and what a click selects, in the positions and points of A."""
    if shown.x is None and shown.y is None:
        return None, None
    if side.name == "B" and shown.own_layers and shown.apart(pair) is not None:
        return _own_heads(pair, side)
    return Place(shown.x, shown.y, _rows(shown, pair, side)), None


def _own_heads(pair: Pair, side: Side) -> tuple[Marks, Pick]:
    """Heads of B on its own layers: a block stands at the nearest point of A, and heads that A lacks select no head."""

    def block(place: Any) -> float | None:
        point = pair.b.points[place.point]
        return float(point - 1) if point else None

    def pick(click: Click) -> dict[str, int | None]:
        head, own = round(click.x), round(click.y) + 1
        chosen: dict[str, int | None] = {"point": layer_map(side.n_layers, pair.a.n_layers)[own]}
        return chosen | ({"head": head} if head < pair.a.facts.n_heads else {})

    return Marks(lambda place: None if place.head is None else float(place.head), block), pick


def _rows(shown: Comparable, pair: Pair, side: Side) -> list[int] | None:
    """What the rows of a map stand for, where they are not their numbers."""
    build = shown.rows
    if build is None:
        return None
    key = ("rows", shown.key, side.name if shown.apart(pair) else "", _key(shown, pair))
    found: list[int] = pair.a.remember(key, lambda: list(build(side, pair)))
    return found


def _named(table: pd.DataFrame, shown: Comparable, pair: Pair, side: Side) -> pd.DataFrame:
    """A table of what is drawn, its places under the names of the parts that they are."""
    rows = _rows(shown, pair, side)
    if rows is not None:
        table = table.assign(y=[rows[int(y)] for y in table["y"]])
    names = {"x": shown.x, "y": shown.y}
    return table.rename(columns={letter: part for letter, part in names.items() if part is not None})


for _shown in VIEWS:
    for _part in _NAMES:
        _register(_shown, _part)
