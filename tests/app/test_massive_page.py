"""The page Massive activations over a stored run without a model."""

import pandas as pd
import pytest
import torch
from streamlit.testing.v1 import AppTest

from app.panels import registry
from app.panels.massive import DRAWINGS
from app.panels.panel import Click
from app.selection import Selection
from app.view import View
from tests.app.conftest import OpenPage
from tests.app.fakes import HOSTILE, LAYERS, TEXT, WIDTH, FakeResult, fake_result, fake_services, told

TOKENS = HOSTILE + TEXT * 4


def result(tokens: tuple[str, ...] = TOKENS) -> FakeResult:
    made = fake_result(tokens)
    layers = range(LAYERS + 1)
    names = ("massive_top1", "massive_top2", "massive_top3", "massive_top1@no_sink", "massive_median")
    rows = [(layer, name, 10.0 * (layer + 1), 48, "ok") for layer in layers for name in names]
    made.tables["layer_metrics"] = pd.DataFrame(rows, columns=["layer", "metric", "value", "n_used", "status"])
    events = [(0, 7, 3, pd.NA, 1.0, 2480.0), (0, 9, 3, 5, -900.0, 20.0), (4, 7, 0, 1, None, None)]
    columns = ["pos", "dim", "birth", "death", "attn_delta", "mlp_delta"]
    made.tables["massive_events"] = pd.DataFrame(events, columns=columns)
    neurons = [(0, 7, 2, 11, 2000.0), (0, 7, 2, 12, 480.0), (0, 9, 2, 13, 20.0)]
    made.tables["massive_neurons"] = pd.DataFrame(neurons, columns=["pos", "dim", "layer", "neuron", "contribution"])
    draw = torch.Generator().manual_seed(0)
    for name in ("share", "mean", "sd"):
        made.tensors[f"rogue_{name}"] = torch.rand(LAYERS + 1, WIDTH, generator=draw)
    for point in layers:
        made.tensors[f"resid.{point}"] = torch.randn(len(tokens), WIDTH, generator=draw)
    return made


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch, open_page: OpenPage):
    def served(shown: FakeResult, **query: str) -> AppTest:
        return open_page("massive", shown, **query)

    return served


def test_every_panel_is_drawn(serve) -> None:
    app = serve(result(), point="3")
    assert not app.exception
    titles = ("Largest entries by point", "Birth and death, strict", "Rogue dimensions", "All entries of point 3")
    for title in titles:
        assert f"**{title}**" in told(app)


def test_the_largest_birth_is_explained_first(serve) -> None:
    text = told(serve(result(), pos="20"))
    assert "dimension 7, born in block 2" in text
    assert "<script\\>" in text or "\\<script\\>" in text


@pytest.mark.parametrize(
    ("pos", "dim", "expected"),
    [
        ("0", "9", "dimension 9, born in block 2"),
        ("30", "9", "dimension 9, born in block 2"),
        ("4", "7", "is in the embeddings: no block wrote it"),
    ],
)
def test_the_selected_entry_is_explained(serve, pos: str, dim: str, expected: str) -> None:
    app = serve(result(), pos=pos, dim=dim)
    assert not app.exception
    assert expected in told(app)


def test_entries_are_listed_by_criterion_with_literal_tokens(serve) -> None:
    shown = result()
    shown.tables["massive"] = shown.tables["massive"].assign(relative=False)
    app = serve(shown)
    table = app.dataframe[0].value
    assert table[["token", "pos", "dim", "first_point", "last_point"]].to_numpy().tolist() == [
        ["<script>alert(1)</script>", 0, 7, 3, 6]
    ]
    app.segmented_control(key="massive-criterion").set_value("relative").run()
    assert not app.exception
    assert "No entry is massive by the relative criterion" in told(app)


def test_every_drawing_can_be_chosen(serve) -> None:
    app = serve(result(TEXT * 60), pos="400")
    for drawing in DRAWINGS:
        app.segmented_control(key="massive-drawing").set_value(drawing).run()
        assert not app.exception, drawing
    assert "Positions 256 to 511." in told(app)


def test_a_run_without_massive_activations_says_so(serve) -> None:
    shown = result()
    shown.tables.pop("massive")
    app = serve(shown)
    assert not app.exception
    assert "This run did not ask for massive activations." in told(app)


def test_nothing_born_is_said(serve) -> None:
    shown = result()
    shown.tables["massive_events"] = shown.tables["massive_events"].iloc[:0]
    app = serve(shown)
    assert not app.exception
    assert "Nothing was born in this run" in told(app)


def test_dropped_tensors_are_gaps_with_their_reason(serve) -> None:
    shown = result()
    shown.tensors.clear()
    app = serve(shown)
    assert not app.exception
    assert told(app).count("This tensor is no longer kept") == 2


def test_clicks_select_what_was_clicked() -> None:
    shown = result()
    shown.tensors["rogue_share"][:, 9] = 2.0  # the largest: it stands on top
    view = View(fake_services(shown), shown, Selection(3, 5))

    def picked(key: str, click: Click, **options: str) -> dict[str, int | None]:
        return dict(registry.panel(key).draw(view, options).picked(click))

    assert picked("massive-top", Click(12.2, 5.0)) == {"point": 12}
    assert picked("massive-lives", Click(12, 1, [0, 507], 1)) == {"point": 12, "position": 0, "dimension": 507}
    assert picked("massive-rogue", Click(6, 0, [1.5, 2.5, 9.0])) == {"point": 6, "dimension": 9}
    assert picked("massive-entries-map", Click(7, 11), drawing="map") == {"position": 7, "dimension": 11}
    assert picked("massive-writers", Click("MLP", 3.0)) == {"point": 3, "position": 0, "dimension": 7}


def test_rogue_shares_that_cannot_be_given(serve) -> None:
    shown = result()
    shown.tensors["rogue_share"] = torch.full((LAYERS + 1, WIDTH), torch.nan)
    assert "shares cannot be given" in told(serve(shown))
