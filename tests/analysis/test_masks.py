"""Token masks by hand-made sink scores."""

import pytest
import torch

from analysis.masks import token_masks

N_TOKENS = 64
SPECIAL = torch.zeros(N_TOKENS, dtype=torch.bool)


def scores(heads_above: dict[int, int], n_blocks: int = 10, n_heads: int = 5, first_block: int = 0) -> torch.Tensor:
    """Scores with ``heads_above[pos]`` heads at .5 for that key, filled from ``first_block`` on."""
    flat = torch.zeros((n_blocks - first_block) * n_heads, N_TOKENS, dtype=torch.float64)
    for pos, count in heads_above.items():
        flat[:count, pos] = 0.5
    start = torch.zeros(first_block, n_heads, N_TOKENS, dtype=torch.float64)
    return torch.cat([start, flat.reshape(-1, n_heads, N_TOKENS)])


def dropped(masks) -> list[int]:
    return [pos for pos, _ in masks.dropped]


def test_position_0_and_special_ids():
    special = SPECIAL.clone()
    special[[0, 20]] = True
    masks = token_masks(scores({}), frozenset(), special)
    assert masks.all.all()
    assert (~masks.no_bos).nonzero()[:, 0].tolist() == [0, 20]
    assert (~masks.no_sink).nonzero()[:, 0].tolist() == [0]
    assert masks.dropped == ((0, "position 0"),)
    plain = token_masks(scores({}), frozenset(), SPECIAL)
    assert not plain.no_bos[0]


@pytest.mark.parametrize(("heads", "expected"), [(4, [0]), (5, [0, 7])])
def test_needs_a_tenth_of_the_heads(heads, expected):
    assert dropped(token_masks(scores({0: 50, 7: heads}), frozenset(), SPECIAL)) == expected


def test_heads_count_from_the_first_block_with_sinks():
    late = scores({0: 10, 7: 3}, first_block=8)
    masks = token_masks(late, frozenset(), SPECIAL)
    assert masks.dropped == ((0, "position 0"), (7, "sink in 3 of 10 heads"))


@pytest.mark.parametrize(("heads", "expected"), [(2, [0]), (3, [0, 7])])
def test_needs_three_heads(heads, expected):
    assert dropped(token_masks(scores({0: 5, 7: heads}, n_blocks=1), frozenset(), SPECIAL)) == expected


@pytest.mark.parametrize(("pos", "expected"), [(56, [0, 56]), (57, [0])])
def test_needs_eight_visible_queries(pos, expected):
    assert dropped(token_masks(scores({pos: 50}), frozenset(), SPECIAL)) == expected


def test_massive_positions_are_dropped_with_their_reason():
    masks = token_masks(scores({}), frozenset({0, 9}), SPECIAL)
    assert masks.dropped == ((0, "position 0"), (9, "massive activation"))
    assert masks.no_bos[9]


def test_massive_position_outside_the_prompt():
    with pytest.raises(ValueError, match=r"0\.\.63"):
        token_masks(scores({}), frozenset({64}), SPECIAL)


def test_one_token():
    masks = token_masks(torch.ones(2, 2, 1, dtype=torch.float64), frozenset(), torch.tensor([False]))
    assert not masks.no_sink.any()
    assert masks.all.tolist() == [True]
