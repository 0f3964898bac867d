"""The page of two runs over imagined ones: what it says, what it refuses, what it keeps in the address."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from types import SimpleNamespace

import pandas as pd
import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from app.comparable import PAGES, VIEWS
from app.figures.strip_scale import Scale
from app.services import Services
from probes.model.edits import Edit, Mean
from tests.app.fakes import HOSTILE, TEXT, FakeResult, fake_result, fake_services, told

Open = Callable[..., AppTest]


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Iterator[Open]:
    """``opened(b, **query)``: the page with run0 as A, and ``b`` stored too."""
    made: list[Services] = []

    def open_page(second: FakeResult | None, /, **query: str) -> AppTest:
        held = fake_services(fake_result(TEXT * 5))
        if second is not None:
            held.runner.results[second.info.run_id] = second  # type: ignore[attr-defined]
        made.append(held)
        monkeypatch.setattr("app.components.backend.start", lambda: held)
        st.cache_resource.clear()
        app = AppTest.from_string("from app.views.compare import page\n\npage()\n", default_timeout=60)
        for key, value in {"run": "run0", **query}.items():
            app.query_params[key] = value
        return app.run()

    yield open_page
    st.cache_resource.clear()
    for held in made:
        held.close()


def other(tokens: tuple[str, ...] = TEXT * 4 + HOSTILE) -> FakeResult:
    """Another run, its token ids unlike those of A."""
    made = fake_result(tokens, "run1")
    return replace(made, tokens=made.tokens.assign(token_id=made.tokens["token_id"] + 3))


def test_two_runs_open_with_their_view_in_the_address(opened: Open) -> None:
    app = opened(other(), b="run1", view="sinks-sink-score")
    assert not app.exception
    assert not app.warning
    assert (app.query_params["b"], app.query_params["view"]) == ("run1", "sinks-sink-score")
    assert "40 of 50 tokens of A and of 48 of B are aligned\\." in told(app) or "40 of 50 tokens" in told(app)
    assert "Differs: tokens: 50 | 48" in told(app).replace("\\", "")
    [table] = [element.value for element in app.dataframe]
    assert list(table.columns) == ["quantity", "A", "B", "B − A", "where", "why not"]
    assert pd.isna(table["A"]).sum() == (table["why not"] != "").sum() > 0


@pytest.mark.parametrize("page", PAGES)
def test_every_page_of_views_draws(opened: Open, page: str) -> None:
    for shown in VIEWS:
        if shown.page == page:
            app = opened(other(), b="run1", view=shown.key)
            assert not app.exception, shown.key
            assert app.selectbox(key=f"compare-view-{page}").value == shown.key


def test_choosing_a_view_writes_it(opened: Open) -> None:
    app = opened(other(), b="run1")
    assert app.query_params["view"] == "overview"
    app.segmented_control(key="compare-page").set_value("tokens").run()
    assert not app.exception
    assert app.query_params["view"] == "tokens-nll"
    app.selectbox(key="compare-view-tokens").set_value("tokens-norm").run()
    assert app.query_params["view"] == "tokens-norm"


def test_a_link_to_a_panel_opens_its_view_and_alignment(opened: Open) -> None:
    chosen = {"b": "run1", "panel": "compare-sinks-share-d"}
    app = opened(other(), **chosen, set='{"b": "run1", "pairs": [[0, 3, 2]]}')
    assert not app.exception
    assert app.query_params["view"] == "sinks-share"
    assert "2 of 50 tokens of A" in told(app)
    app = opened(other(), **chosen, set='{"align": "position"}')
    assert "48 of 50 tokens of A" in told(app)
    app = opened(other(), **chosen, set='{"pairs": [["<b>", 1]]}')
    assert not app.exception
    assert "The pairs of the address are not used" in app.warning[0].value
    assert "40 of 50 tokens of A" in told(app)


def test_an_unknown_b_and_view_are_told_literally(opened: Open) -> None:
    app = opened(None, b="**nope**", view="$x$")
    assert not app.exception
    warned = [warning.value for warning in app.warning]
    assert len(warned) == 2
    assert "\\*\\*nope\\*\\*" in warned[1]
    assert "no other run is stored" in warned[1]
    assert "Only this run is stored" in app.info[0].value
    assert "b" not in app.query_params
    assert app.query_params["view"] == "overview"


def test_runs_are_swapped(opened: Open) -> None:
    app = opened(other(), b="run1", pos="3")
    app.button(key="compare-swap").click().run()
    assert not app.exception
    assert (app.query_params["run"], app.query_params["b"]) == ("run1", "run0")


def test_hostile_tokens_and_edits_are_text(opened: Open) -> None:
    b = other()
    edit = Edit("resid", 1, "set", Mean("**bold** $x$"))
    info = SimpleNamespace(**{**vars(b.info), "request": replace(b.info.request, edits=(edit,))})
    app = opened(replace(b, info=info), b="run1", view="tokens-nll")
    assert not app.exception
    assert "edits\\: none \\| resid 1\\: set to mean \\*\\*bold\\*\\* \\$x\\$" in told(app)


def test_bad_pairs_are_refused_and_the_former_alignment_kept(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    app = opened(other(), b="run1")
    app.segmented_control(key="compare-align-run0-run1").set_value("edited").run()
    assert "40 of 50 tokens" in told(app)
    bad = pd.DataFrame({"A": [0, 1], "B": [5, 5]})
    monkeypatch.setattr("streamlit.data_editor", lambda *args, **kwargs: bad)
    app.run()
    assert not app.exception
    assert "position 5 of B stands in two pairs" in app.warning[0].value
    assert "40 of 50 tokens" in told(app)
    monkeypatch.setattr("streamlit.data_editor", lambda *args, **kwargs: bad.head(1))
    app.run()
    assert not app.warning
    assert "1 of 50 tokens" in told(app)


def test_other_pages_have_no_b_in_their_address(opened: Open) -> None:
    app = opened(other(), b="run1")
    app.session_state["_beside_next"] = {}
    sinks = AppTest.from_string("from app.views.sinks import page\n\npage()\n", default_timeout=60)
    sinks.query_params["run"], sinks.query_params["b"] = "run0", "run1"
    sinks.run()
    assert not sinks.exception
    assert "b" not in sinks.query_params


def test_the_strips_of_two_runs_have_one_scale_and_their_difference_is_no_rounding(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    scales: dict[str, Scale] = {}
    monkeypatch.setattr(
        "app.components.comparison.token_strip", lambda key, *_, scale, **__: scales.__setitem__(key, scale)
    )
    same = fake_result(TEXT * 5, "run1")
    rows = same.tables["token_metrics"]
    same.tables["token_metrics"] = rows.assign(value=rows["value"] * (1 + 1e-9))
    app = opened(same, b="run1")
    assert not app.exception
    assert scales["strip-a"] == scales["strip-b"]
    values = rows.loc[rows["metric"] == app.selectbox(key="compare-strip-by").value, "value"]
    assert scales["strip-d"].high == pytest.approx(1e-6 * values.abs().max())
    assert "No difference above" in told(app)
