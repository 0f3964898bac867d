"""Value norms, VATP and ranks on hand-made attention."""

import pytest
import torch

from analysis.values import key_ranks, value_norm_ratio, value_weighted

GENERATOR = torch.Generator().manual_seed(0)


def test_equal_value_norms_leave_the_ranking_of_attention():
    column_sum = torch.rand(2, 3, 40, dtype=torch.float64, generator=GENERATOR)
    score = value_weighted(column_sum, torch.full((2, 3, 40), 2.5))
    assert torch.equal(key_ranks(score), key_ranks(column_sum))


def test_a_value_of_norm_0_has_score_0():
    column_sum = torch.tensor([9.0, 1.0, 2.0], dtype=torch.float64)
    score = value_weighted(column_sum, torch.tensor([0.0, 1.0, 1.0]))
    assert score.tolist() == [0, 1, 2]
    assert key_ranks(score).tolist() == [3, 2, 1]
    assert key_ranks(column_sum).tolist() == [1, 3, 2]


def test_first_positions_are_kept_whatever_their_score():
    score = torch.tensor([[0.0, 1.0, 5.0, 3.0]], dtype=torch.float64)
    assert key_ranks(score, keep_first=2).tolist() == [[1, 2, 3, 4]]
    assert score.tolist() == [[0, 1, 5, 3]]


def test_equal_scores_rank_by_position():
    assert key_ranks(torch.ones(5, dtype=torch.float64)).tolist() == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("keep_first", [-1, 5])
def test_keep_first_out_of_range(keep_first):
    with pytest.raises(ValueError, match=r"0\.\.4"):
        key_ranks(torch.ones(4, dtype=torch.float64), keep_first)


def test_value_norm_ratio_is_position_0_over_the_median():
    norms = torch.tensor([[[0.5, 1.0, 2.0, 9.0]], [[1.0, 0.0, 0.0, 0.0]]])
    ratio = value_norm_ratio(norms)
    assert ratio[0, 0].item() == 0.5 / 1.5
    assert ratio[1, 0].isnan()
