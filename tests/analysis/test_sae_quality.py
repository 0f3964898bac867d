"""Streamed quality equals the quality of all states at once, and losses have known answers."""

import math

import pytest
import torch

from analysis.sae_metrics import reconstruction_quality
from analysis.sae_quality import NEVER, Activity, FitSums, density_bars, density_bins, recovered


def states(n: int = 90) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(4)
    x = torch.randn(n, 12, generator=draw) + 3
    return x, x + 0.4 * torch.randn(n, 12, generator=draw), torch.randint(0, 9, (n,), generator=draw)


def test_sums_over_batches_give_the_numbers_of_all_states() -> None:
    x, x_hat, active = states()
    sums = FitSums(12)
    for first in range(0, 90, 7):
        sums.add(x[first : first + 7], x_hat[first : first + 7], active[first : first + 7])
    for variance in (5.0, None):
        expected = reconstruction_quality(x, x_hat, active, torch.ones(90, dtype=torch.bool), variance)
        found = sums.quality(variance)
        for name in expected.__slots__:
            ours, theirs = getattr(found, name), getattr(expected, name)
            assert (ours.n_used, ours.status) == (theirs.n_used, theirs.status)
            assert ours.value == pytest.approx(theirs.value, rel=1e-9, nan_ok=True), name
    assert torch.allclose(sums.mean, x.double().mean(dim=0))


def test_nothing_seen_is_undefined_not_zero() -> None:
    found = FitSums(3).quality(1.0)
    assert math.isnan(found.l0.value)
    assert found.explained_variance.status == "too_few_tokens"
    alike = FitSums(3)
    alike.add(torch.ones(4, 3), torch.zeros(4, 3), torch.zeros(4, dtype=torch.int64))
    assert alike.quality(None).explained_variance_own.status == "not_applicable"


def test_activity_counts_latents_and_states() -> None:
    activity = Activity(5)
    f = torch.tensor([[1.0, 0, 0, 2, 0], [1, 0, 0, 0, 0], [3, 0, 0, 0, 0]])
    assert activity.add(f).tolist() == [2, 1, 1]
    assert activity.fired.tolist() == [3, 0, 0, 1, 0]
    assert activity.l0.tolist() == [0, 2, 1, 0, 0, 0]
    assert activity.never.value == pytest.approx(3 / 5)
    assert activity.dead.status == "too_few_tokens"  # 3 tokens tell nothing
    assert activity.dense.value == pytest.approx(2 / 5)
    activity.n = 100_000
    assert activity.dead.value == pytest.approx(3 / 5)


def test_density_stands_in_quarters_of_a_decade() -> None:
    fired = torch.tensor([0, 1, 10, 100, 1000, 999])
    assert density_bins(fired, 1000) == {-12: 1, -8: 1, -4: 1, -1: 2}
    assert density_bars(fired, 1000).tolist() == [NEVER, -12, -8, -4, -1, -1]


def test_recovered_loss_is_1_for_clean_0_for_damaged_and_undefined_without_damage() -> None:
    assert recovered(5.0, 2.0, 2.0, 10).value == 1.0
    assert recovered(5.0, 5.0, 2.0, 10).value == 0.0
    assert recovered(5.0, 3.5, 2.0, 10).value == pytest.approx(0.5)
    assert recovered(2.005, 2.0, 2.0, 10).status == "not_applicable"
    assert recovered(math.nan, 2.0, 2.0, 10).status == "non_finite"
    assert recovered(5.0, 2.0, 2.0, 0).status == "too_few_tokens"
