"""Correctness prediction: finds what is planted, sees nothing in shuffled labels, and never tests on what it chose by."""

from functools import cache

import numpy as np
import pytest

from analysis.prediction import Prediction, PredictorTable, compare_predictors, outer_folds, predict

PROBLEMS = np.arange(200)


def data(layers: int = 12, strength: float = 1.2, seed: int = 0, n: int = 200) -> tuple[np.ndarray, np.ndarray]:
    """Features [n, layers, 1]: noise, but layer 5 knows the label."""
    rng = np.random.default_rng(seed)
    labels = rng.random(n) < 0.4
    features = rng.normal(size=(n, layers, 1))
    features[:, 5, 0] += strength * labels
    return features, labels


def test_a_planted_layer_is_chosen_and_its_auc_recovered() -> None:
    features, labels = data()
    found = predict(features, labels, PROBLEMS)
    assert found.layers.tolist() == [5] * 5
    assert found.roc.auc == pytest.approx(0.80, abs=0.07)  # Phi(1.2 / sqrt 2)
    assert found.roc.low < 0.80 < found.roc.high
    assert np.isfinite(found.scores).all()
    assert sorted(set(found.folds.tolist())) == [0, 1, 2, 3, 4]


def test_a_feature_that_falls_with_the_label_predicts_as_well() -> None:
    features, labels = data()
    assert predict(-features, labels, PROBLEMS).roc.auc == pytest.approx(predict(features, labels, PROBLEMS).roc.auc)


@cache
def compared() -> PredictorTable:
    features, labels = data()
    rng = np.random.default_rng(9)
    length = (rng.normal(size=200) + 0.4 * labels)[:, None]
    return compare_predictors(
        {"alpha": features, "noise": rng.normal(size=(200, 12, 1))}, {"length": length}, labels, PROBLEMS
    )


def test_shuffled_labels_come_out_at_a_half_although_a_layer_is_chosen() -> None:
    shuffled = compared().shuffled.set_index("name")
    assert shuffled["mean"].tolist() == pytest.approx([0.5, 0.5], abs=0.06)
    assert shuffled["shuffles"].tolist() == [10, 10]


def test_choosing_the_layer_on_the_test_items_would_have_found_something_in_noise() -> None:
    """Why the choice is nested (core.md 9.9): the best of 20 layers of noise looks good when it may look."""
    rng = np.random.default_rng(4)
    labels, noise = rng.random(200) < 0.5, rng.normal(size=(200, 20, 1))
    best = max(predict(noise[:, [layer]], labels, PROBLEMS).roc.auc for layer in range(20))
    assert best > 0.57
    assert predict(noise, labels, PROBLEMS).roc.auc < best - 0.03


def test_baselines_are_trained_in_the_same_folds_and_the_gain_has_an_interval() -> None:
    table, gains = compared().table.set_index("name"), compared().gains.set_index("name")
    assert table["baseline"].tolist() == [False, False, True]
    assert table.loc["alpha", "auc"] > table.loc["length", "auc"] > 0.5
    assert gains.loc["alpha", "low"] > 0
    assert gains.loc["noise", "low"] < 0
    assert gains.loc["alpha", "gain"] == pytest.approx(table.loc["alpha", "auc"] - table.loc["length", "auc"])
    folds = [one.folds for one in compared().predictions.values()]
    np.testing.assert_array_equal(folds[0], folds[2])


def test_a_feature_that_is_its_baseline_gains_nothing() -> None:
    features, labels = data()
    found = compare_predictors({"x": features[:, [5]]}, {"same": features[:, 5]}, labels, PROBLEMS, shuffles=2)
    assert found.gains[["gain", "low", "high"]].iloc[0].tolist() == [0, 0, 0]


def test_copies_of_a_problem_never_stand_on_both_sides() -> None:
    """Features that only name the problem predict copies perfectly if copies may be split."""
    rng = np.random.default_rng(0)
    problems = np.arange(50).repeat(4)
    labels = (rng.random(50) < 0.5).repeat(4)
    names = rng.normal(size=(50, 1, 40)).repeat(4, axis=0)
    assert predict(names, labels, problems).roc.auc < 0.7
    assert predict(names, labels, PROBLEMS).roc.auc > 0.9
    for train, test in outer_folds(labels, problems, 0):
        assert not set(problems[train]) & set(problems[test])


def status(found: Prediction) -> str:
    assert np.isnan(found.roc.auc)
    assert found.layers.size == 0
    return found.roc.status


def test_what_cannot_be_predicted_is_named() -> None:
    features, labels = data()
    assert status(predict(features, np.zeros(200, dtype=bool), PROBLEMS)) == "single_class"
    assert status(predict(features[:49], labels[:49], PROBLEMS[:49])) == "too_few_prompts"
    assert status(predict(features, PROBLEMS < 9, PROBLEMS)) == "too_few_prompts"
    assert status(predict(features, labels, PROBLEMS % 4)) == "too_few_prompts"
    assert status(predict(features * np.nan, labels, PROBLEMS)) == "not_applicable"
    both = compare_predictors({"a": features}, {"b": features[:, 0]}, labels & False, PROBLEMS)
    assert both.gains["gain"].isna().all()
    assert both.shuffled.empty
    with pytest.raises(ValueError, match="not both: a"):
        compare_predictors({"a": features}, {"a": features[:, 0]}, labels, PROBLEMS)


def test_a_layer_with_a_gap_is_no_candidate() -> None:
    features, labels = data()
    features[17, 5] = np.nan
    found = predict(features, labels, PROBLEMS)
    assert 5 not in found.layers
    assert found.roc.auc < 0.65


def test_the_smallest_allowed_set_has_an_answer() -> None:
    features, _ = data(n=50, strength=0.0)
    found = predict(features, np.arange(50) < 10, np.arange(50))
    assert (found.roc.status, found.roc.n_folds) == ("ok", 5)
