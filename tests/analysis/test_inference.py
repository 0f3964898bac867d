"""Bootstrap, percentiles and false discovery rates against scipy and known answers."""

import numpy as np
import pytest
from scipy import stats

from analysis.inference import (
    benjamini_hochberg,
    bootstrap_means,
    complete_mean,
    percentile_interval,
    resampled_counts,
)


def test_a_resample_has_the_size_of_the_sample_and_the_seed_decides_it() -> None:
    counts = resampled_counts(40, 300)
    assert (counts.sum(axis=1) == 40).all()
    np.testing.assert_array_equal(counts, resampled_counts(40, 300))
    assert (counts != resampled_counts(40, 300, seed=1)).any()


def test_the_band_of_a_mean_is_that_of_scipy() -> None:
    values = np.random.default_rng(1).gamma(2, size=(60, 3))
    low, high = percentile_interval(bootstrap_means(values))
    for column in range(3):
        theirs = stats.bootstrap(
            (values[:, column],), np.mean, n_resamples=20000, method="percentile", random_state=np.random.default_rng(2)
        ).confidence_interval
        width = theirs.high - theirs.low
        assert low[column] == pytest.approx(theirs.low, abs=0.05 * width)
        assert high[column] == pytest.approx(theirs.high, abs=0.05 * width)


def test_missing_values_leave_the_other_columns_alone() -> None:
    values = np.random.default_rng(1).normal(size=(30, 3))
    holed = values.copy()
    holed[:10, 1], holed[:, 2] = np.nan, np.nan
    whole, found = bootstrap_means(values), bootstrap_means(holed)
    np.testing.assert_allclose(found[:, 0], whole[:, 0], atol=1e-14)
    np.testing.assert_allclose(found[:, 1], bootstrap_means(values[10:])[:, 1], atol=1e-14)
    assert np.isnan(found[:, 2]).all()
    low, high = percentile_interval(found)
    assert np.isfinite([*low[:2], *high[:2]]).all()
    assert np.isnan([low[2], high[2]]).all()


def test_infinite_draws_are_draws() -> None:
    low, high = percentile_interval(np.append(np.arange(95.0), [np.inf] * 5)[:, None])
    assert (low[0], high[0]) == (2, np.inf)


def test_benjamini_hochberg_is_that_of_scipy_over_the_tests_there_are() -> None:
    p = np.array([0.03, np.nan, 0.001, 0.4, 0.02, np.nan])
    found = benjamini_hochberg(p)
    np.testing.assert_array_equal(found[[0, 2, 3, 4]], stats.false_discovery_control(p[[0, 2, 3, 4]]))
    assert np.isnan(found[[1, 5]]).all()
    assert np.isnan(benjamini_hochberg(np.full(3, np.nan))).all()


def test_the_mean_over_layers_is_over_the_same_layers_for_everyone() -> None:
    a, b = np.arange(12.0).reshape(3, 4), np.ones((2, 4))
    a[1, 0], b[0, 2] = np.nan, np.nan
    (mean_a, mean_b), n = complete_mean(a, b)
    assert n == 2
    np.testing.assert_allclose(mean_a[:, 0], [2, 6, 10])
    np.testing.assert_allclose(mean_b[:, 0], 1)
    (nothing, _), n = complete_mean(np.full((2, 1), np.nan), np.ones((2, 1)))
    assert n == 0
    assert np.isnan(nothing).all()
