"""The direct effect of a direction on logits: known answers, the mean taken out, the norm's gain put in."""

import math

import pytest
import torch

from analysis.logit_effect import logit_effect

ONES = torch.ones(8)


def _unembedding(vocab: int = 40) -> torch.Tensor:
    return torch.randn(vocab, 8, generator=torch.Generator().manual_seed(0))


def test_a_direction_along_one_unembedding_row_promotes_that_token() -> None:
    unembedding = torch.linalg.qr(_unembedding(8)).Q
    effect = logit_effect(3 * unembedding[5], ONES, unembedding, k=2)
    assert effect.promoted[0] == 5
    assert effect.promoted_by[0].item() == pytest.approx(3 - 3 / 8, abs=1e-5)
    assert effect.suppressed_by.tolist() == pytest.approx([-3 / 8] * 2, abs=1e-5)


def test_values_are_the_written_formula() -> None:
    unembedding, direction, gain = _unembedding(), torch.arange(8.0) - 2, torch.linspace(0.5, 2, 8)
    logits = unembedding.double() @ (direction * gain).double()
    expected = logits - logits.mean()
    effect = logit_effect(direction, gain, unembedding, k=40)
    assert torch.allclose(effect.promoted_by, expected.sort(descending=True).values)
    assert torch.equal(effect.promoted, expected.sort(descending=True).indices)
    assert torch.allclose(effect.suppressed_by, expected.sort().values)
    z = expected / expected.square().mean().sqrt()
    assert effect.skewness == pytest.approx(z.pow(3).mean().item())
    assert effect.excess_kurtosis == pytest.approx(z.pow(4).mean().item() - 3)


def test_a_vocabulary_larger_than_a_slice_is_read_whole() -> None:
    unembedding = torch.zeros(9000, 8)
    unembedding[8999, 0] = 1.0
    effect = logit_effect(ONES, ONES, unembedding, k=1)
    assert effect.promoted.tolist() == [8999]
    assert effect.excess_kurtosis > 1000


def test_a_constant_shift_of_all_tokens_changes_nothing() -> None:
    unembedding, direction = _unembedding(), torch.arange(8.0)
    shifted = logit_effect(direction, ONES, unembedding + 3.0, k=3)
    plain = logit_effect(direction, ONES, unembedding, k=3)
    assert torch.allclose(plain.promoted_by, shifted.promoted_by, atol=1e-5)


def test_layer_norm_removes_the_mean_over_dimensions() -> None:
    effect = logit_effect(ONES, ONES, _unembedding(), k=1, centred_norm=True)
    assert effect.promoted_by.item() == 0.0
    assert math.isnan(effect.skewness)
    assert logit_effect(ONES, ONES, _unembedding(), k=1).promoted_by.item() > 0.0


def test_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match=r"k must lie in 1\.\.40, not 41"):
        logit_effect(ONES, ONES, _unembedding(), k=41)
    with pytest.raises(ValueError, match="direction must be finite"):
        logit_effect(ONES * math.nan, ONES, _unembedding())
