"""What the sink and attention figures draw, from tables made by hand."""

import json

import numpy as np
import pandas as pd
import pytest

from app.figures.attention import attention_map, head_thumbnails, max_pool
from app.figures.hover import name_places, place_names
from app.figures.sinks import bos_cosine_map, head_map, importance_bars, rank_scatter, sink_share

TOKENS = ["<b>x</b>", " a", "\n", "$y$"] * 3
LIMIT = 2_000_000


def head_metrics(score: np.ndarray, metric: str = "sink_score") -> pd.DataFrame:
    blocks, heads = np.indices(score.shape)
    columns = {"layer": blocks.ravel(), "head": heads.ravel(), "metric": metric, "value": score.ravel(), "n_used": 12}
    return pd.DataFrame(columns).sample(frac=1, random_state=0)


def uniform_pattern(n_heads: int, n_tokens: int) -> np.ndarray:
    rows = np.tril(np.ones((n_tokens, n_tokens), dtype="float32"))
    return np.repeat((rows / rows.sum(1, keepdims=True))[None], n_heads, axis=0)


def test_head_map_has_blocks_upwards_and_heads_across():
    score = np.arange(12.0).reshape(3, 4) / 20
    fig = head_map(head_metrics(score))
    np.testing.assert_allclose(fig.data[0].z, score.astype("float32"))
    assert (fig.layout.yaxis.range, fig.layout.xaxis.range) == ((-0.5, 2.5), (-0.5, 3.5))
    assert (fig.data[0].zmin, fig.data[0].zmax) == (0, 1)


def test_each_sink_head_has_a_dot_and_no_other():
    score = np.full((3, 3), 0.31)
    score[1, 1] = 0.3  # a hole among sinks is no sink
    dots = head_map(head_metrics(score)).data[1]
    assert dots.mode == "markers"
    marked = set(zip(dots.y.tolist(), dots.x.tolist(), strict=True))
    assert marked == {(block, head) for block in range(3) for head in range(3)} - {(1, 1)}
    assert len(head_map(head_metrics(score), dots=False).data) == 1


def test_ratios_are_drawn_as_log2_around_1():
    score = np.full((2, 2), 0.5)
    ratio = np.array([[1.0, 4.0], [0.5, np.nan]])
    frame = pd.concat([head_metrics(score), head_metrics(ratio, "value_norm_ratio")])
    heat = head_map(frame, "value_norm_ratio").data[0]
    np.testing.assert_allclose(heat.z, [[0, 2], [-1, np.nan]])
    assert (heat.zmin, heat.zmid, heat.zmax) == (-2, 0, 2)
    np.testing.assert_allclose(heat.customdata[0, 1], [4, 12])


def test_a_metric_that_the_run_does_not_hold():
    with pytest.raises(ValueError, match="no attn_entropy"):
        head_map(head_metrics(np.zeros((2, 2))), "attn_entropy")


def test_bars_keep_late_keys_apart_and_token_text_literal():
    visible = np.arange(12, 0, -1)
    fig = importance_bars(np.linspace(0.9, 0.1, 12), np.full(12, 0.2), visible, TOKENS, first=5)
    early, late, baseline = fig.data
    assert early.x.tolist() == [5, 6, 7, 8, 9]
    assert late.x.tolist() == list(range(10, 17))
    assert early.customdata[0].tolist() == ["&lt;b&gt;x&lt;/b&gt;", 4.5, 12]
    assert baseline.x.tolist() == list(range(5, 17))
    assert fig.layout.xaxis.tickvals == tuple(range(5, 17))
    assert fig.layout.yaxis.type == "log"
    assert importance_bars(np.ones(12), np.ones(12), visible, TOKENS, log=False).layout.yaxis.type is None


def test_share_stands_beside_the_uniform_level():
    rows = [(layer, metric, layer / 10, 9) for layer in (2, 1, 3) for metric in ("sink_share", "sink_uniform")]
    fig = sink_share(pd.DataFrame(rows, columns=["layer", "metric", "value", "n_used"]), n_layers=3)
    share, mean, uniform = fig.data
    assert share.x.tolist() == uniform.x.tolist() == [1, 2, 3]
    np.testing.assert_allclose(share.y, [0.1, 0.2, 0.3], rtol=1e-6)
    assert len(mean.x) == 0
    assert fig.layout.xaxis.range == (-0.5, 3.5)


def test_missing_shares_are_gaps():
    frame = pd.DataFrame({"layer": [1], "metric": "sink_share", "value": [None], "n_used": 9}).astype(
        {"value": "Float64"}
    )
    assert np.isnan(sink_share(frame, 1).data[0].y[0])


def test_rank_scatter_marks_what_is_always_kept():
    keys = pd.DataFrame(
        {"pos": [0, 1, 3], "attention_rank": [1, 2, 3], "vatp_rank": [1, 3, 2], "value_l1": [0.0, 10, 1]}
    )
    dots = rank_scatter(keys.assign(effective=1.5), TOKENS, n_kept=1).data[1]
    assert dots.marker.symbol == ("diamond-open", "circle", "circle")
    assert dots.x.tolist() == [1, 2, 3]
    assert dots.y.tolist() == [1, 3, 2]
    assert dots.customdata[2].tolist() == ["&#36;y&#36;", 3, 1, 1.5]
    assert dots.marker.color.tolist() == [-12, 1, 0]


