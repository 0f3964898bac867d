"""Prediction depth and convergence on trajectories whose answer is known."""

import math

import pytest
import torch

from analysis.lens_depth import convergence, prediction_depth


def test_depth_is_the_first_point_after_which_the_argmax_never_changes():
    top1 = torch.tensor([[7, 1, 7, 7], [2, 1, 7, 7], [7, 1, 2, 7], [7, 1, 7, 7]])
    assert prediction_depth(top1).tolist() == [2, 0, 3, 0]


def test_depth_of_a_late_decision_is_the_last_point():
    assert prediction_depth(torch.tensor([[1], [2], [3]])).tolist() == [2]


def test_convergence_of_an_exponential_decay_has_its_rate_and_ignores_the_last_point():
    points = torch.arange(13, dtype=torch.float64)
    kl = 5 * torch.exp(-0.4 * points)
    kl[-1] = 0.0
    ce = torch.linspace(6, 0, 13, dtype=torch.float64)
    result = convergence(ce, kl)
    assert result.rate.value == pytest.approx(0.4, rel=1e-9)
    assert result.rate.n_used == 6
    assert result.monotonicity.value == 1.0
    assert result.area.value == pytest.approx(3.0)
    assert result.first_nat.value == 11


def test_monotonicity_is_the_share_of_falling_steps():
    ce = torch.tensor([4.0, 3.0, 3.5, 3.5, 2.0])
    result = convergence(ce, torch.ones(5))
    assert result.monotonicity.value == pytest.approx(0.5)
    assert result.first_nat.status == "not_applicable"


def test_too_few_points_or_a_broken_one_leave_the_numbers_undefined():
    few = convergence(torch.tensor([2.0, 0.5, 0.1]), torch.tensor([1.0, 0.5, 0.0]))
    assert few.rate.status == "not_applicable"
    assert math.isnan(few.rate.value)
    one = convergence(torch.tensor([0.3]), torch.tensor([0.0]))
    assert {m.status for m in (one.monotonicity, one.rate, one.area, one.first_nat)} == {"not_applicable"}
    broken = convergence(torch.tensor([1.0, math.nan]), torch.tensor([1.0, 0.0]))
    assert broken.area.status == "non_finite"
