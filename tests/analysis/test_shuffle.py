"""Shuffled orders keep every token, BOS in its place, and blocks whole (core.md 6.3)."""

import numpy as np
import pytest

from analysis.shuffle import SEEDS, shuffled_order


@pytest.mark.parametrize("blocks", [None, 1, 2, 5])
@pytest.mark.parametrize("n", [4, 50, 300])
def test_every_token_stays_once_and_the_first_in_its_place(n: int, blocks: int | None) -> None:
    for seed in SEEDS:
        order = shuffled_order(n, seed, blocks)
        assert sorted(order.tolist()) == list(range(n))
        assert order[0] == 0
        assert not np.array_equal(order, np.arange(n))
        np.testing.assert_array_equal(order, shuffled_order(n, seed, blocks))


def test_quarters_stay_whole() -> None:
    order = shuffled_order(101, 3, 1)[1:]
    steps = np.diff(order)
    assert (steps != 1).sum() <= 3
    assert len({int(order[i]) // 25 for i in (1, 26, 51, 76)}) == 4


def test_a_large_index_is_the_full_shuffle() -> None:
    np.testing.assert_array_equal(shuffled_order(60, 1, 3), shuffled_order(60, 1))
    assert (np.diff(shuffled_order(1025, 1, 2)) == 1).mean() > 0.9
    assert (np.diff(shuffled_order(1025, 1, 5)) == 1).mean() < 0.05


def test_nothing_is_fixed_where_a_model_has_no_bos() -> None:
    assert any(shuffled_order(20, seed, fixed=0)[0] != 0 for seed in SEEDS)


def test_identical_tokens_are_the_same_text() -> None:
    ids = np.array([1, *[7] * 40])
    np.testing.assert_array_equal(ids[shuffled_order(len(ids), 0)], ids)


def test_what_cannot_be_shuffled_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 3"):
        shuffled_order(3, 0)
    with pytest.raises(ValueError, match="block permutation index"):
        shuffled_order(10, 0, 0)
    with pytest.raises(ValueError, match="0 or more"):
        shuffled_order(10, -1)
