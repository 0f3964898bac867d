"""Colours of the strip: one outlier never takes the scale, and a count of heads keeps few and many apart."""

import numpy as np

from app.figures.strip_scale import scale_of

BINS = 64


def test_the_first_token_does_not_set_the_limits() -> None:
    values = np.concatenate([[-1370.0], np.linspace(0.5, 0.9, 49)])
    scale = scale_of(values, kept=np.arange(50) > 0)
    assert 0.5 <= scale.low < 0.51
    assert 0.89 < scale.high <= 0.9
    bins = scale.bins(values, BINS)
    assert bins[1] < 3
    assert bins[-1] > 60
    low, high = scale.ends(values)
    assert low.startswith("≤ 0.50")
    assert high.startswith("≥ 0.89")


def test_an_outlier_elsewhere_is_clipped_too() -> None:
    values = np.linspace(0.5, 0.9, 50)
    values[20] = -1370.0
    scale = scale_of(values, kept=np.arange(50) > 0)
    assert scale.low > -1
    assert scale.ends(values)[0].startswith("≤")


def test_heads_are_counted_on_a_scale_that_tells_2_from_200() -> None:
    values = np.zeros(258)
    values[0], values[5] = 200.0, 2.0
    scale = scale_of(values, "count", kept=np.arange(258) > 0)
    bins = scale.bins(values, BINS)
    assert (bins[1], bins[0]) == (0, BINS - 1)
    assert 8 < bins[5] < 20
    assert scale.ends(values) == ("0", "200 (log)")


def test_rounding_around_zero_stays_neutral() -> None:
    values = np.array([0.0, 1e-9, -1e-9, np.nan])
    bins = scale_of(values, "diverging", floor=1e-5).bins(values, BINS)
    assert set(bins[:3].tolist()) <= {31, 32}
    assert bins[3] == -1


def test_nothing_known_and_one_value_have_a_scale() -> None:
    assert scale_of(np.array([np.nan])).bins(np.array([np.nan]), BINS).tolist() == [-1]
    assert scale_of(np.array([3.0]), kept=np.array([False])).bins(np.array([3.0]), BINS).tolist() == [0]
