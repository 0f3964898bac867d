"""What the figure of one dimension draws, from tables made by hand."""

import numpy as np
import pandas as pd

from app.figures.trace import trace_lines

HOSTILE = "first token <script>$x$</script>"


def trace(reading: str, pos: int, values: list[float]) -> pd.DataFrame:
    rows = pd.DataFrame({"reading": reading, "pos": pos, "layer": range(len(values)), "value": values})
    return rows.sample(frac=1, random_state=0)


def test_lines_show_sizes_and_keep_signs_for_the_hover():
    fig = trace_lines(trace("first token a", 0, [1.0, -300.0, 20.0]), dim=7, n_layers=2)
    [line] = fig.data
    assert line.x.tolist() == [0, 1, 2]
    assert line.y.tolist() == [1, 300, 20]
    assert line.customdata.tolist() == [1, -300, 20]
    assert "dimension 7" in line.hovertemplate
    assert (fig.layout.yaxis.type, fig.layout.xaxis.range) == ("log", (-0.5, 2.5))


def test_a_reading_keeps_its_colour_and_later_positions_are_dotted():
    parts = [trace("chat", 0, [1.0]), trace("plain", 0, [2.0]), trace("chat", 21, [3.0])]
    chat, plain, later = trace_lines(pd.concat(parts), dim=0, n_layers=1).data
    assert chat.line.color == later.line.color != plain.line.color
    assert [line.line.dash for line in (chat, plain, later)] == [None, None, "dot"]
    assert later.name == "chat, position 21"


def test_a_missing_value_is_a_gap_in_its_line():
    line = trace_lines(trace("a", 0, [1.0, np.nan, 3.0]), dim=0, n_layers=2).data[0]
    assert np.isnan(line.y).tolist() == [False, True, False]


def test_tokens_in_names_are_literal():
    line = trace_lines(trace(HOSTILE, 0, [1.0]), dim=0, n_layers=1).data[0]
    assert line.name == "first token &lt;script&gt;&#36;x&#36;&lt;/script&gt;, position 0"
    assert "<script>" not in line.hovertemplate


def test_nothing_traced_is_an_empty_frame():
    empty = pd.DataFrame(columns=["reading", "pos", "layer", "value"])
    assert len(trace_lines(empty, dim=0, n_layers=2).data) == 0
