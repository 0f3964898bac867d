import numpy as np
import pytest

from analysis.outliers import outlier_prompts, robust_z


def values() -> np.ndarray:
    table = np.random.default_rng(0).normal(1, 0.1, size=(40, 6))
    table[7, 2] = 4.0
    table[11, :] -= 1.0
    return table


def test_planted_outliers_come_first_with_the_layer_that_shows_them() -> None:
    found = outlier_prompts(values())
    assert found["prompt"].tolist()[:2] == [7, 11]
    assert (found["layer"][0], found["layers_out"][1]) == (2, 6)
    assert found["outlier"].sum() == 2
    assert found["z"][1] < -3.5


def test_z_is_by_median_and_mad() -> None:
    table = values()
    middle = np.median(table[:, 0])
    expected = (table[3, 0] - middle) / (1.4826 * np.median(np.abs(table[:, 0] - middle)))
    assert robust_z(table)[3, 0] == pytest.approx(expected)


def test_undefined_values_are_no_outliers() -> None:
    table = values()
    table[3], table[:, 4] = np.nan, 1.0
    found = outlier_prompts(table)
    assert found["prompt"].iloc[-1] == 3
    assert found["layer"].isna().tolist() == [False] * 39 + [True]
    assert np.isnan(robust_z(table)[:, 4]).all()
    assert not found["outlier"].iloc[-1]
