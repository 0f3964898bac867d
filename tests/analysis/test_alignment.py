"""Alignments with known answers: equal texts, an insertion, a shuffle, two tokenizers, two depths, and what is refused."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from analysis.alignment import Alignment, by_position, by_token, from_rows, layer_map


def test_positions_align_as_far_as_the_shorter_text_goes() -> None:
    assert by_position(3, 5).pairs == ((0, 0), (1, 1), (2, 2))
    assert by_position(0, 5).pairs == ()
    assert len(by_position(4, 4)) == 4
    with pytest.raises(ValueError, match="length of B must be 0 or more, not -1"):
        by_position(3, -1)


def test_an_inserted_token_shifts_what_follows() -> None:
    aligned = by_token(["<s>", "a", "b", "c"], ["a", "b", "new", "c"])
    assert aligned.pairs == ((1, 0), (2, 1), (3, 3))
    assert aligned.to_b == {1: 0, 2: 1, 3: 3}
    assert aligned.to_a == {0: 1, 1: 2, 3: 3}


def test_two_tokenizers_align_where_their_pieces_agree() -> None:
    assert by_token(["The", " river", "bank", "."], ["The", " river", "ba", "nk", "."]).pairs == (
        (0, 0),
        (1, 1),
        (3, 4),
    )


def test_nothing_in_common_and_nothing_at_all_align_nothing() -> None:
    assert by_token(["a"], ["b"]).pairs == ()
    assert by_token([], ["b"]).pairs == ()
    assert by_token([], []).pairs == ()


def test_a_frequent_token_is_no_junk() -> None:
    text = [" the"] * 400
    assert len(by_token(text, text)) == 400


def test_a_shuffle_may_go_back_and_forth_and_order_does_not_matter() -> None:
    shuffled = Alignment(((2, 0), (0, 1), (1, 2)))
    assert shuffled == Alignment(((0, 1), (1, 2), (2, 0)))
    assert shuffled.pairs == ((0, 1), (1, 2), (2, 0))
    assert hash(shuffled) == hash(Alignment(((1, 2), (2, 0), (0, 1))))
    assert shuffled.within(3, 3) is shuffled


@pytest.mark.parametrize(
    ("pairs", "told"),
    [
        (((0, 0), (0, 1)), "position 0 of A stands in two pairs"),
        (((0, 3), (1, 3)), "position 3 of B stands in two pairs"),
        (((-1, 0),), "position of A must be a whole number from 0 on, not -1"),
        (((True, 0),), "position of A must be a whole number from 0 on, not True"),
    ],
)
def test_bad_pairs_are_named(pairs: Any, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        Alignment(pairs)


def test_a_position_beyond_its_text_is_named_with_the_range() -> None:
    with pytest.raises(ValueError, match="A has no position 3; it must be from 0 to 2"):
        Alignment(((3, 0),)).within(3, 9)
    with pytest.raises(ValueError, match="B has no position 9; it must be from 0 to 8"):
        Alignment(((2, 9),)).within(3, 9)
    with pytest.raises(ValueError, match="B has no position 0; that text has no tokens"):
        Alignment(((0, 0),)).within(1, 0)
    assert Alignment(()).within(0, 0).pairs == ()


def test_an_edited_table_is_read_with_its_empty_rows_left_out() -> None:
    rows = [(0.0, 2), (np.int64(1), 0), (None, float("nan")), (pd.NA, pd.NA)]
    assert from_rows(rows, 3, 3).pairs == ((0, 2), (1, 0))
    assert from_rows([], 3, 3).pairs == ()


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ((1, None), "row 2 lacks the position of B; it must be from 0 to 8"),
        ((pd.NA, 1), "row 2 lacks the position of A; it must be from 0 to 2"),
        ((1.5, 1), "row 2 says 1.5, no whole number, as the position of A"),
        ((float("inf"), 1), "row 2 says inf, no whole number, as the position of A"),
        ((1, "x"), "row 2 says 'x', no whole number, as the position of B"),
        ((True, 1), "row 2 says True, no whole number"),
        ((3, 1), "A has no position 3; it must be from 0 to 2"),
        ((1, 0), "position 0 of B stands in two pairs"),
    ],
)
def test_a_bad_row_of_an_edited_table_is_named(row: tuple[object, object], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        from_rows([(0, 0), row], 3, 9)


def test_layers_of_equal_models_are_their_own() -> None:
    assert layer_map(30, 30) == tuple(range(31))
    assert layer_map(1, 1) == (0, 1)


def test_layers_of_other_depths_stand_at_the_same_fraction() -> None:
    assert layer_map(4, 8) == (0, 2, 4, 6, 8)
    assert layer_map(8, 4) == (0, 0, 1, 1, 2, 2, 3, 3, 4), "between two equally near, the lower"
    assert layer_map(3, 2) == (0, 1, 1, 2)
    assert layer_map(12, 30)[0] == 0
    assert layer_map(12, 30)[-1] == 30
    with pytest.raises(ValueError, match="B must have at least 1 layer, not 0"):
        layer_map(3, 0)


@pytest.mark.parametrize("n_a", range(1, 14))
@pytest.mark.parametrize("n_b", range(1, 14))
def test_every_layer_map_is_nearest_and_rises(n_a: int, n_b: int) -> None:
    found = layer_map(n_a, n_b)
    assert list(found) == sorted(found)
    for point, other in enumerate(found):
        gaps = [abs(point * n_b - candidate * n_a) for candidate in range(n_b + 1)]
        assert gaps[other] == min(gaps)
        assert gaps.index(min(gaps)) == other
