"""Axes of tokens and layers, cursors, colours: numeric, escaped, bounded; and the Overview drawn from tables."""

import json

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest

from app.figures.overview import event_points, overview
from app.figures.theme import CATEGORICAL, base, cursor, fade, layer_axis, mark, token_axis
from tests.app.fakes import HOSTILE, LAYERS, fake_result


def test_equal_tokens_never_merge_and_labels_are_bounded() -> None:
    fig = token_axis(go.Figure(go.Bar(y=np.ones(258))), [" the"] * 258)
    assert len(fig.layout.xaxis.ticktext) == len(fig.layout.xaxis.tickvals) <= 64
    assert len(set(fig.layout.xaxis.tickvals)) == len(fig.layout.xaxis.tickvals)
    assert set(fig.layout.xaxis.ticktext) == {"·the"}


def test_token_labels_are_escaped_and_may_stand_anywhere() -> None:
    fig = token_axis(go.Figure(), HOSTILE, axis="y", positions=range(10, 10 + len(HOSTILE)))
    assert fig.layout.yaxis.tickvals[0] == 10
    assert not any("<" in text or "$" in text for text in fig.layout.yaxis.ticktext)
    with pytest.raises(ValueError, match="positions must be as many as tokens"):
        token_axis(go.Figure(), ["a"], positions=[1, 2])


@pytest.mark.parametrize(("points", "last"), [(True, 30.5), (False, 29.5)])
def test_layer_axis_ends_at_the_last_point_or_block(points: bool, last: float) -> None:
    assert layer_axis(go.Figure(), 30, points=points).layout.xaxis.range == (-0.5, last)
    assert layer_axis(go.Figure(), 30, axis="y", points=points).layout.yaxis.range == (-0.5, last)


def test_marks_are_escaped_and_cursors_are_lines() -> None:
    fig = cursor(mark(base(go.Figure(go.Scatter(x=[0], y=[0]))), 3, "<b>edge</b>"), x=1, y=2)
    assert fig.layout.annotations[0].text == "&lt;b&gt;edge&lt;/b&gt;"
    assert [(shape.x0, shape.y0) for shape in fig.layout.shapes][1:] == [(1, 0), (0, 2)]


def test_the_frame_fixes_no_text_colour_and_no_ground() -> None:
    fig = base(go.Figure(go.Scatter(x=[0], y=[0])), x="point", y="value")
    assert fig.layout.font.color is None
    assert fig.layout.paper_bgcolor == fig.layout.plot_bgcolor == "rgba(0,0,0,0)"
    assert fig.layout.xaxis.title.text == "point"


def test_fade() -> None:
    assert fade(CATEGORICAL[0], 0.5) == "rgba(0,114,178,0.5)"


def drawn(**changes: pd.DataFrame) -> go.Figure:
    tables = fake_result().tables
    given = {"massive": tables["massive"], "layers": tables["layer_metrics"], "events": tables["events"]}
    return overview(n_layers=LAYERS, **(given | changes))


def test_the_overview_has_every_signal_on_one_axis() -> None:
    fig = drawn()
    names = [trace.name for trace in fig.data]
    assert names == [
        "largest |a|", "median |a|", "share of heads that are sinks", "mean attention to position 0", "uniform attention",
        "normed", "raw, all tokens", "raw, no position 0", "normed, columns permuted", "mean-corrected", "raw",
        "attention", "MLP",
    ]  # fmt: skip
    assert {axis.range for axis in fig.select_xaxes()} == {(-0.5, LAYERS + 0.5)}
    assert all(isinstance(trace.y, np.ndarray) for trace in fig.data)
    assert [annotation.text for annotation in fig.layout.annotations if annotation.yref == "paper"] == ["1", "2"]
    assert "dimension 7" in {annotation.text for annotation in fig.layout.annotations}
    assert len(fig.to_json()) < 100_000


def test_attention_and_mlp_make_up_the_whole_update() -> None:
    shares = {trace.name: trace.y for trace in drawn().data[-2:]}
    np.testing.assert_allclose(shares["attention"] + shares["MLP"], 1.0)


def test_the_lens_row_leaves_out_the_last_point() -> None:
    traces = {trace.name: trace for trace in drawn().data}
    assert max(traces["mean-corrected"].x) == LAYERS - 1


def test_a_row_without_its_tables_says_so() -> None:
    empty = pd.DataFrame()
    fig = drawn(massive=empty, layers=empty, events=empty)
    assert len(fig.data) == 0
    assert [annotation.text for annotation in fig.layout.annotations] == ["not in this run"] * 5
    json.loads(fig.to_json())


def test_events_without_a_place_have_no_line() -> None:
    events = pd.DataFrame({"layer": [np.nan, 4.0], "kind": "x", "text": "y", "evidence": "{}"})
    assert event_points(events) == [(2, 4)]
    frames = {drawn(events=events).get_subplot(row, 1).yaxis.domain for row in range(1, 6)}
    assert {(line.y0, line.y1) for line in drawn(events=events).layout.shapes if line.x0 == line.x1} == frames
    assert len(drawn(events=events).layout.shapes) == len(drawn(events=pd.DataFrame()).layout.shapes) + 5
