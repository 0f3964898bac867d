"""Cosines to position 0 where the answer is known."""

import pytest
import torch

from analysis.bos_cosine import bos_cosine


def keep(n_tokens: int, *sinks: int) -> torch.Tensor:
    mask = torch.ones(n_tokens, dtype=torch.bool)
    mask[list(sinks)] = False
    return mask


def test_known_angles():
    H = torch.tensor([[2.0, 0, 0, 0, 0], [5, 0, 0, 0, 0], [0, 1, 0, 0, 0], [-1, 0, 0, 0, 0], [3, 4, 0, 0, 0]])
    assert bos_cosine(H, keep(5, 0)).raw.tolist() == pytest.approx([1, 1, 0, -1, 0.6])


def test_a_common_mean_makes_everything_alike_until_it_is_removed():
    torch.manual_seed(0)
    noise = torch.randn(200, 32)
    cosines = bos_cosine(noise + 50, keep(200, 0))
    assert cosines.raw.min() > 0.99
    assert cosines.centred[1:].mean().abs() < 0.05
    assert cosines.centred[0].item() == pytest.approx(1)


def test_the_mean_leaves_sinks_out():
    H = torch.tensor([[1.0, 0, 0], [1000, 1000, 0], [0, 1, 0], [0, -1, 0]])
    without_sink = bos_cosine(H, keep(4, 0, 1))
    assert without_sink.centred.tolist() == pytest.approx([1, 0.5**0.5, 0, 0])
    with_sink = bos_cosine(H, keep(4, 0))
    assert with_sink.centred[2].item() == pytest.approx(1, abs=1e-3)


def test_two_outlier_dimensions_determine_the_raw_cosine():
    torch.manual_seed(0)
    H = torch.randn(50, 64)
    H[:, 7], H[:, 20] = 900, -600
    cosines = bos_cosine(H, keep(50, 0))
    assert cosines.raw.min() > 0.99
    assert {7, 20} < set(cosines.zeroed)
    assert len(cosines.zeroed) == 3
    assert cosines.nomassive[1:].abs().max() < 0.6


def test_zero_vectors_have_no_cosine():
    H = torch.tensor([[1.0, 1, 1, 1, 0], [0, 0, 0, 0, 0], [1, 2, 3, 4, 5]])
    assert bos_cosine(H, keep(3, 0)).raw.isnan().tolist() == [False, True, False]
    first = bos_cosine(H[[1, 0, 2]], keep(3, 0))
    assert first.raw.isnan().all()
    only_massive = bos_cosine(torch.tensor([[3.0, 2, 1], [1, 2, 3]]), keep(2, 0))
    assert only_massive.nomassive.isnan().all()


def test_identical_rows_leave_nothing_after_centring():
    H = torch.full((6, 8), 0.1)
    cosines = bos_cosine(H, keep(6, 0))
    assert cosines.centred.isnan().all()
    assert cosines.raw.tolist() == pytest.approx([1] * 6)


def test_without_non_sinks_there_is_no_mean():
    cosines = bos_cosine(torch.randn(3, 8), torch.zeros(3, dtype=torch.bool))
    assert cosines.centred.isnan().all()
    assert not cosines.raw.isnan().any()


def test_fewer_dimensions_than_massive_ones():
    assert bos_cosine(torch.randn(3, 2), keep(3, 0)).zeroed == (0, 1)
