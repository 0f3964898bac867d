"""Sink scores on attention patterns whose answer is known."""

import math

import pytest
import torch

from analysis.sinks import (
    column_importance,
    column_sums,
    columnar,
    first_sink_block,
    gini,
    head_sinks,
    sink_heads,
    token_sinks,
    uniform_importance,
    visible_queries,
)


def uniform_pattern(n_tokens: int, window: int | None = None) -> torch.Tensor:
    age = torch.arange(n_tokens)[:, None] - torch.arange(n_tokens)
    seen = (age >= 0) & (age < (window or n_tokens))
    return seen.double() / seen.sum(1, keepdim=True)


def importance_of(pattern: torch.Tensor, windows=None):
    return column_importance(column_sums(pattern)[None, None], windows)


def to_key(n_tokens: int, key: int) -> torch.Tensor:
    """Every query that can see ``key`` gives it all its attention; earlier ones look at themselves."""
    pattern = torch.eye(n_tokens, dtype=torch.float64)
    pattern[key:] = 0
    pattern[key:, key] = 1
    return pattern


@pytest.mark.parametrize(("n_tokens", "expected"), [(16, 0.2113), (64, 0.0741), (256, 0.0239)])
def test_harmonic_baseline(n_tokens, expected):
    harmonic = sum(1 / k for k in range(1, n_tokens + 1)) / n_tokens
    assert uniform_importance(n_tokens)[0] == pytest.approx(harmonic, abs=1e-12)
    assert harmonic == pytest.approx(expected, abs=5e-5)


@pytest.mark.parametrize("window", [None, 1, 5, 40])
def test_uniform_attention_is_its_own_baseline(window):
    importance = importance_of(uniform_pattern(40, window), [window])
    torch.testing.assert_close(importance.a[0, 0], uniform_importance(40, window), rtol=0, atol=1e-12)
    assert head_sinks(importance).ratio.item() == pytest.approx(1, abs=1e-12)


def test_sliding_window_divides_by_the_queries_that_can_see_the_key():
    assert visible_queries(6, 3).tolist() == [3, 3, 3, 3, 2, 1]
    sums = torch.full((1, 1, 6), 1.5, dtype=torch.float64)
    assert column_importance(sums, [3]).a[0, 0].tolist() == [0.5, 0.5, 0.5, 0.5, 0.75, 1.5]
    assert not column_importance(sums, [3]).flaggable.any()


def test_all_mass_on_position_0():
    sinks = head_sinks(importance_of(to_key(64, 0)))
    assert sinks.score.item() == 1
    assert sinks.is_sink.item() == 1
    assert sinks.ratio.item() == pytest.approx(1 / 0.0741, rel=1e-3)


def test_identity_attention_exceeds_epsilon_only_at_the_end():
    importance = importance_of(torch.eye(64, dtype=torch.float64))
    torch.testing.assert_close(importance.a[0, 0], 1 / torch.arange(64.0, 0, -1).double())
    assert (importance.a[0, 0] > 0.3).nonzero()[:, 0].tolist() == [61, 62, 63]
    assert not importance.above.any()
    assert head_sinks(importance).is_sink.item() == 0
    result = columnar(column_sums(torch.eye(64, dtype=torch.float64))[None, None], importance)
    assert (result.pos.item(), result.score.item()) == (56, 0.125)


@pytest.mark.parametrize(
    ("n_tokens", "status", "flag_status"),
    [
        (4, "low_confidence", "too_few_tokens"),
        (15, "low_confidence", "too_few_tokens"),
        (16, "ok", "too_few_tokens"),
        (31, "ok", "too_few_tokens"),
        (32, "ok", "ok"),
    ],
)
def test_short_prompts(n_tokens, status, flag_status):
    importance = importance_of(to_key(n_tokens, 0))
    sinks = head_sinks(importance)
    assert (sinks.status, sinks.is_sink_status) == (status, flag_status)
    assert sinks.is_sink.isnan().item() == (flag_status != "ok")
    assert sink_heads(importance)[0, 0].isnan().item() == (flag_status != "ok")
    assert sinks.score.item() == 1


def test_three_tokens_are_refused():
    with pytest.raises(ValueError, match="at least 4 tokens, not 3"):
        importance_of(uniform_pattern(3))


