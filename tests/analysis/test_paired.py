"""Paired comparisons: equal to scipy, sharper than two groups, silent where nothing varies."""

import numpy as np
import pytest
from scipy import stats

from analysis.paired import compare_paired


def pair(n: int = 40, layers: int = 5, shift: float = 0.2) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    first = rng.normal(1, 0.5, size=(n, layers))
    return first, first + shift + rng.normal(0, 0.1, size=(n, layers))


def test_it_is_the_paired_t_of_scipy() -> None:
    first, second = pair()
    first[:5, 3] = np.nan
    second[7, 3] = np.nan
    found = compare_paired(first, second).table
    both = np.isfinite(first[:, 3] + second[:, 3])
    for layer, rows in ((0, slice(None)), (3, both)):
        theirs = stats.ttest_rel(second[rows, layer], first[rows, layer])
        interval = theirs.confidence_interval()
        row = found.iloc[layer]
        assert (row["t"], row["p"]) == (pytest.approx(theirs.statistic), pytest.approx(theirs.pvalue))
        assert (row["low"], row["high"]) == (pytest.approx(interval.low), pytest.approx(interval.high))
    assert found["n"].tolist() == [40, 40, 40, 34, 40]
    np.testing.assert_allclose(found["p_bh"], stats.false_discovery_control(found["p"]))


def test_pairs_see_what_two_groups_cannot() -> None:
    first, second = pair()
    found = compare_paired(first, second)
    assert found.overall["difference"] == pytest.approx(0.2, abs=0.03)
    assert found.overall["high"] - found.overall["low"] < 0.05
    assert stats.ttest_ind(second[:, 0], first[:, 0], equal_var=False).pvalue > 0.001 > found.table["p"][0]
    assert (found.n_layers, found.exploratory) == (5, False)


def test_undefined_pairs_and_equal_differences_have_their_status() -> None:
    first, second = pair(10, 4)
    first[1:, 1] = np.nan
    second[:, 2] = first[:, 2] + 0.25
    second[:, 3] = first[:, 3]
    found = compare_paired(first, second)
    assert found.exploratory
    assert found.table["status"].tolist() == ["low_confidence", "too_few_prompts", "rank_deficient", "rank_deficient"]
    assert found.table.loc[1:, ["t", "p", "p_bh", "low", "high"]].isna().all(axis=None)
    assert found.table["difference"][2] == pytest.approx(0.25)
    with pytest.raises(ValueError, match=r"\(10, 4\) and \(10, 3\)"):
        compare_paired(first, second[:, :3])
