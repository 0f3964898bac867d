"""Loss against geometry over prompts: scipy's numbers, confounds taken out, refusals (core.md 6.3)."""

import numpy as np
import pytest
from scipy import stats

from analysis.loss_correlation import loss_correlation


def prompts(n: int = 80) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    draw = np.random.default_rng(0)
    length = draw.uniform(100, 500, n)
    loss = 5 - 0.004 * length + 0.2 * draw.normal(size=n)
    follows_length = 0.02 * length + 0.8 * draw.normal(size=n)
    follows_loss = loss + 0.1 * draw.normal(size=n)
    return loss, np.stack([follows_length, follows_loss, draw.normal(size=n)]), length[None]


def test_spearman_and_pearson_are_scipys() -> None:
    loss, metric, controls = prompts()
    for row, found in zip(metric, loss_correlation(loss, metric, controls), strict=True):
        assert found.spearman == stats.spearmanr(loss, row).statistic
        assert found.spearman_p == stats.spearmanr(loss, row).pvalue
        assert found.pearson == pytest.approx(stats.pearsonr(loss, row).statistic)
        assert found.n_used == 80


def test_what_only_follows_length_is_gone_once_length_is_held_fixed() -> None:
    by_length, by_loss, by_chance = loss_correlation(*prompts(400))
    assert abs(by_length.spearman) > 0.6
    assert abs(by_length.partial) < 0.15
    assert by_loss.partial > 0.7
    assert by_loss.partial_q < 0.01
    assert by_chance.partial_q > 0.05
    assert by_chance.partial_q >= by_chance.partial_p


def test_without_controls_the_partial_is_spearman() -> None:
    loss, metric, _ = prompts()
    found = loss_correlation(loss, metric, np.zeros((0, 80)))[0]
    assert found.partial == pytest.approx(found.spearman)
    assert found.partial_p == pytest.approx(found.spearman_p, rel=1e-6)


def test_prompts_without_a_number_do_not_count_and_thirty_are_needed() -> None:
    loss, metric, controls = prompts(31)
    metric[0, 4] = np.nan
    metric[1, 4:6] = np.nan
    found = loss_correlation(loss, metric, controls)
    assert [one.status for one in found] == ["ok", "too_few_tokens", "ok"]
    assert [one.n_used for one in found] == [30, 29, 31]
    assert np.isnan(found[1].spearman)
    metric[2] = 1.0
    assert loss_correlation(loss, metric, controls)[2].status == "rank_deficient"
