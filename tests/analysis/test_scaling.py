"""A line over few models says so."""

import numpy as np
import pytest
from scipy import stats

from analysis.scaling import scaling_fit


def test_an_exact_line_is_recovered() -> None:
    n = np.array([7e7, 1.6e8, 4.1e8, 1e9, 1.4e9])
    found = scaling_fit(n, 2.5 - 0.074 * np.log(n))
    assert (found.slope, found.intercept) == (pytest.approx(-0.074), pytest.approx(2.5))
    assert (found.r2, found.n_models, found.status) == (pytest.approx(1), 5, "ok")
    assert found.low == pytest.approx(found.high, abs=1e-6)


def test_the_interval_is_that_of_the_slope() -> None:
    n = np.geomspace(1e7, 1e10, 9)
    y = 1 - 0.05 * np.log(n) + np.random.default_rng(0).normal(0, 0.1, 9)
    found, line = scaling_fit(n, y), stats.linregress(np.log(n), y)
    assert found.p == line.pvalue
    half = stats.t.ppf(0.975, 7) * line.stderr
    assert (found.low, found.high) == (pytest.approx(line.slope - half), pytest.approx(line.slope + half))


def test_four_models_with_the_reported_fit_have_an_interval_over_zero_and_no_p() -> None:
    """The paper's slope -.074 with R2 = .46 over four models would be p = .32."""
    x = np.log([5e8, 1.5e9, 3e9, 7e9])
    noise = np.array([1.0, -1, -1, 1])
    noise = noise - np.polyval(np.polyfit(x, noise, 1), x)
    line = -0.074 * (x - x.mean())
    noise *= np.sqrt((1 / 0.46 - 1) * (line @ line) / (noise @ noise))
    found = scaling_fit(np.exp(x), line + noise)
    assert (found.slope, found.r2) == (pytest.approx(-0.074), pytest.approx(0.46))
    assert stats.linregress(x, line + noise).pvalue == pytest.approx(0.32, abs=0.005)
    assert np.isnan(found.p)
    assert found.low < 0 < found.high
    assert found.status == "low_confidence"


def test_too_few_or_equal_models_have_no_line() -> None:
    two = scaling_fit(np.array([1e8, 1e9, 2e9]), np.array([1.0, 0.9, np.nan]))
    assert (two.n_models, two.status) == (2, "not_applicable")
    assert np.isnan(two.slope)
    assert scaling_fit(np.full(3, 1e8), np.arange(3.0)).status == "rank_deficient"
    flat = scaling_fit(np.array([1e8, 1e9, 2e9]), np.ones(3))
    assert (flat.slope, np.isnan(flat.r2)) == (0, True)
    with pytest.raises(ValueError, match="positive, not 0"):
        scaling_fit(np.array([0.0, 1e8, 1e9]), np.ones(3))