def test_one_window_for_each_block():
    with pytest.raises(ValueError, match="each of the 1 blocks, not 2"):
        importance_of(uniform_pattern(8), [None, 4])


@pytest.mark.parametrize("factor", [0.998, 1.002, math.nan])
def test_rows_must_sum_to_one(factor):
    with pytest.raises(ValueError, match="sum to 1"):
        column_sums(uniform_pattern(8) * factor)


def test_rows_may_be_off_by_rounding():
    assert column_sums((uniform_pattern(8) * 1.0005).float()).dtype == torch.float64


def test_token_sinks_names_what_kind_of_token_it_is():
    tokens = ["The", " a", ".", "\n", " a", " b", "<|end|>", "é", "  "] + [f"w{i}" for i in range(31)]
    special = torch.zeros(40, dtype=torch.bool)
    special[6] = True
    patterns = torch.stack([to_key(40, key) for key in range(9)])
    importance = column_importance(column_sums(patterns)[None])
    table = token_sinks(importance, tokens, special).set_index("pos")
    kinds = ["first position", "other", "delimiter", "newline", "repeated", "other", "delimiter", "other", "delimiter"]
    assert table["kind"].sort_index().tolist() == kinds
    assert (table["n_heads"] == 1).all()
    assert (table["importance"] == 1).all()
    assert table.loc[0, "ratio"] == pytest.approx(1 / uniform_importance(40)[0].item())


def test_token_sinks_need_a_tenth_of_the_heads_of_one_block():
    patterns = torch.stack([uniform_pattern(40)] * 22)
    patterns[0] = patterns[1] = patterns[11] = to_key(40, 5)
    special = torch.zeros(40, dtype=torch.bool)
    one_block = column_importance(column_sums(patterns[:11])[None])
    two_blocks = column_importance(column_sums(patterns).reshape(2, 11, 40))
    assert token_sinks(one_block, ["x"] * 40, special)["pos"].tolist() == [5]
    table = token_sinks(two_blocks, ["x"] * 40, special)
    assert table[["pos", "n_heads", "first_block"]].to_numpy().tolist() == [[5, 3, 0]]
    sparse = column_importance(column_sums(patterns[10:21])[None])
    assert token_sinks(sparse, ["x"] * 40, special).empty


def test_late_keys_are_never_token_sinks():
    importance = importance_of(to_key(40, 33))
    assert importance.a[0, 0, 33] == 1
    assert token_sinks(importance, ["x"] * 40, torch.zeros(40, dtype=torch.bool)).empty
    assert sink_heads(importance)[0, 32:].isnan().tolist() == [False] + [True] * 7


def test_one_token_for_each_key():
    with pytest.raises(ValueError, match="each of the 8 keys, not 1"):
        token_sinks(importance_of(uniform_pattern(8)), ["x"], torch.zeros(8, dtype=torch.bool))


def test_first_block_prefers_position_0():
    above = torch.zeros(6, 2, 8, dtype=torch.bool)
    assert first_sink_block(above) is None
    above[1, 0, 3] = True
    assert first_sink_block(above) == 1
    above[4, 1, 0] = True
    assert first_sink_block(above) == 4


def test_sink_heads_counts_heads():
    patterns = torch.stack([to_key(40, 0), to_key(40, 0), uniform_pattern(40)])
    counts = sink_heads(column_importance(column_sums(patterns)[None]))
    assert counts[0, :3].tolist() == [2, 0, 0]


def test_gini():
    assert gini(torch.ones(5, dtype=torch.float64)) == 0
    assert gini(torch.tensor([0, 0, 0, 7], dtype=torch.float64)) == 0.75
    assert gini(torch.tensor([1, 3], dtype=torch.float64)) == 0.25
    assert gini(torch.zeros(3, dtype=torch.float64)).isnan()


def test_columnar_control_is_the_gini_of_uniform_attention():
    sums = column_sums(uniform_pattern(40))[None, None]
    result = columnar(sums, column_importance(sums))
    torch.testing.assert_close(result.gini[:, 0], result.gini_uniform)
    assert result.gini_uniform.item() > 0.3
    short = column_sums(uniform_pattern(7))[None, None]
    none_visible = columnar(short, column_importance(short))
    assert none_visible.score.isnan().all()
    assert none_visible.pos.item() == -1
