"""Correlation with the loss: scipy's numbers, and partial correlations that take a common cause away."""

import numpy as np
import pytest
from scipy import stats

from analysis.loss_correlation import loss_correlation, type_token_ratio

RNG = np.random.default_rng(0)
N = 80
TOKENS = RNG.integers(64, 512, N).astype(float)
CONTROLS = np.column_stack([TOKENS, RNG.random(N)])
LOSS = -0.004 * TOKENS + RNG.normal(0, 0.3, N)
METRIC = np.column_stack([0.01 * TOKENS + RNG.normal(0, 0.5, N), -LOSS + RNG.normal(0, 0.2, N), RNG.normal(size=N)])


def test_spearman_and_pearson_are_those_of_scipy() -> None:
    found = loss_correlation(METRIC, LOSS, CONTROLS)
    for layer in range(3):
        ranked, linear = stats.spearmanr(METRIC[:, layer], LOSS), stats.pearsonr(METRIC[:, layer], LOSS)
        row = found.iloc[layer]
        assert (row["spearman"], row["p"]) == (ranked.statistic, ranked.pvalue)
        assert (row["pearson"], row["pearson_p"]) == (linear.statistic, linear.pvalue)
    np.testing.assert_array_equal(found["p_bh"], stats.false_discovery_control(found["p"]))
    np.testing.assert_array_equal(found["partial_p_bh"], stats.false_discovery_control(found["partial_p"]))


def test_a_common_cause_is_taken_away_and_a_real_relation_stays() -> None:
    found = loss_correlation(METRIC, LOSS, CONTROLS)
    assert found["spearman"][0] < -0.7
    assert abs(found["partial"][0]) < 0.25
    assert found["partial_low"][0] < 0 < found["partial_high"][0]
    assert found["partial"][1] < -0.6
    assert found["partial_p_bh"][1] < 1e-6


def test_the_partial_correlation_of_one_control_is_the_textbook_one() -> None:
    r = stats.spearmanr(np.column_stack([METRIC[:, 1], LOSS, TOKENS])).statistic
    expected = (r[0, 1] - r[0, 2] * r[1, 2]) / np.sqrt((1 - r[0, 2] ** 2) * (1 - r[1, 2] ** 2))
    found = loss_correlation(METRIC, LOSS, CONTROLS[:, :1])
    assert found["partial"][1] == pytest.approx(expected)
    same_length = np.column_stack([TOKENS, np.full(N, 0.5)])
    assert loss_correlation(METRIC, LOSS, same_length)["partial_p"][1] == pytest.approx(found["partial_p"][1])


def test_intervals_cover_and_p_values_are_uniform() -> None:
    rng = np.random.default_rng(1)
    loss = rng.normal(size=60)
    metric = 0.6 * loss[:, None] + 0.8 * rng.normal(size=(60, 400))
    true = 6 / np.pi * np.arcsin(np.corrcoef(loss, loss)[0, 1] * 0.6 / 2)
    many = loss_correlation(metric, loss, np.zeros((60, 0)))
    assert ((many["low"] < true) & (true < many["high"])).mean() > 0.88  # loss is one draw, so all err together
    none = loss_correlation(rng.normal(size=(60, 400)), loss, rng.normal(size=(60, 2)))
    for name in ("p", "partial_p"):
        assert (none[name] < 0.05).mean() == pytest.approx(0.05, abs=0.03)


def test_what_cannot_be_correlated_is_named() -> None:
    metric = METRIC.copy()
    metric[:51, 1], metric[:, 2] = np.nan, 3.0
    found = loss_correlation(metric, LOSS, CONTROLS)
    assert found["status"].tolist() == ["ok", "too_few_prompts", "rank_deficient"]
    assert found["n"].tolist() == [80, 29, 80]
    assert found.loc[1:, ["spearman", "p", "p_bh", "partial"]].isna().all(axis=None)
    copied = loss_correlation(TOKENS[:, None], LOSS, CONTROLS).iloc[0]
    assert np.isnan(copied["partial"])  # a metric that is a control leaves nothing
    assert copied["spearman"] < 0


def test_type_token_ratio() -> None:
    assert type_token_ratio([5, 5, 7, 9]) == 0.75
    with pytest.raises(ValueError, match="at least one token"):
        type_token_ratio([])
