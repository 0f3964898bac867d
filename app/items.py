"""Items of a session as views of runs, and addresses of what they show. No streamlit."""

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from app.figures.quick import Chart, quick_chart
from app.panels import registry
from app.selection import KEYS, clamp, write
from app.services import Services
from app.view import View, run_bounds
from cache import canonical_json
from cache.session_rules import Item

__all__ = ["SQL", "Kept", "item_view", "link_to", "options", "query_chart", "query_item", "query_table"]

SQL = "sql"
"""The view of an item that holds the result of a query instead of a panel."""
_ROWS = 1000  # of a query's result that an item keeps


class Kept(Protocol):
    """What an item of a session has (:class:`cache.sessions.Item`)."""

    @property
    def view(self) -> str: ...
    @property
    def params(self) -> Mapping[str, Any]: ...
    @property
    def selection(self) -> Mapping[str, Any]: ...
    @property
    def caption(self) -> str: ...
    @property
    def run_id(self) -> str | None: ...


def item_view(services: Services, item: Kept) -> View | None:
    """The run of an item at its selection, with the runs it was drawn from at hand; None if its run is not stored.

    Parts of the selection that cannot be meant (items come out of files, too) stand where a run starts.
    """
    result = None if item.run_id is None else services.open(item.run_id)
    if result is None:
        return None
    limits, answers = run_bounds(result), item.params.get("runs", [])
    known = {name: value for name, value in item.selection.items() if _is_part(name, value)}
    runs = tuple(run for run in answers if isinstance(run, str)) if isinstance(answers, list) else ()
    return View(services, result, clamp(limits.start(), known, limits), runs)


def options(item: Kept) -> dict[str, Any]:
    """The options of the panel that an item shows."""
    given = item.params.get("set", {})
    return dict(given) if isinstance(given, Mapping) else {}


def link_to(item: Kept, view: View) -> tuple[str, dict[str, str]]:
    """The page of an item and the parts of an address that open it there as it was kept. Raises BadRequest."""
    found, given = registry.panel(item.view), options(item)
    query = {"run": view.info.run_id, **write(view.selection), "panel": item.view}
    if isinstance(given.get("b"), str):
        query["b"] = given["b"]
    return found.page, query | ({"set": canonical_json(given)} if given else {})


def query_item(sql: str, frame: pd.DataFrame, chart: Mapping[str, Any] | None) -> Item:
    """The result of a query as an item: its first 1,000 rows as they are, how many there were, and the chart drawn of it."""
    head = frame.head(_ROWS)
    rows = [[_plain(cell) for cell in row] for row in head.itertuples(index=False, name=None)]
    params = {"query": sql, "columns": [str(name) for name in frame.columns], "rows": rows, "of": len(frame)}
    return Item(SQL, params | ({} if chart is None else {"chart": dict(chart)}), {}, "", None)


def query_table(item: Kept) -> pd.DataFrame:
    """The rows that an item of a query keeps, each column under a name of its own; empty where they are no table."""
    columns, rows = item.params.get("columns"), item.params.get("rows")
    if not isinstance(columns, list) or not isinstance(rows, list):
        return pd.DataFrame()
    if not all(isinstance(row, list) and len(row) == len(columns) for row in rows):
        return pd.DataFrame()
    names: list[str] = []
    for name in map(str, columns):
        names.append(f"{name} ({len(names) + 1})" if name in names else name)
    return pd.DataFrame([[_shown(cell) for cell in row] for row in rows], columns=names)


def query_chart(item: Kept, table: pd.DataFrame) -> go.Figure | None:
    """The chart that was drawn of a query's rows, or None."""
    try:
        return quick_chart(table, Chart(**item.params["chart"]))
    except (KeyError, TypeError, ValueError):
        return None


def _is_part(name: str, value: Any) -> bool:
    """Whether a part of a kept selection is one: a whole number, or two of them for a range."""
    if name == "span":
        return isinstance(value, list | tuple) and len(value) == 2 and all(map(_is_whole, value))
    return name in KEYS and (value is None or _is_whole(value))


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _shown(cell: Any) -> Any:
    """A kept cell that any table can hold: lists, objects and numbers beyond 64 bits as text."""
    if isinstance(cell, list | dict) or (isinstance(cell, int) and not -(1 << 63) <= cell < 1 << 63):
        return str(cell)
    return cell


def _plain(cell: Any) -> Any:
    """A cell as JSON has it; numbers stay what they are, what is no number becomes text."""
    if cell is None or (pd.api.types.is_scalar(cell) and pd.isna(cell)):
        return None
    if isinstance(cell, bool | np.bool_):
        return bool(cell)
    if isinstance(cell, int | np.integer):
        return int(cell)
    if isinstance(cell, float | np.floating):
        return float(cell) if np.isfinite(cell) else None
    return str(cell).encode("utf-8", "replace").decode()
