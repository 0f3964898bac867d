"""Mean pairwise cosine against the mean over all pairs (core.md 6.3)."""

import math

import numpy as np
import pytest
import torch

from analysis.cosine import mean_cosine


@pytest.mark.parametrize("centred", [False, True])
def test_it_is_the_mean_over_all_pairs(centred: bool) -> None:
    x = torch.randn(40, 7, generator=torch.Generator().manual_seed(0)) + 0.4
    rows = x.double() - (x.double().mean(0) if centred else 0)
    unit = torch.nn.functional.normalize(rows, dim=1)
    pairs = (unit @ unit.T)[np.triu_indices(40, 1)]
    found = mean_cosine(x, centred=centred)
    assert found.value == pytest.approx(float(pairs.mean()), abs=1e-12)
    assert found.n_used == 40


def test_a_common_direction_is_seen_raw_and_gone_when_centred() -> None:
    x = torch.randn(200, 30, generator=torch.Generator().manual_seed(1)) + 5.0
    assert mean_cosine(x).value > 0.9
    assert abs(mean_cosine(x, centred=True).value) < 0.02


def test_parallel_rows_are_1_and_directions_that_are_missing_are_left_out() -> None:
    x = torch.arange(1.0, 6.0)[:, None] * torch.tensor([[1.0, 2.0, 3.0]])
    assert mean_cosine(x).value == pytest.approx(1.0)
    with_zero = torch.cat([x, torch.zeros(1, 3)])
    assert mean_cosine(with_zero).n_used == 5


def test_what_has_no_pairs_says_why() -> None:
    assert mean_cosine(torch.ones(1, 3)).status == "too_few_tokens"
    assert mean_cosine(torch.ones(5, 3), centred=True).status == "rank_deficient"
    broken = torch.ones(5, 3)
    broken[2, 2] = torch.nan
    found = mean_cosine(broken)
    assert found.status == "non_finite"
    assert math.isnan(found.value)
