"""The Data page: a query on request, its answer kept, refusals in a sentence, text that stays text."""

from collections.abc import Iterator

import pandas as pd
import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from app.services import Services
from app.text import csv_bytes
from app.views.data import EXAMPLES, _parquet, _shown
from cache import Store
from tests.app.fakes import HOSTILE, FakeRunner, FakeShelf, fake_result, told
from tests.cache.rows import capture, run, tables


def data_page() -> None:
    from app.views.data import page

    page()


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Iterator[Services]:
    """Services over a real store with two runs whose tokens are hostile."""
    store = Store.open(":memory:")
    tokens = pd.DataFrame({"pos": range(len(HOSTILE)), "token_id": 1, "text": HOSTILE})
    for name in ("r0", "r1"):
        store.write_run(run(name), {**tables(), "tokens": tokens}, {}, capture())
    made = Services(store, FakeShelf(), FakeRunner(fake_result()))  # type: ignore[arg-type]
    monkeypatch.setattr("app.components.backend.start", lambda: made)
    st.cache_resource.clear()
    yield made
    st.cache_resource.clear()
    made.close()


def opened() -> AppTest:
    app = AppTest.from_function(data_page, default_timeout=60).run()
    assert not app.exception
    return app


def asked(app: AppTest, sql: str, rows: int = 10_000, seconds: float = 10.0) -> AppTest:
    app.text_area(key="data-sql").input(sql)
    limits = {element.label: element for element in app.number_input}
    limits["Rows at most"].set_value(rows)
    limits["Seconds at most"].set_value(seconds)
    (button,) = [button for button in app.button if button.label == "Run"]
    button.click().run()
    assert not app.exception
    return app


def test_nothing_runs_before_it_is_asked_and_an_example_fills_the_text(held: Services) -> None:
    app = opened()
    assert app.text_area(key="data-sql").value == EXAMPLES["alpha by layer"]
    app.pills(key="data-example").select("runs by model").run()
    assert app.text_area(key="data-sql").value == EXAMPLES["runs by model"]
    assert len(app.dataframe) == 0
    assert dict(app.query_params) == {}


def test_the_answer_is_a_table_with_its_chart_and_is_kept(held: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    app = asked(opened(), "SELECT layer, value, run_id FROM layer_metrics WHERE metric = 'alpha_sigma' AND layer = 0")
    assert "**2 rows** in " in told(app)
    assert app.dataframe[0].value["run_id"].tolist() == ["r0", "r1"]
    labels = {element.label: element.value for element in app.selectbox}
    assert labels == {"Chart": "line", "x": "layer", "y": "value", "colour": "run_id"}
    monkeypatch.setattr(held.store, "query", lambda *args, **kwargs: pytest.fail("it ran again"))
    next(element for element in app.selectbox if element.label == "Chart").select("bar").run()
    assert not app.exception
    assert "**2 rows** in " in told(app)
    assert dict(app.query_params) == {}


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_example_is_a_query(held: Services, name: str) -> None:
    app = asked(opened(), EXAMPLES[name])
    assert [error.value for error in app.error] == []
    assert " in 0" in told(app)


def test_a_cut_result_says_so(held: Services) -> None:
    app = asked(opened(), "SELECT * FROM range(1000000)", rows=10)
    assert "**10 rows**" in told(app)
    assert "cut at 10 rows: the row limit" in told(app)


def test_a_refusal_is_one_sentence_and_the_next_query_works(held: Services) -> None:
    app = asked(opened(), "SELECT * FROM sessions")
    (error,) = app.error
    assert error.value.replace("\\", "").startswith("The table 'sessions' is not one of runs")
    assert len(app.dataframe) == 0
    app = asked(app, "SELECT nosuch FROM runs")
    assert [error.value.replace("\\", "") for error in app.error] == [
        'Binder Error: Referenced column "nosuch" not found in FROM clause!'
    ]
    app = asked(app, "SELECT 1 AS one")
    assert len(app.error) == 0
    assert app.dataframe[0].value["one"].tolist() == [1]


def test_a_long_query_shows_its_progress_and_its_end(held: Services) -> None:
    app = asked(opened(), "SELECT count(*) FROM range(1000000000000)", seconds=2.0)
    (job,) = held.desk.active()
    assert [button.label for button in app.button if button.key == f"cancel-{job.number}"] == ["Cancel"]
    assert job.wait(20)
    app.run()
    assert [error.value.replace("\\", "") for error in app.error] == [
        "The query was stopped after 2 s: filter earlier, or allow more time."
    ]


def test_a_cancelled_query_says_so(held: Services) -> None:
    app = asked(opened(), "SELECT count(*) FROM range(1000000000000)", seconds=60.0)
    (job,) = held.desk.active()
    app.button(key=f"cancel-{job.number}").click().run()
    assert job.wait(20)
    app.run()
    assert [info.value for info in app.info] == ["The query was stopped."]


def test_text_of_the_store_stays_text(held: Services) -> None:
    app = asked(opened(), "SELECT text, pos, '=1+1' AS \"=cmd|' /C calc'!A0\" FROM tokens ORDER BY pos")
    shown = app.dataframe[0].value["text"].tolist()
    assert shown[:5] == list(HOSTILE[:5])
    assert "\\u202ertl" in shown
    frame = app.session_state["_data-asked"].answer[0].frame
    assert frame["text"].tolist() == list(HOSTILE)
    csv = csv_bytes(frame).decode().splitlines()
    assert csv[0].endswith("'=cmd|' /C calc'!A0")
    assert all(line.endswith(",'=1+1") for line in csv[1:])


def test_lists_bytes_and_missing_values_can_be_shown_and_saved() -> None:
    frame = pd.DataFrame(
        {"many": [[1, 2], None], "raw": [b"\0", b"x"], "n": pd.array([1, None], dtype="Int64"), "a\nb": ["", "x" * 999]}
    )
    shown = _shown(frame)
    assert shown["many"].tolist()[0] == "[1, 2]"
    assert shown["raw"][0] == "b'\\x00'"
    assert shown.columns.tolist()[3] == "a⏎b"
    assert shown["a⏎b"].str.len().tolist() == [0, 301]
    assert _parquet(frame).startswith(b"PAR1")


def test_an_empty_store_says_that_there_are_no_rows(held: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    held.store.close()
    held.store = Store.open(":memory:")
    app = opened()
    assert "holds no runs yet" in told(app)
    app = asked(app, EXAMPLES["runs by model"])
    assert "**0 rows**" in told(app)
    assert "nothing to draw" in told(app)


def test_a_result_is_kept_in_the_session_as_it_is(held: Services) -> None:
    app = asked(opened(), "SELECT 1 AS one, 'a' AS letter")
    app.button(key="data-keep").click().run()
    assert not app.exception
    [session] = held.store.sessions()
    [item] = held.store.session_items(session.session_id)
    assert (item.view, item.run_id) == ("sql", None)
    assert item.params["rows"] == [[1, "a"]]
    assert item.params["query"] == "SELECT 1 AS one, 'a' AS letter"
