"""What the lens figures draw, from tables made by hand."""

import numpy as np
import pandas as pd
import pytest

from app.figures.lens import COLOURS, lens_map
from app.figures.lens_lines import layer_curves, rank_lines, trajectories

LAYERS, TOKENS = 3, ("<b>", " a", "\n", "$y$", " e")
TEXTS = {7: " river", 8: "<i>x</i>"}


def rows(metric: str, grid: np.ndarray) -> pd.DataFrame:
    layer, pos = np.indices(grid.shape).reshape(2, -1)
    return pd.DataFrame({"layer": layer, "pos": pos, "metric": metric, "value": grid.ravel()})


@pytest.fixture
def metrics() -> pd.DataFrame:
    grid = np.arange(1.0, 21.0).reshape(4, 5)
    parts = [
        rows(name + suffix, grid * factor)
        for suffix, factor in (("", 10.0), ("@mean", 1.0))
        for name in (
            "lens_kl",
            "lens_entropy",
            "lens_rank",
            "lens_rank_control",
            "lens_ce",
            "lens_ce_final",
            "lens_top1_nlp",
        )
    ]
    depth = pd.DataFrame(
        {"layer": pd.NA, "pos": range(5), "metric": "lens_depth@mean", "value": [3.0, 2, 1, 0, np.nan]}
    )
    return pd.concat([*parts, depth]).astype({"layer": "Int64"})


@pytest.fixture
def topk() -> pd.DataFrame:
    cells = [(layer, pos, rank) for layer in range(4) for pos in range(5) for rank in (1, 2)]
    frame = pd.DataFrame(cells, columns=["layer", "pos", "rank"])
    return frame.assign(variant="mean", token_id=np.where(frame["rank"] == 1, 7, 8), prob=0.5 / frame["rank"])


def drawn(topk: pd.DataFrame, metrics: pd.DataFrame, colour: str, **given: object):
    options = {"variant": "mean", **given}
    return lens_map(topk, metrics, TOKENS, LAYERS, TEXTS, colour=colour, **options)


def test_map_has_points_upwards_and_tokens_along(topk, metrics):
    fig = drawn(topk, metrics, "KL to the end")
    heat = fig.data[0]
    assert heat.z.shape == (4, 5)
    assert heat.z[2, 1] == 12
    assert isinstance(heat.z, np.ndarray)
    assert fig.layout.yaxis.range[0] < fig.layout.yaxis.range[1]
    assert fig.layout.xaxis.ticktext[0] == "&lt;b&gt;"


@pytest.mark.parametrize(
    ("colour", "expected"),
    [
        ("p of the top token", np.exp(-12)),
        ("entropy", 12),
        ("rank of the target", np.log10(12)),
        ("loss of the target", 12),
        ("confidence, scaled over the map", 8 / 19),
        ("confidence, scaled over each layer", 0.75),
        ("confidence, scaled over each token", 1 / 3),
    ],
)
def test_every_colour_draws_its_metric(topk, metrics, colour, expected):
    assert drawn(topk, metrics, colour).data[0].z[2, 1] == pytest.approx(expected, rel=1e-5)


def test_hover_tells_the_value_and_the_escaped_top_tokens(topk, metrics):
    for colour in COLOURS:
        heat = drawn(topk, metrics, colour).data[0]
        assert heat.customdata[2, 1][0] == "·river 0.500<br>&lt;i&gt;x&lt;/i&gt; 0.250"
        assert "%{customdata[1]" in heat.hovertemplate
    assert drawn(topk, metrics, "rank of the target").data[0].customdata[2, 1][1] == 12


def test_raw_variant_reads_raw_rows_and_says_so(topk, metrics):
    heat = drawn(topk.assign(variant="raw"), metrics, "KL to the end", variant="raw").data[0]
    assert heat.customdata[2, 1][1] == 120
    assert "(raw)" in heat.hovertemplate


def test_cells_are_named_only_where_they_are_wide(topk, metrics):
    assert drawn(topk, metrics, "entropy").data[0].text[0, 0] == "·river"
    wide = lens_map(topk, metrics, TOKENS * 8, LAYERS, TEXTS, colour="entropy", variant="mean")
    assert wide.data[0].text is None


def test_a_window_and_positions_not_read_are_gaps(topk, metrics):
    some = metrics[metrics["pos"] != 3]
    heat = lens_map(topk, some, TOKENS[2:], LAYERS, TEXTS, colour="entropy", variant="mean", first=2).data[0]
    assert heat.x.tolist() == [2, 3, 4]
    assert np.isnan(heat.z[:, 1]).all()
    assert heat.z[1, 0] == 8


def test_dots_stand_at_the_depth_of_the_variant(topk, metrics):
    dots = drawn(topk, metrics, "entropy").data[1]
    assert dots.y.tolist()[:4] == [3, 2, 1, 0]
    assert len(drawn(topk, metrics, "entropy", variant="raw").data[1].x) == 0


def test_trajectories_show_both_variants_of_one_position(metrics):
    fig = trajectories(metrics, 2, LAYERS)
    by_name = {(trace.name, trace.yaxis): trace.y.tolist() for trace in fig.data}
    assert by_name["mean-corrected", "y"] == [3, 8, 13, 18]
    assert by_name["raw", "y2"] == [30, 80, 130, 180]
    assert {"mean-corrected target", "raw final answer"} <= {trace.name for trace in fig.data}


def test_a_line_without_numbers_is_left_out_and_kl_is_logarithmic(metrics):
    metrics.loc[metrics["metric"] == "lens_ce", "value"] = np.nan
    metrics.loc[(metrics["metric"] == "lens_kl") & (metrics["layer"] == 3), "value"] = 0.0
    fig = trajectories(metrics, 2, LAYERS)
    raw = next(trace for trace in fig.data if (trace.name, trace.yaxis) == ("raw", "y"))
    assert raw.x.tolist() == [0, 1, 2]
    curve = next(trace for trace in layer_curves(metrics, LAYERS, 10)[0].data if trace.name == "raw")
    assert curve.x.tolist() == [0, 1, 2]
    assert "raw target" not in {trace.name for trace in fig.data}
    assert (fig.layout.yaxis.type, fig.layout.yaxis2.type) == ("log", None)


def test_ranks_are_logarithmic_best_on_top_beside_control_and_chance(metrics):
    fig = rank_lines(metrics, 2, LAYERS, n_vocab=1000)
    assert fig.layout.yaxis.type == "log"
    assert fig.layout.yaxis.range[0] > fig.layout.yaxis.range[1]
    names = {trace.name for trace in fig.data}
    assert names == {
        "mean-corrected",
        "raw",
        "another position's target, mean-corrected",
        "another position's target, raw",
    }
    assert fig.layout.shapes[0].y0 == 500.5


def test_a_position_without_target_has_no_rank_lines(metrics):
    metrics.loc[metrics["metric"].str.startswith("lens_rank"), "value"] = np.nan
    assert len(rank_lines(metrics, 4, LAYERS, n_vocab=10).data) == 0


def test_curves_leave_position_0_out_and_say_how_many_positions(metrics):
    kl, ranks = layer_curves(metrics, LAYERS, n_vocab=1000)
    line = next(trace for trace in kl.data if trace.name == "mean-corrected")
    assert line.y.tolist() == [3.5, 8.5, 13.5, 18.5]
    assert line.customdata.tolist() == [4] * 4
    median = next(trace for trace in ranks.data if trace.name == "raw")
    assert median.y.tolist() == [35, 85, 135, 185]
