"""One view of two runs: A beside B, and B − A below, under the one selection."""

from collections.abc import Callable
from dataclasses import dataclass

import plotly.graph_objects as go
import streamlit as st

from analysis.alignment import layer_map
from app.comparable import Comparable, Part
from app.comparable_figures import Builder
from app.comparison import Gap, Pair, Side
from app.components.panel import panel
from app.components.plot_clicks import PlotClick
from app.figures.difference import difference, difference_table
from app.figures.scales import share_scales
from app.methods import section
from app.state import current, select

__all__ = ["compared"]


_LABELS = 32  # token labels that fit half the page


@dataclass(frozen=True)
class _Drawn:
    """A figure, or the sentence why there is none."""

    fig: go.Figure | None
    reason: str = ""


def compared(pair: Pair, view: Comparable, *, shared: bool) -> None:
    """Draw the three panels; ``shared`` puts A and B on the same axes and colours."""
    apart = view.apart(pair)
    b = pair.b.on_own_layers if apart and view.own_layers else pair.b
    drawn = [_drawn(pair, view, side, view.build) for side in (pair.a, b)]
    both = drawn[0].fig, drawn[1].fig
    key = _key(pair, view)
    if shared and apart is None and both[0] is not None and both[1] is not None:
        both = pair.a.remember(("shared", view.key, key), lambda: share_scales(*both))
    st.markdown(f"**{view.title}** :small[:gray[{view.question}]]")
    columns = (st.container(), st.container()) if view.wide else st.columns(2)
    for column, side, fig, made in zip(columns, (pair.a, b), both, drawn, strict=True):
        with column:
            shown = None if fig is None else fig if view.wide else _thinned(fig)
            _panel(pair, view, side, shown, note=made.reason or None)
    reason = apart or next((made.reason for made in drawn if made.fig is None), None)
    if reason is not None:
        panel(f"compare-{view.key}-d", "B − A", "", None, note=reason, how=_how(view))
        return
    change: go.Figure = pair.a.remember(("difference", view.key, key), lambda: difference(drawn[0].fig, drawn[1].fig))
    empty = "Nothing stands in both at the same place: there is no difference to draw." if not change.data else None
    panel(
        f"compare-{view.key}-d",
        "B − A",
        "Red: more in B. Blue: more in A." if any(trace.type == "heatmap" for trace in change.data) else "",
        None if empty else change,
        note=empty,
        how=_how(view),
        csv=lambda: difference_table(change),
        on_click=_go(pair, view, pair.a),
        x=_at(pair, view, pair.a, view.x),
        y=_at(pair, view, pair.a, view.y),
    )


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


def _key(pair: Pair, view: Comparable) -> tuple[object, ...]:
    """What of the selection a figure changes with: what it says, and the tokens in sight of a long text."""
    first, _ = pair.a.window(256)
    return (first, *(getattr(pair.a.place, part) for part in view.depends))


def _drawn(pair: Pair, view: Comparable, side: Side, build: Builder) -> _Drawn:
    def make() -> _Drawn:
        try:
            return _Drawn(build(side, pair))
        except Gap as gap:
            return _Drawn(None, str(gap))

    made: _Drawn = side.remember(("drawn", view.key, side.name, _key(pair, view)), make)
    return made


def _panel(pair: Pair, view: Comparable, side: Side, fig: go.Figure | None, note: str | None) -> None:
    info = side.own.info
    panel(
        f"compare-{view.key}-{side.name.lower()}",
        side.name,
        f"run {info.run_id[:8]}, {info.n_tokens:,} tokens",
        fig,
        note=note,
        on_click=_go(pair, view, side),
        x=_at(pair, view, side, view.x),
        y=_at(pair, view, side, view.y),
    )


def _how(view: Comparable) -> str:
    return section(*view.docs) + "\n\n" + section("compare", "Differences")


def _go(pair: Pair, view: Comparable, side: Side) -> Callable[[PlotClick], None]:
    """What a click selects, in the positions and points of A."""

    def go(click: PlotClick) -> None:
        chosen: dict[str, int | None] = {}
        for part, value in ((view.x, click.x), (view.y, click.y)):
            if part is not None and isinstance(value, int | float):
                chosen |= _chosen(pair, view, side, part, round(value))
        if chosen:
            select(**chosen)

    return go


def _chosen(pair: Pair, view: Comparable, side: Side, part: Part, value: int) -> dict[str, int | None]:
    if part == "block":
        own = len(side.points) != len(pair.a.points)
        return {"point": layer_map(side.n_layers, pair.a.n_layers)[value + 1] if own else value + 1}
    if part == "head" and value >= pair.a.facts.n_heads:
        return {}
    if view.rows is not None and part == view.y:
        rows = _rows(pair, view, side)
        return {part: rows[value]} if 0 <= value < len(rows) else {}
    return {part: value}


def _rows(pair: Pair, view: Comparable, side: Side) -> list[int]:
    """What the rows of a map stand for; where the two are apart, its own numbers."""
    if view.rows is None or view.apart(pair) is not None:
        return list(range(side.facts.d_model))
    build = view.rows
    found: list[int] = pair.a.remember(("rows", view.key, _key(pair, view)), lambda: list(build(pair)))
    return found


def _at(pair: Pair, view: Comparable, side: Side, part: Part | None) -> float | None:
    """Where the selection stands along an axis."""
    if part is None:
        return None
    chosen = current()
    if part == "block":
        own = len(side.points) != len(pair.a.points)
        point = pair.b.points[chosen.point] if own else chosen.point
        return point - 1 if point else None
    value = getattr(chosen, part)
    if value is None or view.rows is None or part != view.y:
        return None if value is None else float(value)
    try:
        rows = _rows(pair, view, side)
    except Gap:
        return None
    return float(rows.index(value)) if value in rows else None
