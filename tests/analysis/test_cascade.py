"""Cascade: planted decay recovered, limits named, and what the two nulls say of planted data."""

from math import exp, inf

import numpy as np
import pytest
import torch
from scipy.optimize import curve_fit

from analysis.cascade import by_distance, cascade, gradient, stacked, standard_gradients
from analysis.cascade_fit import fit_decay, fit_each
from analysis.cascade_nulls import random_walk_null, time_shift_null, turned_null
from analysis.windows import alpha_windows

DISTANCE = np.arange(1, 12)
PAIRS = np.arange(11, 0, -1)


def planted(tau: float, points: int = 12, tokens: int = 200, seed: int = 0) -> np.ndarray:
    """Alphas whose gradients correlate between layers by exactly exp(-distance / tau)."""
    noise = np.random.default_rng(seed).normal(size=(tokens - 1, points))
    noise = np.linalg.qr(noise - noise.mean(axis=0))[0].T
    wanted = np.exp(-np.abs(np.subtract.outer(np.arange(points), np.arange(points))) / tau)
    return np.cumsum(np.pad(np.linalg.cholesky(wanted) @ noise, ((0, 0), (1, 0))), axis=1)


def test_a_planted_decay_is_recovered() -> None:
    found = cascade(planted(5))
    assert (found.status, found.n_windows, found.n_layers) == ("ok", 200, 12)
    np.testing.assert_allclose(found.rho, np.exp(-DISTANCE / 5), rtol=1e-9)
    assert found.pairs.tolist() == PAIRS.tolist()
    fit = fit_decay(found.rho[None], found.pairs)
    assert fit.tau == pytest.approx(5, rel=0.01)
    assert (fit.amplitude, fit.r2) == (pytest.approx(1, rel=0.01), pytest.approx(1, abs=1e-6))
    assert (np.isnan(fit.low), fit.status) == (True, "low_confidence")  # one prompt has no interval


@pytest.mark.parametrize("tau", [0.8, 5.0, 60.0])
@pytest.mark.parametrize("amplitude", [1.0, 0.4])
def test_the_fit_finds_both_numbers(tau: float, amplitude: float) -> None:
    found, size, r2 = fit_each(amplitude * np.exp(-DISTANCE / tau)[None], PAIRS.astype(float))
    assert (found[0], size[0], r2[0]) == (
        pytest.approx(tau, rel=1e-5),
        pytest.approx(amplitude, rel=1e-5),
        pytest.approx(1),
    )


def test_the_fit_is_the_least_squares_of_scipy() -> None:
    rho = 0.8 * np.exp(-DISTANCE / 3) + np.random.default_rng(0).normal(0, 0.03, 11)
    used = rho > 0
    (amplitude, tau), _ = curve_fit(
        lambda d, a, t: a * np.exp(-d / t), DISTANCE[used], rho[used], (1, 3), sigma=PAIRS[used] ** -0.5
    )
    found = fit_decay(rho[None], PAIRS)
    assert (found.tau, found.amplitude) == (pytest.approx(tau, rel=1e-5), pytest.approx(amplitude, rel=1e-5))


def test_the_interval_is_over_prompts_and_covers() -> None:
    rng = np.random.default_rng(1)
    hits = []
    expected = fit_decay(np.exp(-DISTANCE / rng.normal(6, 1, size=(20000, 1))).mean(0)[None], PAIRS).tau
    for _ in range(60):
        prompts = np.exp(-DISTANCE / rng.normal(6, 1, size=(25, 1))) + rng.normal(0, 0.1, (25, 11))
        fit = fit_decay(prompts, PAIRS, resamples=300)
        hits.append(fit.low < expected < fit.high)
    assert np.mean(hits) == pytest.approx(0.93, abs=0.08)


def test_identical_layers_correlate_by_one_and_never_decay() -> None:
    found = cascade(planted(5)[:1].repeat(8, axis=0))
    np.testing.assert_allclose(found.correlation, 1)
    fit = fit_decay(found.rho[None], found.pairs)
    assert (fit.tau, fit.decays) == (inf, False)
    rising = fit_decay(np.stack([DISTANCE / 20] * 3), PAIRS)
    assert (rising.tau, rising.low, rising.high) == (inf, inf, inf)


def test_a_periodic_stream_has_no_gradient_and_no_cascade() -> None:
    stream = torch.randn(8, 8, 24, generator=torch.Generator().manual_seed(0)).repeat(1, 8, 1)
    alpha = alpha_windows(stream, 8, torch.ones(64, dtype=torch.bool), normed=True)
    np.testing.assert_allclose(gradient(alpha)[:, 8:], 0, atol=1e-7)
    found = cascade(alpha)
    assert found.status == "rank_deficient"
    assert np.isnan(found.correlation).all()
    assert fit_decay(np.zeros((0, 7)), found.pairs).status == "not_applicable"


def test_too_few_windows_or_layers_are_named() -> None:
    alpha = planted(5)
    assert cascade(alpha[:, :23]).status == "too_few_tokens"
    assert cascade(alpha[:, :24]).status == "ok"
    assert cascade(alpha, start=177).status == "too_few_tokens"
    assert cascade(alpha[:5]).status == "not_applicable"
    with pytest.raises(ValueError, match=r"in 0\.\.199, not 200"):
        cascade(alpha, start=200)


def test_gaps_leave_out_steps_and_undefined_layers_only() -> None:
    alpha = planted(5)
    alpha[:, :9], alpha[3, 50], alpha[7] = np.nan, np.nan, np.nan
    found = cascade(alpha)
    assert (found.n_layers, found.n_windows) == (11, 189)
    assert np.isnan(found.correlation[7]).all()
    steps = np.delete(gradient(alpha), [*range(9), 49, 50], axis=1)
    assert found.correlation[0, 4] == pytest.approx(np.corrcoef(steps[0], steps[4])[0, 1])
    assert found.pairs[0] == 9
    rho, pairs = stacked([found, cascade(alpha[:, :20]), cascade(planted(5))])
    assert rho.shape == (2, 11)
    assert pairs.tolist() == (found.pairs + PAIRS).tolist()


