"""ROC-AUC: equal to scikit-learn, with intervals that cover, and NaN for one class."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score, roc_curve

from analysis.roc import FPR, auc, roc


def sample(n: int, shift: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.random(n) < 0.4
    return np.round(rng.normal(size=n) + shift * labels, 1), labels


def test_it_is_the_auc_and_curve_of_scikit_learn() -> None:
    scores, labels = sample(90, 1.0, 0)
    found = roc(scores, labels)
    assert found.auc == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    fpr, tpr, _ = roc_curve(labels, scores, drop_intermediate=False)
    np.testing.assert_allclose(found.tpr, np.interp(FPR, fpr, tpr), atol=1e-12)
    np.testing.assert_allclose(auc(np.stack([scores, -scores]), labels), [found.auc, 1 - found.auc])
    assert (found.n_positive, found.n_negative, found.status) == (labels.sum(), 90 - labels.sum(), "ok")


def test_folds_are_averaged() -> None:
    scores, labels = sample(120, 1.0, 1)
    folds = np.arange(120) % 3
    moved = scores + 10 * folds  # scores of other models need not be comparable
    each = [roc_auc_score(labels[folds == i], scores[folds == i]) for i in range(3)]
    found = roc(moved, labels, folds=folds)
    assert (found.auc, found.sd, found.n_folds) == (
        pytest.approx(np.mean(each)),
        pytest.approx(np.std(each, ddof=1)),
        3,
    )


def test_the_interval_covers() -> None:
    true = roc(*sample(60000, 1.0, 99), resamples=2).auc
    found = [roc(*sample(80, 1.0, seed), resamples=300) for seed in range(100)]
    assert np.mean([one.low < true < one.high for one in found]) == pytest.approx(0.94, abs=0.06)
    assert all((one.tpr_low <= one.tpr + 1e-12).all() and (one.tpr <= one.tpr_high + 1e-12).all() for one in found[:5])


def test_copies_of_a_problem_are_no_new_evidence() -> None:
    scores, labels = sample(60, 1.0, 2)
    problems = np.arange(60)
    once = roc(scores, labels, problems=problems)
    copies = roc(scores.repeat(4), labels.repeat(4), problems=problems.repeat(4))
    naive = roc(scores.repeat(4), labels.repeat(4))
    assert (copies.auc, copies.low, copies.high) == (
        pytest.approx(once.auc),
        pytest.approx(once.low),
        pytest.approx(once.high),
    )
    assert naive.high - naive.low < 0.7 * (copies.high - copies.low)


def test_one_class_is_undefined_and_not_a_half() -> None:
    found = roc(np.arange(20.0), np.ones(20, dtype=bool))
    assert (found.status, np.isnan(found.auc), np.isnan(found.tpr).all()) == ("single_class", True, True)
    scores, labels = sample(40, 1.0, 3)
    scores[~labels] = np.nan
    assert roc(scores, labels).status == "single_class"
    assert np.isnan(auc(np.arange(3.0), np.zeros(3, dtype=bool)))


def test_items_without_a_score_are_left_out() -> None:
    scores, labels = sample(60, 1.0, 4)
    holed = np.append(scores, [np.nan] * 5)
    found = roc(holed, np.append(labels, [True] * 5))
    assert (found.auc, found.n_positive) == (roc(scores, labels).auc, labels.sum())
