"""B − A on figures made by hand: cells, lines, bars, logarithmic axes, gaps, texts; and scales that are shared."""

from typing import Any

import numpy as np
import plotly.graph_objects as go
import pytest

from app.figures.difference import difference, difference_table
from app.figures.hover import HOVER_AXES, name_places
from app.figures.overview import overview
from app.figures.scales import share_scales
from app.figures.theme import DIVERGING, base, layer_axis, token_axis
from tests.app.fakes import fake_result


def heat(z: Any, x: Any = None, **more: Any) -> go.Figure:
    fig = go.Figure(go.Heatmap(z=z, x=x, colorbar={"title": {"text": "nats"}}, **more))
    return base(fig, x="token", y="point", legend=False)


def lines(**series: tuple[Any, Any]) -> go.Figure:
    fig = go.Figure()
    for name, (x, y) in series.items():
        fig.add_scatter(x=np.asarray(x), y=np.asarray(y, dtype=float), name=name, mode="lines")
    return base(fig, x="point (0 embeddings)", y="share")


def test_cells_are_subtracted_around_zero() -> None:
    made = difference(heat([[1.0, 2.0], [3.0, 4.0]]), heat([[1.5, 0.0], [3.0, 4.0]]))
    cells = made.data[0]
    np.testing.assert_array_equal(cells.z, np.float32([[0.5, -2.0], [0.0, 0.0]]))
    assert (cells.zmin, cells.zmid, cells.zmax) == (-2.0, 0, 2.0)
    assert cells.colorscale == go.Heatmap(colorscale=DIVERGING).colorscale
    assert cells.colorbar.title.text == "B − A<br>nats"
    np.testing.assert_array_equal(cells.customdata[0, 1], [2.0, 0.0])
    assert cells.hovertemplate.startswith("token %{x}, point %{y}<br>A %{customdata[0]:.4g}<br>B %{customdata[1]:.4g}")


def test_a_missing_cell_is_a_gap_and_never_zero() -> None:
    made = difference(heat([[1.0, np.nan, 5.0]], x=[0, 1, 2]), heat([[2.0, 2.0, 7.0]], x=[1, 2, 3]))
    np.testing.assert_array_equal(made.data[0].x, [0, 1, 2, 3])
    np.testing.assert_array_equal(made.data[0].z, np.float32([[np.nan, np.nan, -3.0, np.nan]]))
    assert made.data[0].hoverongaps is False


def test_equal_cells_are_white_and_all_missing_ones_are_none() -> None:
    same = difference(heat([[3.0]]), heat([[3.0]])).data[0]
    assert (same.z[0, 0], same.zmin, same.zmax) == (0, -1.0, 1.0)
    assert np.isnan(difference(heat([[np.nan]]), heat([[1.0]])).data[0].z).all()


def test_texts_that_differ_say_both() -> None:
    one = heat([[1.0, 2.0, 3.0]], text=[["·mill", "·old", "x"]], texttemplate="%{text}")
    other = heat([[1.0, 2.0]], text=[["·mill", "·new"]], texttemplate="%{text}")
    made = difference(one, other).data[0]
    assert made.text.tolist() == [["·mill", "·old → ·new", ""]]
    assert made.texttemplate == "%{text}"


def test_what_a_hover_said_first_is_told_of_both() -> None:
    said = [np.array([[[text, 1.0]]], dtype=object) for text in ("·a 0.9<br>·b 0.1", "·c 0.8")]
    made = difference(heat([[1.0]], customdata=said[0]), heat([[1.0]], customdata=said[1])).data[0]
    assert made.hovertext.tolist() == [["·a 0.9 → ·c 0.8"]]
    assert made.text is None
    assert "%{hovertext}" in made.hovertemplate


def test_lines_are_matched_by_name_and_place() -> None:
    one = lines(alpha=([0, 1, 2], [1.0, 2.0, np.nan]), only_a=([0], [1.0]))
    other = lines(only_b=([0], [1.0]), alpha=([1, 2, 3], [5.0, 1.0, 1.0]))
    [made] = difference(one, other).data
    assert made.name == "alpha"
    assert made.x.tolist() == [0, 1, 2, 3]
    np.testing.assert_array_equal(made.y, np.float32([np.nan, 3.0, np.nan, np.nan]))
    assert made.connectgaps is False
    np.testing.assert_array_equal(made.customdata[1], [2.0, 5.0])
    assert "point %{x}<br>A %{customdata[0]:.4g}" in made.hovertemplate


