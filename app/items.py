"""Items of a session as views of runs, and addresses of what they show. No streamlit."""

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from app.figures.quick import Chart, quick_chart
from app.panels import registry
from app.selection import Selection, clamp, write
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
    """The run of an item at its selection, with the runs it was drawn from at hand; None if its run is not stored."""
    result = None if item.run_id is None else services.open(item.run_id)
    if result is None:
        return None
    limits, chosen = run_bounds(result), dict(item.selection)
    known = {name: value for name, value in chosen.items() if name in Selection.__dataclass_fields__}
    answers = item.params.get("runs", [])
    return View(services, result, clamp(limits.start(), known, limits), tuple(map(str, answers)))


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
    """The rows that an item of a query keeps; empty where they are no table."""
    columns, rows = item.params.get("columns", []), item.params.get("rows", [])
    try:
        return pd.DataFrame(rows, columns=columns)
    except (ValueError, TypeError):
        return pd.DataFrame()


def query_chart(item: Kept, table: pd.DataFrame) -> go.Figure | None:
    """The chart that was drawn of a query's rows, or None."""
    try:
        return quick_chart(table, Chart(**item.params["chart"]))
    except (KeyError, TypeError, ValueError):
        return None


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
