"""What the figures of a logit difference and of patching draw, from tables made by hand."""

import numpy as np
import pandas as pd
import pytest

from app.figures.patching import difference_lines, patch_map

TOKENS = ("<b>x</b>", " a", "\n", "$y$")


def by_point(values: list[float]) -> pd.DataFrame:
    rows = pd.DataFrame({"layer": range(len(values)), "metric": "logit_diff", "value": values})
    return rows.sample(frac=1, random_state=0)


def cells(values: dict[tuple[int, int], float]) -> pd.DataFrame:
    places = pd.DataFrame(list(values), columns=["layer", "pos"]).astype({"layer": "Int64"})
    return places.assign(metric="patched_logit_diff", value=list(values.values()))


def test_lines_are_ordered_by_point_and_the_third_is_their_difference():
    fig = difference_lines(by_point([1.0, 2.0, -3.0]), by_point([0.5, 4.0, -1.0]), n_layers=2)
    assert [trace.name for trace in fig.data] == ["A", "B", "B − A"]
    assert [trace.x.tolist() for trace in fig.data] == [[0, 1, 2]] * 3
    assert fig.data[0].y.tolist() == [1, 2, -3]
    assert fig.data[2].y.tolist() == [-0.5, 2, 2]
    [line] = fig.layout.shapes
    assert (line.y0, line.y1) == (0, 0)
    assert fig.layout.xaxis.range == (-0.5, 2.5)


def test_a_difference_missing_in_one_run_is_a_gap_in_both_of_its_lines():
    fig = difference_lines(by_point([1.0, np.nan]), by_point([2.0, 3.0]), n_layers=1)
    assert np.isnan(fig.data[0].y).tolist() == np.isnan(fig.data[2].y).tolist() == [False, True]
    assert fig.data[1].y.tolist() == [2, 3]


@pytest.mark.parametrize(("source", "own"), [(6.0, -2.0), (-2.0, 6.0)])
def test_red_is_a_blue_is_b_whichever_is_larger(source: float, own: float):
    middle = (source + own) / 2
    fig = patch_map(cells({(0, 0): own, (1, 2): source, (2, 1): middle}), source, own, TOKENS, n_layers=2)
    heat = fig.data[0]
    assert heat.z.shape == (3, 4)
    assert (heat.z[0, 0], heat.z[1, 2], heat.z[2, 1]) == (-1, 1, 0)
    assert (heat.zmin, heat.zmid, heat.zmax) == (-1, 0, 1)
    assert heat.customdata[1, 2].tolist() == [source, 1]
    assert heat.customdata[0, 0].tolist() == [own, 0]
    assert heat.colorbar.ticktext == (f"B {own:.1f}", "half", f"A {source:.1f}")


def test_what_was_not_patched_is_a_gap():
    heat = patch_map(cells({(1, 3): 0.5}), 1.0, 0.0, TOKENS, n_layers=2).data[0]
    assert np.isfinite(heat.z).sum() == 1
    assert heat.hoverongaps is False


def test_tokens_are_literal_below_the_map_and_points_go_upwards():
    fig = patch_map(cells({(0, 0): 0.0}), 1.0, 0.0, TOKENS, n_layers=2)
    assert fig.layout.xaxis.ticktext == ("&lt;b&gt;x&lt;/b&gt;", "·a", "⏎", "&#36;y&#36;")
    assert fig.layout.yaxis.range == (-0.5, 2.5)


def test_equal_differences_have_nothing_to_restore():
    with pytest.raises(ValueError, match="nothing to restore"):
        patch_map(cells({(0, 0): 1.0}), 1.0, 1.0, TOKENS, n_layers=2)