def test_lines_have_a_zero_line_and_an_axis_that_says_what_it_is() -> None:
    one, other = lines(a=([0, 1], [0.1, 0.2])), lines(a=([0, 1], [0.3, 0.2]))
    one.update_yaxes(range=[0, 1.02], dtick=0.5)
    one.add_hline(y=0.3)
    one.add_annotation(x=1, y=0.2, text="dimension 7")
    made = difference(one, other)
    axis = made.layout.yaxis
    assert axis.title.text == "B − A<br>share"
    assert (axis.zeroline, axis.autorange, axis.range, axis.dtick) == (True, True, None, None)
    assert not made.layout.shapes
    assert not made.layout.annotations
    assert made.layout.xaxis.title.text == "point (0 embeddings)"


def test_a_logarithmic_axis_becomes_the_log_of_the_ratio_where_both_are_positive() -> None:
    one, other = lines(a=([0, 1, 2], [1.0, 10.0, 0.0])), lines(a=([0, 1, 2], [100.0, 1.0, 5.0]))
    for fig in (one, other):
        fig.update_yaxes(type="log", dtick=1, exponentformat="power")
    made = difference(one, other)
    np.testing.assert_allclose(made.data[0].y, [2.0, -1.0, np.nan])
    assert made.layout.yaxis.type == "linear"
    assert made.layout.yaxis.title.text == "log<sub>10</sub> (B / A)<br>share"


@pytest.mark.parametrize("orientation", ["v", "h"])
def test_bars_are_subtracted_along_their_length(orientation: str) -> None:
    size, place = ("y", "x") if orientation == "v" else ("x", "y")
    figs = [
        base(go.Figure(go.Bar(**{size: values, place: [3, 4]}, orientation=orientation, marker={"color": ["#111111"] * 2})))
        for values in ([1.0, 2.0], [4.0, np.nan])
    ]  # fmt: skip
    made = difference(*figs)
    np.testing.assert_array_equal(getattr(made.data[0], size), np.float32([3.0, np.nan]))
    assert made.data[0].marker.color is None, "the colour of single bars is A's alone"
    assert made.layout[f"{size}axis"].zeroline is True
    assert made.layout[f"{place}axis"].zeroline is False


def test_subplots_stay_apart_and_bands_are_left_out() -> None:
    result = fake_result()
    tables = {name: result.tables[name] for name in ("massive", "events")}
    layers = result.tables["layer_metrics"]
    figs = [
        overview(n_layers=6, layers=layers.assign(value=layers["value"] * factor), **tables) for factor in (1.0, 2.0)
    ]
    made = difference(*figs)
    share = next(trace for trace in made.data if trace.name == "share of heads that are sinks")
    there = layers[layers["metric"] == "sink_share"].sort_values("layer")
    np.testing.assert_allclose(share.y, there["value"].to_numpy(), rtol=1e-6)
    assert share.yaxis == "y2"
    assert made.layout.yaxis4.title.text.startswith("log<sub>10</sub> (B / A)<br>lens KL")
    assert made.layout.barmode == "relative"
    banded = lines(a=([0, 1], [1.0, 2.0]))
    banded.add_scatter(x=[0, 1, 1, 0], y=[0, 0, 1, 1], fill="toself")
    assert len(difference(banded, banded).data) == 1


def test_marks_over_a_map_belong_to_it_and_leave_its_axes_alone() -> None:
    outlined = heat([[1.0, 2.0]])
    outlined.add_scatter(x=[0.5, 0.5, None], y=[-0.5, 0.5, None], mode="lines", hoverinfo="skip")
    layer_axis(outlined, 6, axis="y")
    made = difference(outlined, outlined)
    assert [trace.type for trace in made.data] == ["heatmap"]
    assert made.layout.yaxis.range == (-0.5, 6.5)
    assert made.layout.yaxis.title.text == "point"


def test_the_table_of_a_difference_has_every_cell_and_mark() -> None:
    table = difference_table(difference(heat([[1.0, 2.0]]), heat([[1.5, np.nan]])))
    assert table[["x", "y", "a", "b"]].to_numpy()[0].tolist() == [0.0, 0.0, 1.0, 1.5]
    assert table["drawn"].isna().tolist() == [False, True]
    table = difference_table(difference(lines(a=([3], [1.0])), lines(a=([3], [4.0]))))
    assert table.iloc[0].tolist() == ["a", 3, 3.0, 1.0, 4.0, 3.0]
    assert difference_table(go.Figure()).empty


