"""Rounding of weights: exact where it can be, bounded where it cannot."""

import math

import pytest
import torch
from torch import Tensor

from analysis.quantise import integers, pooled_error, quantise, round_to


def drawn(rows: int = 64, columns: int = 12, seed: int = 0) -> Tensor:
    """A matrix whose columns differ in size by orders of magnitude."""
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(rows, columns, generator=draw) * torch.logspace(-3, 2, columns)


@pytest.mark.parametrize(("bits", "levels"), [(8, 127), (4, 7)])
def test_integers_times_scale_are_the_values(bits: int, levels: int) -> None:
    weight = drawn()
    steps, scale = integers(weight, bits)
    assert steps.dtype is torch.int8
    torch.testing.assert_close(scale, weight.abs().amax(dim=0) / levels, rtol=0, atol=0)
    assert steps.abs().amax(dim=0).tolist() == [levels] * weight.shape[1]
    assert torch.equal(quantise(weight, bits).values, steps * scale)


@pytest.mark.parametrize("bits", [8, 4])
def test_no_value_moves_more_than_half_a_step(bits: int) -> None:
    weight = drawn()
    _, scale = integers(weight, bits)
    moved = (quantise(weight, bits).values - weight).abs()
    assert bool((moved <= scale * (0.5 + 1e-5)).all())


@pytest.mark.parametrize("bits", [8, 4])
def test_the_error_is_the_relative_frobenius_norm_of_what_was_lost(bits: int) -> None:
    weight = drawn()
    made = quantise(weight, bits)
    expected = (made.values.double() - weight.double()).norm() / weight.double().norm()
    assert made.error == pytest.approx(float(expected), rel=1e-6)
    uniform = float((integers(weight, bits)[1].double() ** 2 / 12 * len(weight)).sum().sqrt() / weight.double().norm())
    assert made.error == pytest.approx(uniform, rel=0.2)  # steps are hit evenly: variance of a uniform error


def test_int4_loses_about_127_over_7_times_what_int8_loses() -> None:
    weight = drawn(2048)
    assert quantise(weight, 4).error / quantise(weight, 8).error == pytest.approx(127 / 7, rel=0.05)


@pytest.mark.parametrize("bits", [8, 4])
def test_rounding_twice_is_rounding_once(bits: int) -> None:
    once = quantise(drawn(), bits).values
    assert torch.equal(integers(once, bits)[0], integers(drawn(), bits)[0])
    again = quantise(once, bits)
    torch.testing.assert_close(again.values, once, rtol=2e-7, atol=0)
    assert again.error < 2e-7


def test_a_matrix_on_the_grid_is_kept_to_the_bit() -> None:
    steps = torch.randint(-7, 8, (40, 6), generator=torch.Generator().manual_seed(1)).float()
    steps[0] = 7.0
    weight = steps * torch.tensor([2.0**-k for k in range(6)])
    made = quantise(weight, 4)
    assert torch.equal(made.values, weight)
    assert made.error == 0.0


def test_channels_of_zeros_stay_zero() -> None:
    weight = drawn()
    weight[:, 3] = 0.0
    steps, scale = integers(weight, 4)
    assert float(scale[3]) == 0.0
    assert not steps[:, 3].any()
    assert not quantise(weight, 4).values[:, 3].any()
    assert quantise(torch.zeros(3, 2), 4).error == 0.0


def test_channels_are_rounded_on_their_own() -> None:
    weight = drawn()
    scaled = weight * torch.logspace(4, -4, 12)
    alone = quantise(scaled[:, 5:6], 8).values
    assert torch.equal(quantise(scaled, 8).values[:, 5:6], alone)


def test_what_cannot_be_rounded_is_refused() -> None:
    with pytest.raises(ValueError, match="finite"):
        quantise(torch.tensor([[1.0, math.nan]]), 4)
    with pytest.raises(ValueError, match=r"2\.\.8"):
        quantise(drawn(), 16)
    with pytest.raises(ValueError, match=r"1e\+05, is beyond float16's 6\.55e\+04"):
        round_to(torch.tensor([1e5, 1.0]), torch.float16)


@pytest.mark.parametrize(("dtype", "bound"), [(torch.bfloat16, 2.0**-8), (torch.float16, 2.0**-11)])
def test_shorter_types_are_the_types_own_rounding(dtype: torch.dtype, bound: float) -> None:
    weight = drawn()
    made = round_to(weight, dtype)
    assert made.values.dtype is torch.float32
    assert torch.equal(made.values, weight.to(dtype).float())
    assert 0.0 < made.error <= bound
    assert round_to(made.values, dtype).error == 0.0


def test_errors_pool_like_one_long_tensor() -> None:
    parts = [quantise(drawn(seed=seed), 4) for seed in range(3)]
    whole = torch.cat([drawn(seed=seed) for seed in range(3)])
    lost = torch.cat([part.values for part in parts]) - whole
    assert pooled_error(parts) == pytest.approx(float(lost.double().norm() / whole.double().norm()), rel=1e-6)
    assert pooled_error([]) == 0.0
