"""A reversal needs opposite signs and two intervals without 0."""

import numpy as np
import pytest

from analysis.groups import Groups
from analysis.reversal import Reversal, reversal


def case(base: float, instruct: float, n: int = 60, tokens: int = 64) -> Reversal:
    """Differences ``base`` and ``instruct`` between groups of prompts whose own level both models share."""
    rng = np.random.default_rng(3)
    level = [rng.normal(0, 0.5, size=(n, 1)), rng.normal(0, 0.5, size=(n, 1))]
    sides = []
    for difference in (base, instruct):
        first, second = (one + rng.normal(0, 0.1, size=(n, 6)) for one in level)
        sides.append((first + difference, second))
    lengths = np.full(n, 64)
    return reversal(Groups(*sides[0], lengths, lengths), Groups(*sides[1], np.full(n, tokens), lengths))


def test_opposite_and_clear_differences_are_a_reversal() -> None:
    found = case(-0.6, 0.6)
    assert found.reverses is True
    assert found.table["reverses"].tolist() == [True] * 6
    assert found.interaction.overall["difference"] == pytest.approx(1.2, abs=0.05)


@pytest.mark.parametrize(("base", "instruct"), [(-0.6, -0.3), (0.6, 0.3), (-0.6, 0.02), (0.0, 0.6)])
def test_one_sign_or_an_interval_with_zero_is_none(base: float, instruct: float) -> None:
    found = case(base, instruct)
    assert found.reverses is False
    assert found.interaction.overall["p"] < 1e-6  # that the models differ is not yet a reversal


def test_shared_prompts_make_the_interaction_sharper_than_either_difference() -> None:
    found = case(-0.6, 0.6)
    widths = [one.overall["high"] - one.overall["low"] for one in (found.interaction, found.base, found.instruct)]
    assert widths[0] < 0.5 * min(widths[1:])
    gap = found.instruct.table["difference"] - found.base.table["difference"]
    np.testing.assert_allclose(found.table["interaction"], gap, atol=1e-12)


def test_lengths_that_differ_in_one_model_leave_no_verdict() -> None:
    found = case(-0.6, 0.6, tokens=90)
    assert found.reverses is None
    assert found.refusal is not None
    assert found.table[["instruct_low", "interaction_low", "interaction_p_bh"]].isna().all(axis=None)
    assert found.table["reverses"].tolist() == [None] * 6


def test_other_prompts_are_refused() -> None:
    base = Groups(np.zeros((5, 2)), np.zeros((5, 2)), None, None)
    other = Groups(np.zeros((4, 2)), np.zeros((5, 2)), None, None)
    with pytest.raises(ValueError, match="in the first group"):
        reversal(base, other)