def test_names_of_places_stay_in_the_hover() -> None:
    def named() -> go.Figure:
        fig = heat([[1.0, 2.0]], x=np.arange(2), **HOVER_AXES)
        token_axis(fig, ["a", "b"])
        return name_places(fig, x=(np.arange(2), ["0 a", "1 b"]))

    made = difference(named(), named())
    assert [trace.type for trace in made.data] == ["heatmap", "scatter"]
    assert made.data[0].xaxis == "x99"
    assert list(made.layout.xaxis99.ticktext) == ["0 a", "1 b"]


def test_inputs_are_never_changed() -> None:
    one, other = heat([[1.0, 2.0]], zmin=0), heat([[5.0, 9.0]])
    layer_axis(one, 6, axis="y")
    before = one.to_json(), other.to_json()
    made = difference(*share_scales(one, other))
    made.layout.xaxis.title.text = "changed"
    made.data[0].z[0, 0] = 77
    assert (one.to_json(), other.to_json()) == before


def test_shared_scales_span_both() -> None:
    one, other = share_scales(heat([[1.0, 2.0]], zmin=0), heat([[5.0, 9.0]]))
    for fig in (one, other):
        assert (fig.data[0].zmin, fig.data[0].zmax) == (0.0, 9.0)
    one, other = share_scales(heat([[-1.0]], zmid=0), heat([[0.0, 4.0]], zmid=0))
    assert (one.data[0].zmin, other.data[0].zmax) == (-4.0, 4.0)
    one, other = share_scales(lines(a=([0, 1], [1.0, 2.0])), lines(a=([0, 3], [0.0, 5.0])))
    low, high = one.layout.yaxis.range
    assert one.layout.yaxis.range == other.layout.yaxis.range
    assert low < 0 < 5 < high
    assert one.layout.xaxis.range[1] > 3


def test_stated_ranges_count_whole_and_keep_their_direction() -> None:
    one, other = lines(a=([0, 1], [1.0, 10.0])), lines(a=([0, 1], [1.0, 1000.0]))
    for fig, last in ((one, 4.0), (other, 5.0)):
        fig.update_yaxes(type="log", range=[last, -0.1])
    one, other = share_scales(one, other)
    assert one.layout.yaxis.range == other.layout.yaxis.range == (5.0, -0.1)
    one, other = lines(a=([0, 1], [1.0, 10.0])), lines(a=([0, 1], [1.0, 1000.0]))
    for fig in (one, other):
        fig.update_yaxes(type="log")
    one, other = share_scales(one, other)
    np.testing.assert_allclose(one.layout.yaxis.range, [-0.09, 3.09], atol=1e-6)


def test_marker_colours_are_shared_and_empty_figures_are_left_alone() -> None:
    figs = [
        go.Figure(go.Scatter(x=[0], y=[0], mode="markers", marker={"color": np.array([value])})) for value in (1.0, 7.0)
    ]
    one, other = share_scales(*figs)
    assert (one.data[0].marker.cmin, other.data[0].marker.cmax) == (1.0, 7.0)
    empty = share_scales(go.Figure(), heat([[1.0]]))[0]
    assert not empty.data
    assert difference(go.Figure(), heat([[1.0]])).data == ()


def test_rounding_is_no_difference() -> None:
    made = difference(heat([[10.0, 2.0]]), heat([[10.0 + 2e-7, 2.0]])).data[0]
    assert (made.zmin, made.zmax) == pytest.approx((-1e-5, 1e-5), rel=1e-3)
    assert made.colorbar.title.text == "B − A<br>nats<br>no difference above 1e-05"
    line = difference(lines(alpha=([0, 1], [10.0, 2.0])), lines(alpha=([0, 1], [10.0 + 2e-7, 2.0])))
    assert line.layout.yaxis.range == pytest.approx((-1e-5, 1e-5), rel=1e-3)
    assert line.layout.yaxis.title.text.endswith("no difference above 1e-05")


def test_a_difference_beyond_rounding_sets_its_own_scale() -> None:
    made = difference(heat([[10.0, 2.0]]), heat([[10.0, 2.5]])).data[0]
    assert (made.zmin, made.zmax) == (-0.5, 0.5)
    assert "no difference" not in made.colorbar.title.text
    line = difference(lines(alpha=([0, 1], [10.0, 2.0])), lines(alpha=([0, 1], [10.0, 2.5])))
    assert line.layout.yaxis.range is None
