"""The contextual-recall probe on planted answers: windows by hand, states that hold their window, and states that do not."""

import numpy as np
import pytest

from analysis.contextual_recall import frequent_tokens, mean_precision, position_features, window_targets

TEXTS, LENGTH = 20, 100


def planted() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    draw = np.random.default_rng(0)
    ids = draw.integers(0, 60, TEXTS * LENGTH)
    text = np.repeat(np.arange(TEXTS), LENGTH)
    return ids, text, np.tile(np.arange(LENGTH), TEXTS)


def test_a_window_ends_before_its_token_and_in_its_text() -> None:
    ids = np.array([7, 1, 7, *[1] * 40, 7, 1])
    text = np.array([0] * 44 + [1])
    seen = window_targets(ids, text, np.array([7]))[:, 0]
    expected = np.zeros(45, dtype=bool)
    expected[1:35] = True  # 7 at 0 is seen to position 32, 7 at 2 to 34; itself and the next text never
    np.testing.assert_array_equal(seen, expected)


def test_states_that_hold_their_window_recall_it_and_noise_does_not() -> None:
    ids, text, position = planted()
    vocabulary = frequent_tokens(ids, text)
    targets = window_targets(ids, text, vocabulary)
    draw = np.random.default_rng(1)
    mixing = draw.standard_normal((len(vocabulary), 60))
    holding = targets @ mixing + 0.01 * draw.standard_normal((len(ids), 60))
    base = targets.mean()
    assert mean_precision(holding, targets, text).value > 0.99
    assert mean_precision(draw.standard_normal((len(ids), 60)), targets, text).value == pytest.approx(base, abs=0.06)
    by_position = mean_precision(position_features(position), targets, text)
    assert base < by_position.value < 0.75
    assert by_position.n_used == TEXTS


def test_what_cannot_be_tested_says_so() -> None:
    ids, text, _ = planted()
    targets = window_targets(ids, text, np.array([999]))
    states = np.random.default_rng(0).standard_normal((len(ids), 8))
    assert mean_precision(states, targets, text).status == "single_class"
    few = text < 9
    assert mean_precision(states[few], targets[few], text[few]).status == "too_few_prompts"
    states[0, 0] = np.nan
    assert mean_precision(states, targets, text).status == "non_finite"


def test_frequent_tokens_are_those_of_most_texts() -> None:
    text = np.repeat(np.arange(6), 3)
    ids = np.array([[5, 9, 10 + one] for one in range(6)]).ravel()
    ids[-2] = 5
    assert frequent_tokens(ids, text).tolist() == [5, 9]