def test_generated_tokens_alone_count() -> None:
    alpha = np.concatenate([planted(1, seed=1), planted(5)], axis=1)
    np.testing.assert_allclose(cascade(alpha, start=200).rho, np.exp(-DISTANCE / 5), rtol=1e-9)


def test_no_decay_without_three_positive_distances() -> None:
    rho = np.where(DISTANCE < 3, 0.5, -0.1)[None]
    fit = fit_decay(rho, PAIRS)
    assert (fit.status, np.isnan(fit.tau)) == ("not_applicable", True)


def test_a_random_walk_decays_without_any_computation() -> None:
    """12 points of 128 dimensions with steps of about a third of the first states (core.md 1.5)."""
    walk = torch.randn(12, 160, 128, generator=torch.Generator().manual_seed(0))
    walk[1:] *= 0.34
    keep = torch.ones(160, dtype=torch.bool)
    found = random_walk_null(walk.cumsum(0), 10, keep, normed=False, walks=2).mean(axis=0)
    np.testing.assert_allclose(found, [0.87, 0.77, 0.67, 0.59, 0.49, 0.41, 0.34, 0.29, 0.24, 0.2, 0.19], atol=0.1)


def test_the_walk_takes_the_steps_of_the_model() -> None:
    """A block that replaces the states ends all correlation across it; small steps keep it."""
    generator = torch.Generator().manual_seed(0)
    steps = torch.randn(8, 160, 64, generator=generator) * 0.1
    steps[[0, 4]] *= torch.tensor([10.0, 300.0])[:, None, None]
    resid, keep = steps.cumsum(0), torch.ones(160, dtype=torch.bool)
    null = random_walk_null(resid, 8, keep, normed=True, walks=2)
    own = cascade(alpha_windows(resid, 8, keep, normed=True)).rho
    assert null[:, 0].min() > 0.75  # 6 of 7 neighbours hardly differ
    assert np.abs(null[:, 4:]).max() < 0.35
    np.testing.assert_allclose(null.mean(axis=0), own, atol=0.3)
    np.testing.assert_array_equal(null[:1], random_walk_null(resid, 8, keep, normed=True, walks=1))
    assert (random_walk_null(resid, 8, keep, normed=True, walks=1, seed=1) != null[:1]).any()


def test_turned_updates_keep_what_tokens_have_in_common() -> None:
    """Updates of one token geometry in unrelated directions: turning changes nothing, where a walk of single tokens does."""
    generator = torch.Generator().manual_seed(0)
    common = torch.randn(120, 6, generator=generator) * torch.logspace(0, -1, 6)
    resid = (common @ torch.randn(9, 6, 64, generator=generator)).cumsum(0)
    keep = torch.ones(120, dtype=torch.bool)
    own = cascade(alpha_windows(resid, 16, keep, normed=True)).rho
    turned = turned_null(resid, 16, keep, normed=True)
    walked = random_walk_null(resid, 16, keep, normed=True, walks=1)[0]
    np.testing.assert_allclose(turned, own, atol=0.1)
    assert own[-1] - walked[-1] > 0.2
    np.testing.assert_array_equal(turned, turned_null(resid, 16, keep, normed=True))


def test_the_shift_null_is_that_of_shifted_gradients() -> None:
    g = standard_gradients(planted(4, points=6, tokens=60))[0]
    rng, means = np.random.default_rng(5), []
    for _ in range(2000):
        moved = np.stack([np.roll(row, rng.integers(59)) for row in g])
        means.append(by_distance(moved @ moved.T)[0])
    null = time_shift_null([planted(4, points=6, tokens=60)], [0], shifts=2000)
    np.testing.assert_allclose(null.mean, np.mean(means, axis=0), atol=0.02)
    np.testing.assert_allclose(null.high, np.quantile(means, 0.975, axis=0), atol=0.04)
    np.testing.assert_allclose(null.low, np.quantile(means, 0.025, axis=0), atol=0.04)


def test_common_movement_stands_out_of_the_shift_null_and_independent_layers_do_not() -> None:
    together = time_shift_null([planted(6, seed=s) for s in range(3)], [0, 0, 0])
    assert (together.p[:4] < 0.01).all()
    assert together.n_prompts == 3
    rng, p = np.random.default_rng(0), []
    for seed in range(40):
        steps = rng.normal(size=(8, 140))
        smooth = np.stack([np.convolve(row, np.ones(8), "valid") for row in steps])
        p.append(time_shift_null([np.cumsum(smooth, axis=1)], [0], shifts=200, seed=seed).p)
    assert (np.array(p) < 0.05).mean() == pytest.approx(0.05, abs=0.04)


def test_prompts_without_a_cascade_take_no_part() -> None:
    null = time_shift_null([planted(6), planted(6, tokens=20)], [0, 0])
    assert null.n_prompts == 1
    nothing = time_shift_null([planted(6, tokens=20)], [0])
    assert nothing.n_prompts == 0
    assert np.isnan([*nothing.mean, *nothing.p]).all()


def test_rho_at_nine_layers_is_what_the_fit_says() -> None:
    fit = fit_decay(cascade(planted(19.8, points=20, tokens=300)).rho[None], np.arange(19, 0, -1))
    assert fit.amplitude * exp(-9 / fit.tau) == pytest.approx(exp(-9 / 19.8), rel=1e-3)
