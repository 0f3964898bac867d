"""A session as a document: what each item becomes, and that nothing that is missing breaks it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import plotly.graph_objects as go
import pytest

from app.figures.theme import CURSOR
from app.items import item_view
from app.panels import registry
from app.report.document import Document, make_document
from app.services import Services
from tests.app.fakes import HOSTILE, TEXT, fake_result, fake_services

WORDS = "<script>alert(1)</script> $x^2$ :red[hi] **b** </title> {{7*7}} %{x}"
SELECTED = {"point": 3, "position": 4, "head": 1}


@dataclass(frozen=True)
class Kept:
    """An item of a session."""

    view: str
    params: Mapping[str, Any] = field(default_factory=lambda: {"set": {}, "runs": []})
    selection: Mapping[str, Any] = field(default_factory=lambda: SELECTED)
    caption: str = ""
    run_id: str | None = "run0"


QUERY = Kept(
    "sql",
    {"query": f"SELECT 1 -- {WORDS}", "columns": ["layer", "text"], "rows": [[1, WORDS], [2, None]]},
    {},
    "A table.",
    None,
)
EVERYTHING = (
    Kept("overview-layers", caption=WORDS),
    Kept("sinks-heads", {"set": {"metric": "sink_score"}, "runs": []}, caption="Two\nlines"),
    Kept("sinks-share"),
    QUERY,
)


@pytest.fixture
def services() -> Iterator[Services]:
    held = serving(HOSTILE + TEXT * 4)
    yield held
    held.close()


def serving(tokens: tuple[str, ...]) -> Services:
    held = fake_services(fake_result(tokens))
    held.store.run = lambda run_id: None
    return held


def document(services: Services, *items: Kept, title: str = WORDS, notes: str = "") -> Document:
    return make_document(title, notes, items, services)


def test_an_item_becomes_its_figure_with_all_that_it_is_of(services: Services) -> None:
    made = document(services, *EVERYTHING)
    layers, heads, _, query = made.entries
    assert isinstance(layers.fig, go.Figure)
    assert layers.gap is None
    assert layers.caption == WORDS
    assert "All rows share the axis" in layers.how
    assert heads.settings == {
        "model": "tiny", "weights": "random", "run": "run0", "mask": "all", "tokens": "48",
        "selection": "point 3, token 4 <|im_start|>, head 1", "options": "metric sink_score",
    }  # fmt: skip
    assert heads.request == services.open("run0").info.request.as_json()
    assert query.fig is None
    assert query.shown is query.table
    assert list(query.table["layer"]) == [1, 2]
    assert [run.run_id for run in made.runs] == ["run0"]
    assert made.runs[0].tokens == HOSTILE + TEXT * 4
    assert {"torch", "plotly"} <= set(made.made_with)


def test_options_at_their_default_are_told_too(services: Services) -> None:
    [heads] = document(services, Kept("sinks-heads")).entries
    assert heads.settings["options"] == "metric sink_score"


def test_the_selection_is_drawn_into_a_copy(services: Services) -> None:
    [first] = document(services, Kept("sinks-share")).entries
    [again] = document(services, Kept("sinks-share", selection={"point": 5, "position": 0})).entries
    lines = [[one.x0 for one in entry.fig.layout.shapes if one.line.color == CURSOR] for entry in (first, again)]
    assert lines == [[3.0], [5.0]]
    view = item_view(services, Kept("sinks-share"))
    shared = registry.panel("sinks-share").draw(view, {}).fig
    assert not [one for one in shared.layout.shapes if one.line.color == CURSOR]


@pytest.mark.parametrize(
    ("item", "why"),
    [
        (Kept("no-such-panel"), "There is no panel"),
        (Kept("<b>"), "There is no panel"),
        (Kept("sinks-share", run_id="gone"), "which is not stored here"),
        (Kept("sinks-share", run_id=None), "no run"),
        (Kept("sinks-heads", {"set": {"metric": "none"}, "runs": []}), "metric must be one of"),
        (Kept("sinks-heads", {"set": {"colour": 1}}), "has no option"),
        (Kept("sinks-tokens"), "no longer kept"),
        (Kept("sql", {"rows": [[1, 2]], "columns": ["a"]}), "not whole"),
        (Kept("sql", {"rows": 7}), "not whole"),
    ],
)
def test_what_cannot_be_drawn_says_why_and_the_others_stand(services: Services, item: Kept, why: str) -> None:
    missing, there = document(services, item, Kept("sinks-share")).entries
    assert missing.fig is None
    assert missing.table is None
    assert why in str(missing.shown)
    assert there.fig is not None


def test_a_panel_that_fails_is_a_gap_and_not_the_end(services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.panels.sinks.sink_share", lambda *given: 1 / 0)
    broken, there = document(services, Kept("sinks-share"), Kept("sinks-heads")).entries
    assert "(ZeroDivisionError)" in str(broken.shown)
    assert there.fig is not None


@pytest.mark.parametrize(
    "selection",
    [{}, {"point": 1 << 40, "position": -3}, {"span": [9, 2]}, {"head": None}, {"nothing": 1}],
)
def test_a_selection_that_does_not_fit_is_brought_within_the_run(services: Services, selection: dict[str, Any]) -> None:
    [entry] = document(services, Kept("sinks-share", selection=selection)).entries
    assert entry.fig is not None
    assert 0 <= entry.selection.point <= 6
    assert 0 <= entry.selection.position < 48


def test_runs_an_item_was_drawn_from_are_told_after_its_own(services: Services) -> None:
    other = fake_result(TEXT, run_id="run1")
    services.runner.results["run1"] = other
    made = document(services, Kept("sinks-share", {"set": {}, "runs": ["run1", "gone", 7]}))
    assert [run.run_id for run in made.runs] == ["run0", "run1"]
