"""The page Sinks over a stored run without a model."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from streamlit.testing.v1 import AppTest

from app.panels import registry
from app.panels.panel import Click
from app.panels.sinks import COSINES, HEAD_METRICS, sink_heads
from app.selection import Selection
from app.view import View
from tests.app.conftest import OpenPage
from tests.app.fakes import FACTS, HEADS, HOSTILE, LAYERS, TEXT, FakeResult, fake_result, fake_services, told

TOKENS = HOSTILE + TEXT * 4


def pattern(n_tokens: int) -> torch.Tensor:
    """Every head sends half of its attention to position 0, and block 1 a third to position 5."""
    rows = torch.eye(n_tokens, dtype=torch.float64) / 2
    rows[:, 0] += 0.5
    attention = rows.expand(LAYERS, HEADS, -1, -1).clone()
    attention[1, :, 5:, 5] += 0.4
    attention[1, :, 5:, 0] -= 0.4
    return attention


def result(tokens: tuple[str, ...] = TOKENS) -> FakeResult:
    made = fake_result(tokens)
    attention = pattern(len(tokens))
    norms = torch.rand(LAYERS, HEADS, len(tokens), generator=torch.Generator().manual_seed(0))
    special = torch.zeros(len(tokens), dtype=torch.uint8)
    special[4] = 1
    rows = made.tables["token_metrics"]
    cosines = [rows[rows["metric"] == "resid_norm"].assign(metric=f"bos_cosine_{kind}") for kind in COSINES]
    made.tables["token_metrics"] = pd.concat([rows, *cosines], ignore_index=True)
    made.tensors.update(
        {
            "attention.column_sum": attention.sum(-2),
            "attention.value_l1": norms,
            "attention.value_out": norms,
            "special": special,
        }
    )
    return made


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch, open_page: OpenPage):
    """Put a result behind the app and open the page on it; the pattern of a block is answered at once."""

    def served(shown: FakeResult, **query: str) -> AppTest:
        answer = SimpleNamespace(
            tensor=lambda name: pattern(len(shown.tokens))[1].float(), info=SimpleNamespace(notes=("**note**",))
        )
        monkeypatch.setattr("app.views.sinks.extra", lambda view, call, **_: answer)
        monkeypatch.setattr(View, "find", lambda view, *calls: answer)
        return open_page("sinks", shown, **query)

    return served


def test_every_panel_is_drawn(serve) -> None:
    app = serve(result(), point="2")
    assert not app.exception
    for title in ("Heads by block", "Share of sink heads", "Attention received by token, block 1, mean over heads"):
        assert f"**{title}**" in told(app)
    assert "**All heads of block 1**" in told(app)
    assert "Attention and values, block 1, head" in told(app)
    assert "\\*\\*note\\*\\*" in told(app)


def test_the_sink_list_names_tokens_literally(serve) -> None:
    table = serve(result(), point="2").dataframe(key="sinks-list").value
    assert table["pos"].tolist() == [0, 5]
    assert table["token"].tolist() == ["<script>alert(1)</script>", "\\u202ertl"]
    assert table["kind"].tolist() == ["first position", "other"]
    assert table["n_heads"].tolist() == [20, 4]
    assert table["first_block"].tolist() == [0, 1]


def test_the_selected_head_is_shown(serve) -> None:
    app = serve(result(), point="2", head="3")
    assert "Attention received by token, block 1, head 3" in told(app)
    assert "Block 1, head 3**" in told(app)


def test_every_number_and_cosine_can_be_chosen(serve) -> None:
    shown = result()
    scores = shown.tables["head_metrics"]
    extra = [scores[scores["metric"] == "sink_score"].assign(metric=name) for name in HEAD_METRICS]
    shown.tables["head_metrics"] = pd.concat([*extra, scores[scores["metric"] == "is_sink"]])
    app = serve(shown, point="2")
    for key, options in (("sinks-metric", HEAD_METRICS), ("sinks-cosine-kind", COSINES)):
        for option in options:
            app.segmented_control(key=key).set_value(option).run()
            assert not app.exception, option
    assert "three largest dimensions zeroed" in told(app)


def test_a_run_without_sinks_says_so(serve) -> None:
    shown = result()
    shown.tables.pop("head_metrics")
    app = serve(shown)
    assert not app.exception
    assert "This run did not ask for sinks." in told(app)


def test_a_text_of_three_tokens_says_how_many_it_needs(serve) -> None:
    shown = fake_result(TEXT[:3])
    shown.tables["head_metrics"] = shown.tables["head_metrics"].assign(value=np.nan)
    app = serve(shown)
    assert not app.exception
    assert "Sink scores need at least 4 tokens; this text has 3." in told(app)


def test_short_texts_have_no_dots_and_say_why(serve) -> None:
    shown = result(TEXT)
    rows = shown.tables["head_metrics"]
    shown.tables["head_metrics"] = rows.assign(value=rows["value"].mask(rows["metric"] == "is_sink"))
    app = serve(shown)
    assert not app.exception
    assert "Below 32 tokens no head is called a sink" in told(app)


def test_sink_heads_are_listed_the_strongest_first() -> None:
    scores = pd.DataFrame({"layer": [0, 0, 1], "head": [0, 1, 0], "metric": "sink_score", "value": [0.4, 0.1, 0.9]})
    flags = scores.assign(metric="is_sink", value=[1.0, 0.0, 1.0])
    shown = result()
    shown.tables["head_metrics"] = pd.concat([scores, flags], ignore_index=True)
    held = fake_services(shown)
    listed = sink_heads(View(held, shown, Selection(1, 0)))
    held.close()
    assert listed.to_numpy().tolist() == [[1, 0, 0.9], [0, 0, 0.4]]


def test_dropped_tensors_are_gaps_with_their_reason(serve) -> None:
    shown = result()
    shown.tensors.clear()
    app = serve(shown)
    assert not app.exception
    assert told(app).count("are no longer kept: run the text again") == 3


def test_long_texts_show_a_stretch_around_the_selected_token(serve) -> None:
    app = serve(result(TEXT * 60), pos="590")
    assert not app.exception


@pytest.mark.parametrize(
    ("key", "click", "chosen"),
    [
        ("sinks-heads", Click(2.0, 5.0), {"point": 6, "head": 2}),
        ("sinks-share", Click(4.2, 0.5), {"point": 4}),
        ("sinks-tokens", Click(7, 0.1), {"position": 7}),
        ("sinks-cosine", Click(7, 3), {"point": 3, "position": 7}),
        ("sinks-all-heads", Click(99, 99, [3, 41, 7]), {"head": 3, "position": 7}),
        ("sinks-attention", Click(9, 12), {"position": 9}),
        ("sinks-values", Click(1, 1, ["tok", 12, 0.1, 0.2], 1), {"position": 12}),
        ("sinks-values", Click(1, 1, None), {}),
    ],
)
def test_clicks_select_what_was_clicked(
    monkeypatch: pytest.MonkeyPatch, key: str, click: Click, chosen: dict[str, int]
) -> None:
    shown = result()
    answer = SimpleNamespace(tensor=lambda name: pattern(len(shown.tokens))[1].float(), info=SimpleNamespace(notes=()))
    monkeypatch.setattr(View, "find", lambda view, *calls: answer)
    drawn = registry.panel(key).draw(View(fake_services(shown), shown, Selection(2, 3)))  # type: ignore[arg-type]
    assert drawn.fig is not None
    assert drawn.picked(click) == chosen
    assert len(drawn.table())


def test_facts_have_a_window_for_each_block() -> None:
    assert len(FACTS.windows) == LAYERS
