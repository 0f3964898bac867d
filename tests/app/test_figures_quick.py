"""Quick charts: a sensible first choice, escaped text at its own place, one sentence for what cannot be drawn."""

import numpy as np
import pandas as pd
import pytest

from app.figures.quick import MAX_GROUPS, MAX_ROWS, Chart, quick_chart, suggest
from tests.app.fakes import HOSTILE

LAYERS = pd.DataFrame({"layer": [1, 0, 0, 1], "value": [4.0, 3.0, 1.0, np.nan], "run": ["a", "a", "b", "b"]})


@pytest.mark.parametrize(
    ("frame", "chart"),
    [
        (LAYERS, Chart("line", "layer", "value", "run")),
        (LAYERS[["layer", "value"]], Chart("scatter", "layer", "value")),
        (pd.DataFrame({"text": ["a", "b"], "nll": [1.0, 2.0]}), Chart("bar", "text", "nll")),
        (pd.DataFrame({"a": [1, 2], "b": [3, 4]}), Chart("scatter", "b", "a")),
        (LAYERS[["run", "layer", "value"]], Chart("line", "layer", "value", "run")),
        (pd.DataFrame({"text": list("abcdefghijklmnop"), "pos": range(16), "nll": 1.0}), Chart("bar", "text", "nll")),
        (pd.DataFrame({"many": [[1], [2]], "n": [1, 2]}), Chart("bar", "many", "n")),
        (pd.DataFrame({"n": [1]}), None),
        (pd.DataFrame({"text": ["a"], "flag": [True]}), None),
        (LAYERS.head(0), None),
    ],
)
def test_a_first_choice(frame: pd.DataFrame, chart: Chart | None) -> None:
    assert suggest(frame) == chart
    if chart is not None:
        assert len(quick_chart(frame, chart).data) > 0


def test_a_map_has_layers_as_rows() -> None:
    frame = pd.DataFrame({"layer": [0, 0], "head": [0, 1], "value": [1.0, 2.0]})
    assert suggest(frame, "heatmap") == Chart("heatmap", "head", "layer", "value")


def test_lines_run_from_left_to_right_and_keep_their_gaps() -> None:
    first, second = quick_chart(LAYERS, Chart("line", "layer", "value", "run")).data
    assert (first.name, first.x.tolist(), first.y.tolist()) == ("a", [0, 1], [3, 4])
    assert np.isnan(second.y[1])


def test_equal_tokens_are_bars_of_their_own_and_text_is_escaped() -> None:
    frame = pd.DataFrame({"text": [*HOSTILE, HOSTILE[0]], "nll": range(len(HOSTILE) + 1)})
    fig = quick_chart(frame, Chart("bar", "text", "nll"))
    assert fig.data[0].x.tolist() == list(range(len(frame)))
    assert not any(sign in text for text in fig.layout.xaxis.ticktext for sign in "<$")
    assert not any(sign in text for text in fig.data[0].customdata for sign in "<$")


def test_names_of_columns_and_groups_are_escaped() -> None:
    frame = pd.DataFrame({"<b>x": [1, 2], "%{y}": [1, 2], "$g$": ["<i>", "%{x}"]})
    fig = quick_chart(frame, Chart("scatter", "<b>x", "%{y}", "$g$"))
    assert fig.layout.xaxis.title.text == "&lt;b&gt;x"
    assert [trace.name for trace in fig.data] == ["&lt;i&gt;", "%&#123;x}"]
    assert not any("%{y}" in trace.hovertemplate.replace("%{y:.6g}", "") for trace in fig.data)


def test_a_heatmap_leaves_blank_what_is_not_there() -> None:
    frame = pd.DataFrame({"head": [0, 1, 1], "layer": [0, 0, 2], "value": [1.0, -2.0, 3.0]})
    (trace,) = quick_chart(frame, Chart("heatmap", "head", "layer", "value")).data
    np.testing.assert_array_equal(trace.z, [[1.0, -2.0], [np.nan, 3.0]])
    assert (trace.y.tolist(), trace.zmid) == ([0, 2], 0)


def test_integers_with_null_and_times_are_drawn() -> None:
    frame = pd.DataFrame(
        {
            "when": pd.to_datetime(["2024-01-01", "2024-01-02"], utc=True),
            "n": pd.array([1, None], dtype="Int64"),
            "size": [1.0, 2.0],
        }
    )
    (trace,) = quick_chart(frame, Chart("scatter", "when", "n", "size")).data
    assert np.isnan(trace.y[1])
    assert trace.marker.color.tolist() == [1, 2]


@pytest.mark.parametrize(
    ("frame", "chart", "says"),
    [
        (LAYERS, Chart("line", "nope", "value"), "no column 'nope'"),
        (LAYERS, Chart("line", "layer", "run"), "'run' is not"),
        (LAYERS, Chart("heatmap", "layer", "run", None), "a column of numbers as its colour"),
        (LAYERS.assign(run="a"), Chart("heatmap", "layer", "run", "value"), "one row for each x and y"),
        (
            pd.DataFrame({"x": range(MAX_GROUPS + 1), "y": 0, "g": [str(i) for i in range(MAX_GROUPS + 1)]}),
            Chart("line", "x", "y", "g"),
            f"at most {MAX_GROUPS} apart",
        ),
        (pd.DataFrame({"x": range(MAX_ROWS + 1), "y": 0}), Chart("line", "x", "y"), "at most 20,000 rows"),
        (
            pd.DataFrame({"x": range(999), "y": range(999), "z": 0}),
            Chart("heatmap", "x", "y", "z"),
            "at most 250,000 cells",
        ),
    ],
)
def test_what_cannot_be_drawn_is_told(frame: pd.DataFrame, chart: Chart, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        quick_chart(frame, chart)
