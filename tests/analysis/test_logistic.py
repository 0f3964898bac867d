"""The batched logistic regression is scikit-learn's."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from analysis.logistic import fit_logistic, standardised


@pytest.mark.parametrize("k", [1, 4, 33])
@pytest.mark.parametrize("strength", [0.0, 1.0, 30.0])
def test_weights_are_those_of_scikit_learn(k: int, strength: float) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3, 80, k))
    y = rng.random(80) < 1 / (1 + np.exp(-strength * x[1, :, 0]))
    found = fit_logistic(x, y)
    for layer in range(3):
        theirs = LogisticRegression(C=1, tol=1e-10, max_iter=2000).fit(x[layer], y)
        np.testing.assert_allclose(found[layer], [*theirs.coef_[0], theirs.intercept_[0]], atol=2e-5)


def test_separable_classes_converge() -> None:
    x = np.where(np.arange(60) < 30, -1.0, 1.0)[None, :, None]
    assert fit_logistic(x, np.arange(60) >= 30, c=1e4)[0, 0] > 5


def test_one_class_is_refused() -> None:
    with pytest.raises(ValueError, match="needs both classes"):
        fit_logistic(np.zeros((1, 5, 2)), np.ones(5, dtype=bool))


def test_features_are_standardised_by_the_training_part_alone() -> None:
    rng = np.random.default_rng(0)
    train, other = rng.normal(3, 5, size=(2, 50, 2)), rng.normal(size=(2, 9, 2))
    train[1, :, 1] = 0.1
    own, others = standardised(train, other)
    np.testing.assert_allclose(own[0].std(axis=0), 1)
    np.testing.assert_allclose(others[0], (other[0] - train[0].mean(axis=0)) / train[0].std(axis=0))
    assert (own[1, :, 1] == 0).all()
    assert (others[1, :, 1] == 0).all()
