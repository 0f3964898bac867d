"""Prompt against response: planted steepening is seen, a mere difference in length is not."""

import numpy as np
import pytest
import torch

from analysis.matched import matched_alpha
from analysis.measured import Measured
from analysis.response_shift import response_shift, shift_class, text_shift

D = 96


def states(tokens: int, exponent: float, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, tokens, D, generator=generator) * torch.arange(1, D + 1) ** -exponent


def both_sides(resid: torch.Tensor, start: int, keep: torch.Tensor, *, normed: bool) -> list[list[Measured]]:
    """Alpha by point of the tokens before ``start`` and of the rest, both at the smaller n."""
    before = torch.arange(len(keep)) < start
    n = int(min((keep & before).sum(), (keep & ~before).sum()))
    return [matched_alpha(resid, n, keep & side, normed=normed) for side in (before, ~before)]


def shift(prompt_tokens: int, response_tokens: int, exponent: float) -> np.ndarray:
    tables = []
    for seed in range(12):
        text = torch.cat([states(prompt_tokens, 0.5, seed), states(response_tokens, exponent, seed + 100)], dim=1)
        keep = torch.ones(text.shape[1], dtype=torch.bool)
        found = text_shift(text, prompt_tokens, keep, normed=False)
        tables.append([[one.prompt for one in found], [one.response for one in found]])
    return np.array([[[one.value for one in side] for side in table] for table in tables])


def test_a_longer_response_of_the_same_kind_is_in_equilibrium() -> None:
    alphas = shift(30, 90, 0.5)
    found = response_shift(alphas[:, 0], alphas[:, 1])
    assert found.overall == "equilibrium"
    assert found.exploratory
    assert abs(found.comparison.overall["difference"]) < 0.03


@pytest.mark.parametrize(("exponent", "expected"), [(0.9, "steeper"), (0.1, "flatter")])
def test_a_planted_shift_has_its_class(exponent: float, expected: str) -> None:
    alphas = shift(30, 60, exponent)
    found = response_shift(alphas[:, 0], alphas[:, 1])
    assert found.overall == expected
    assert found.table["class"].tolist() == [expected] * 2
    assert (found.table["p_bh"] < 1e-6).all()


def test_both_sides_have_the_smaller_n_of_kept_tokens() -> None:
    text = torch.cat([states(30, 0.5, 0), states(60, 0.5, 1)], dim=1)
    keep = torch.ones(90, dtype=torch.bool)
    keep[[0, 1, 50]] = False
    found = text_shift(text, 30, keep, normed=False)
    assert {side.n_used for one in found for side in (one.prompt, one.response)} == {28}
    with pytest.raises(ValueError, match="between 5 and"):
        text_shift(text, 88, keep, normed=False)


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        ((0.09, 0.05, 0.13), "equilibrium"),
        ((0.4, -0.1, 0.9), "equilibrium"),
        ((0.1, 0.01, 0.19), "steeper"),
        ((-0.46, -0.6, -0.3), "flatter"),
        ((np.nan, np.nan, np.nan), None),
    ],
)
def test_classes(numbers: tuple[float, float, float], expected: str | None) -> None:
    assert shift_class(*numbers) == expected


def test_the_shift_of_one_text_is_that_of_both_sides_and_its_interval_says_how_far_stretches_differ() -> None:
    text = torch.cat([states(90, 0.5, 0), states(30, 0.9, 1)], dim=1)
    keep = torch.ones(120, dtype=torch.bool)
    found = text_shift(text, 90, keep, normed=False)
    prompt, response = both_sides(text, 90, keep, normed=False)
    assert [one.prompt for one in found] == prompt
    assert [one.response for one in found] == response
    for one in found:
        assert 0.1 < one.low <= one.shift <= one.high
        assert shift_class(one.shift, one.low, one.high) == "steeper"
    same = text_shift(torch.cat([states(90, 0.5, 0), states(30, 0.5, 1)], dim=1), 90, keep, normed=False)
    assert {shift_class(one.shift, one.low, one.high) for one in same} == {"equilibrium"}


def test_two_single_stretches_have_no_interval() -> None:
    found = text_shift(states(60, 0.5, 0), 30, torch.ones(60, dtype=torch.bool), normed=True)
    assert all(np.isnan([one.low, one.high]).all() for one in found)
    assert all(np.isfinite(one.shift) for one in found)
