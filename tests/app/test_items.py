"""Items of sessions as views: what cannot be meant in one falls back, and nothing in one raises."""

from typing import Any

import pytest

from app.figures.quick import Chart
from app.items import item_view, query_chart, query_item, query_table
from app.view import run_bounds
from cache.session_rules import Item
from tests.app.fakes import fake_result, fake_services


def item(selection: Any = None, params: Any = None, view: str = "sinks-heads") -> Item:
    return Item(view, params or {}, selection or {}, "", "run0")


@pytest.mark.parametrize(
    "selection",
    [
        {"point": "x"}, {"position": [1]}, {"span": 5}, {"span": []}, {"span": ["a", 1]}, {"span": [1, 2, 3]},
        {"head": True}, {"point": 1.5}, {"first": {}}, {"unknown": 3}, {"point": None},
    ],
)  # fmt: skip
def test_what_is_no_part_of_a_selection_stands_where_a_run_starts(selection: dict[str, Any]) -> None:
    services = fake_services(fake_result())
    view = item_view(services, item(selection))
    assert view is not None
    assert view.selection == run_bounds(view.result).start()


def test_a_selection_is_kept_within_the_run() -> None:
    view = item_view(fake_services(fake_result()), item({"point": 10**30, "position": 3, "span": [9, 10**30]}))
    assert view is not None
    assert (view.selection.point, view.selection.position, view.selection.span) == (6, 3, (9, 49))


@pytest.mark.parametrize("runs", [7, "run1", {"run1": 1}, [7, None, []], None])
def test_runs_that_are_none_are_left_out(runs: Any) -> None:
    view = item_view(fake_services(fake_result()), item(params={"runs": runs, "set": []}))
    assert view is not None
    assert view.answers == ()


@pytest.mark.parametrize(
    ("columns", "rows"),
    [(7, []), (["a"], 7), (["a"], [[1, 2]]), (["a"], ["x"]), ({"a": 1}, [[1]]), (["a"], {"a": [1]}), (None, None)],
)
def test_a_query_without_a_table_has_an_empty_one(columns: Any, rows: Any) -> None:
    kept = item(params={"columns": columns, "rows": rows, "chart": {"kind": "bar", "x": "a", "y": "b"}}, view="sql")
    assert query_table(kept).empty
    assert query_chart(kept, query_table(kept)) is None


def test_columns_of_one_name_and_cells_that_no_table_holds() -> None:
    kept = item(params={"columns": ["a", "a", 3], "rows": [[1, [2], 1 << 70], [2, {"x": 1}, None]]}, view="sql")
    table = query_table(kept)
    assert list(table.columns) == ["a", "a (2)", "3"]
    assert table["a"].tolist() == [1, 2]
    assert table["a (2)"].tolist() == ["[2]", "{'x': 1}"]
    assert table["3"][0] == str(1 << 70)


def test_a_query_comes_back_as_it_was_kept() -> None:
    frame = query_table(item(params={"columns": ["layer", "value"], "rows": [[0, 0.5], [1, None]]}, view="sql"))
    kept = query_item("SELECT 1", frame, {"kind": "line", "x": "layer", "y": "value", "colour": None})
    assert query_table(kept).equals(frame)
    assert query_chart(kept, frame) is not None
    assert kept.params["chart"]["kind"] == Chart("line", "layer", "value").kind
