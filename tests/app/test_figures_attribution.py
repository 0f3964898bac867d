"""What the attribution figures draw, from a table made by hand."""

import numpy as np
import pandas as pd
import pytest

from app.figures.attribution import component_bars, head_map, source_bars, summed_parts

LAYERS, HEADS = 2, 3
TOKENS = ("<b>", " a", "\n")


@pytest.fixture
def components() -> pd.DataFrame:
    rows = [(pd.NA, "embed", pd.NA, pd.NA, 1.0), (pd.NA, "norm_bias", pd.NA, pd.NA, 0.5)]
    rows += [(block, "head", head, pd.NA, float(block + head)) for block in range(2) for head in range(3)]
    rows += [(0, "attn_bias", pd.NA, pd.NA, -0.5), (0, "mlp", pd.NA, pd.NA, -1.0), (1, "mlp", pd.NA, pd.NA, 4.0)]
    rows += [(1, "head", 2, pos, 1.0) for pos in range(3)]
    frame = pd.DataFrame(rows, columns=["layer", "component", "head", "source_pos", "value"])
    return frame.astype({"layer": "Int64", "head": "Int64", "source_pos": "Int64"}).assign(pos=2, target="5-9")


def test_parts_leave_out_the_rows_that_split_a_head(components):
    parts = summed_parts(components)
    assert parts["value"].sum() == 13.0
    assert parts["share"].sum() == pytest.approx(100)


def test_shares_are_missing_where_parts_cancel(components):
    components.loc[components["component"] == "norm_bias", "value"] = -12.0
    assert summed_parts(components)["share"].isna().all()
    assert "parts cancel" in head_map(components, LAYERS, HEADS).data[0].customdata[0, 0]


def test_head_map_is_centred_on_zero_with_heads_along(components):
    fig = head_map(components, LAYERS, HEADS)
    heat = fig.data[0]
    assert heat.z.tolist() == [[0, 1, 2], [1, 2, 3]]
    assert (heat.zmid, heat.zmin, heat.zmax) == (0, -3, 3)
    assert heat.customdata[1, 2] == "<br>23.1 % of the total"
    assert fig.layout.xaxis.title.text == "head"


def test_bars_stand_at_points_and_their_sum_ends_at_the_total(components):
    by_name = {trace.name: trace for trace in component_bars(components, LAYERS).data}
    assert by_name["attention"].x.tolist() == [1, 2]
    assert by_name["attention"].y.tolist() == [2.5, 6]
    assert by_name["MLP"].y.tolist() == [-1, 4]
    assert by_name["embeddings, bias"].x.tolist() == [0, 3]
    assert by_name["running sum"].y.tolist() == [1, 2.5, 12.5, 13]


def test_source_bars_are_of_the_head_and_escape_tokens(components):
    fig = source_bars(components, TOKENS, 1, 2)
    assert fig.data[0].y.tolist() == [1, 1, 1]
    assert fig.data[0].customdata[0] == "0 &lt;b&gt;"
    assert fig.layout.xaxis.ticktext == ("&lt;b&gt;", "·a", "⏎")
    assert isinstance(fig.data[0].y, np.ndarray)
    assert len(source_bars(components, TOKENS, 0, 0).data[0].x) == 0
