"""Group comparison: equal to scipy, right on planted differences, silent where it has to be."""

import numpy as np
import pytest
from scipy import stats

from analysis.groups import Groups, compare_groups


def draws(n: int, layers: int, seed: int, shift: float = 0.0, sd: float = 1.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(shift, sd, size=(n, layers))


def groups(first: np.ndarray, second: np.ndarray, tokens: tuple[int, int] = (64, 64)) -> Groups:
    return Groups(first, second, np.full(len(first), tokens[0]), np.full(len(second), tokens[1]))


def test_welch_is_that_of_scipy() -> None:
    first, second = draws(25, 7, 0, 0.4), draws(40, 7, 1, sd=2.5)
    first[:4, 2] = np.nan
    found = compare_groups(groups(first, second)).table
    theirs = stats.ttest_ind(first, second, equal_var=False, nan_policy="omit")
    interval = theirs.confidence_interval()
    for ours, expected in (("t", theirs.statistic), ("df", theirs.df), ("p", theirs.pvalue), ("low", interval.low)):
        np.testing.assert_allclose(found[ours], expected, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(found["p_bh"], stats.false_discovery_control(theirs.pvalue), rtol=1e-12)
    assert found["n_first"].tolist() == [25, 25, 21, 25, 25, 25, 25]


def test_a_planted_difference_is_recovered_with_its_effect_size() -> None:
    found = compare_groups(groups(draws(900, 1, 0, 0.8), draws(900, 1, 1)), permutations=2).table.iloc[0]
    assert found["difference"] == pytest.approx(0.8, abs=0.1)
    assert found["g"] == pytest.approx(0.8, abs=0.1)
    assert found["low"] < 0.8 < found["high"]
    assert found["g_low"] < 0.8 < found["g_high"]
    assert found["low_first"] < found["mean_first"] < found["high_first"]


def test_hedges_g_by_hand() -> None:
    first, second = np.array([[1.0], [2], [3], [6]]), np.array([[0.0], [1], [1], [2], [1]])
    pooled = np.sqrt((3 * first.var(ddof=1) + 4 * second.var(ddof=1)) / 7)
    found = compare_groups(groups(first, second)).table.iloc[0]
    assert found["g"] == pytest.approx((3 - 1) / pooled * (1 - 3 / 27))


def test_the_interval_of_g_covers_where_variances_and_sizes_differ() -> None:
    """As layers stand for independent repetitions: 400 of them, true g known."""
    n1, n2, sd, delta = 20, 60, 3.0, 1.0
    true = delta / np.sqrt(((n1 - 1) + (n2 - 1) * sd**2) / (n1 + n2 - 2))
    found = compare_groups(groups(draws(n1, 400, 5, delta), draws(n2, 400, 6, sd=sd)), permutations=2).table
    assert ((found["g_low"] < true) & (true < found["g_high"])).mean() == pytest.approx(0.95, abs=0.03)


def test_p_values_without_a_difference_are_uniform() -> None:
    found = compare_groups(groups(draws(22, 600, 7), draws(35, 600, 8, sd=2)), permutations=500).table
    for name in ("p", "p_permuted"):
        assert (found[name] < 0.05).mean() == pytest.approx(0.05, abs=0.025)
        assert stats.kstest(found[name], "uniform").pvalue > 0.01
    assert (found["p_bh"] < 0.05).sum() == 0


def test_the_permutation_p_agrees_with_scipy() -> None:
    first, second = draws(30, 3, 2, 0.45), draws(28, 3, 3)
    first[:3, 1] = np.nan
    found = compare_groups(groups(first, second), permutations=4000).table
    for layer in range(3):
        theirs = stats.permutation_test(
            (first[np.isfinite(first[:, layer]), layer], second[:, layer]),
            lambda x, y, axis: stats.ttest_ind(x, y, axis=axis, equal_var=False).statistic,
            n_resamples=4000,
            vectorized=True,
            rng=np.random.default_rng(1),
        ).pvalue
        assert found["p_permuted"][layer] == pytest.approx(theirs, abs=0.02)


def test_lengths_that_differ_leave_only_descriptions() -> None:
    first, second = draws(30, 4, 0, 2), draws(30, 4, 1)
    refused = compare_groups(groups(first, second, (80, 64)))
    assert refused.refusal is not None
    assert "25.0 % in length" in refused.refusal
    assert refused.table[["p", "p_bh", "p_permuted", "t", "low", "high", "g_low"]].isna().all(axis=None)
    assert np.isnan(refused.overall["p"])
    assert set(refused.table["status"]) == {"lengths_differ"}
    assert refused.table[["mean_first", "low_first", "difference", "g"]].notna().all(axis=None)
    allowed = compare_groups(groups(first, second, (70, 64)))
    assert allowed.refusal is None
    assert (allowed.table["p"] < 1e-6).all()
    assert compare_groups(Groups(first, second, None, None)).refusal is None


def test_few_prompts_are_exploratory_and_fewer_than_two_undefined() -> None:
    first, second = draws(19, 3, 0), draws(40, 3, 1)
    first[1:, 1], first[:, 2] = np.nan, np.nan
    found = compare_groups(groups(first, second))
    assert found.exploratory
    assert found.table["status"].tolist() == ["low_confidence", "too_few_prompts", "too_few_prompts"]
    assert found.table.loc[1:, ["t", "p", "p_bh", "low", "g", "p_permuted"]].isna().all(axis=None)
    assert (found.table["n_first"].tolist(), found.n_layers) == ([19, 1, 0], 1)
    assert not compare_groups(groups(draws(20, 1, 0), second[:, :1])).exploratory


def test_values_that_do_not_vary_have_no_test() -> None:
    first, second = np.full((25, 2), 0.1), np.full((25, 2), 0.3)
    second[:, 1] += np.arange(25) / 100
    found = compare_groups(groups(first, second)).table
    assert found["status"].tolist() == ["rank_deficient", "ok"]
    assert np.isnan(found["p"][0])
    assert found["p"][1] < 0.001


def test_the_mean_over_layers_is_one_test_a_prompt() -> None:
    """Layers are no replicates: 30 identical layers say what one says."""
    first, second = draws(30, 1, 0, 0.5), draws(30, 1, 1)
    many = compare_groups(groups(first.repeat(30, 1), second.repeat(30, 1)))
    one = compare_groups(groups(first, second)).table.iloc[0]
    assert (many.overall["p"], many.overall["g"], many.n_layers) == (
        pytest.approx(one["p"]),
        pytest.approx(one["g"]),
        30,
    )
    assert many.overall["low"] == pytest.approx(one["low"])


def test_the_same_seed_gives_the_same_numbers() -> None:
    pair = groups(draws(25, 3, 0), draws(25, 3, 1))
    first, again, other = (compare_groups(pair, seed=seed).table for seed in (0, 0, 1))
    assert first.equals(again)
    assert not first["low_first"].equals(other["low_first"])
    assert first["p"].equals(other["p"])


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match="same layers, not 3 and 2"):
        groups(draws(5, 3, 0), draws(5, 2, 0))
    with pytest.raises(ValueError, match="at least one prompt"):
        groups(draws(0, 3, 0), draws(5, 3, 0))
    with pytest.raises(ValueError, match="4 for 5 prompts"):
        Groups(draws(5, 3, 0), draws(5, 3, 0), np.full(4, 9), None)
    with pytest.raises(ValueError, match="at least 1 token, not 0"):
        Groups(draws(5, 3, 0), draws(5, 3, 0), None, np.zeros(5, dtype=np.int64))