def test_bos_cosine_map_places_points_and_positions():
    frame = pd.DataFrame({"layer": [0, 2, 2], "pos": [3, 4, 9], "metric": "bos_cosine_raw", "value": [0.5, -0.25, 0.1]})
    fig = bos_cosine_map(frame, "bos_cosine_raw", TOKENS[:3], first=2, n_layers=2)
    z = fig.data[0].z
    assert z.shape == (3, 3)
    assert (z[0, 1], z[2, 2]) == (0.5, -0.25)
    assert np.isnan(z).sum() == 7
    assert (fig.data[0].zmin, fig.data[0].zmid, fig.data[0].zmax) == (-1, 0, 1)
    assert fig.layout.xaxis99.ticktext == ("2 &lt;b&gt;x&lt;/b&gt;", "3 ·a", "4 ⏎")


def test_hover_axes_name_every_place_and_draw_nothing():
    fig = name_places(
        attention_map(uniform_pattern(1, 100)[0], np.ones(100), ["t"] * 100), x=(np.arange(2), place_names(["a", "b"]))
    )
    hidden = fig.layout.xaxis99
    assert (hidden.overlaying, hidden.matches, hidden.showticklabels, hidden.showgrid) == ("x", "x", False, False)
    assert hidden.ticktext == ("0 a", "1 b")


def test_max_pool_keeps_the_largest():
    pattern = np.zeros((1, 5, 5), dtype="float32")
    pattern[0, 4, 1] = 0.7
    pooled, step = max_pool(pattern, 3)
    assert step == 2
    assert pooled.shape == (1, 3, 3)
    assert pooled[0, 2, 0] == np.float32(0.7)
    assert pooled.sum() == np.float32(0.7)
    assert max_pool(pattern, 5)[1] == 1


@pytest.mark.parametrize("log", [True, False])
def test_attention_map_has_rows_down_and_no_upper_triangle(log):
    pattern = uniform_pattern(1, 12)[0]
    fig = attention_map(pattern, pattern.sum(0), TOKENS, log=log)
    bars, heat, _ = fig.data
    np.testing.assert_allclose(bars.y, pattern.sum(0), rtol=1e-6)
    assert np.isnan(heat.z[np.triu_indices(12, 1)]).all()
    lower = np.tril_indices(12)
    np.testing.assert_allclose(heat.z[lower], np.log10(pattern[lower]) if log else pattern[lower], rtol=1e-6)
    assert fig.layout.yaxis2.range == (11.5, -0.5)
    assert fig.layout.xaxis99.overlaying == "x2"


def test_column_0_can_be_hidden():
    pattern = uniform_pattern(1, 12)[0]
    fig = attention_map(pattern, pattern.sum(0), TOKENS, hide_first=True)
    assert np.isnan(fig.data[1].z[:, 0]).all()
    assert not np.isnan(fig.data[1].z[5, 1])
    assert fig.data[0].x.tolist() == list(range(1, 12))


def test_attention_map_of_a_pooled_pattern_says_so():
    fig = attention_map(uniform_pattern(1, 600)[0], np.ones(1200), ["t"] * 1200, step=2)
    heat = fig.data[1]
    assert heat.z.shape == (300, 300)
    assert heat.x[:2].tolist() == [1.5, 5.5]
    assert fig.layout.xaxis2.title.text == "key (largest of 4 × 4)"
    assert fig.layout.xaxis99.ticktext[1] == "4–7"
    assert len(fig.to_json()) < LIMIT


def test_thumbnails_hold_every_head_with_its_place():
    pattern = uniform_pattern(3, 12)
    pattern[2] = np.eye(12)
    heat = head_thumbnails(pattern, log=False).data[0]
    where = heat.customdata
    drawn = ~np.isnan(heat.z)
    assert drawn.sum() == 3 * 12 * 13 // 2
    last = drawn & (where[..., 0] == 2)
    assert {tuple(place[1:]) for place in where[last & (heat.z == 1)]} == {(i, i) for i in range(12)}
    hidden = head_thumbnails(pattern, log=False, hide_first=True).data[0]
    assert (~np.isnan(hidden.z)).sum() == 3 * 11 * 12 // 2


def test_many_large_heads_stay_small_and_typed():
    fig = head_thumbnails(uniform_pattern(32, 256))
    text = fig.to_json()
    assert len(text) < LIMIT
    heat = json.loads(text)["data"][0]
    assert {"dtype", "bdata", "shape"} <= set(heat["z"])
    assert heat["customdata"]["dtype"] == "i2"


def test_a_whole_head_of_1024_tokens_stays_small():
    fig = attention_map(uniform_pattern(1, 1024)[0], np.ones(1024), ["token"] * 1024)
    assert len(fig.to_json()) < LIMIT
