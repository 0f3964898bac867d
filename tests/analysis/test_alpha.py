import numpy as np
import pytest
import torch

from analysis.alpha import alpha_rank, curvature, fit_spectrum, local_slopes, rank_window
from analysis.nulls import gaussian_null
from analysis.preparation import prepare
from analysis.spectrum import Spectrum, spectrum, undefined_spectrum


def power_law(a: float, rank: int = 200) -> np.ndarray:
    return np.arange(1, rank + 1, dtype=np.float64) ** -a


def of_true_spectrum(n: int, exponent: float, d: int = 576, seed: int = 0) -> Spectrum:
    """Gaussian rows whose covariance has eigenvalues k**-exponent."""
    x = torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    x *= torch.arange(1, d + 1, dtype=torch.float64) ** (-exponent / 2)
    return spectrum(x - x.mean(0))


@pytest.mark.parametrize("a", [0.3, 1.0, 2.0])
def test_a_power_law_is_recovered_exactly(a: float) -> None:
    fit = alpha_rank(3.7 * power_law(a))
    assert fit.alpha == pytest.approx(a, abs=1e-10)
    assert fit.r2 == pytest.approx(1, abs=1e-10)
    assert fit.intercept == pytest.approx(np.log(3.7), abs=1e-9)
    assert fit.predict(np.array([4.0]))[0] == pytest.approx(3.7 * 4**-a)


@pytest.mark.parametrize("window", ["all", "11_100", "11_500", "lowrank"])
@pytest.mark.parametrize("estimator", ["slope", "weighted"])
def test_every_window_and_estimator_is_exact_on_a_power_law(window: str, estimator: str) -> None:
    observed = Spectrum(power_law(0.7), 201, 300)
    assert fit_spectrum(observed, window, estimator).alpha == pytest.approx(0.7, abs=1e-10)


def test_alpha_of_eigenvalues_is_exactly_twice_alpha_of_singular_values() -> None:
    observed = of_true_spectrum(100, 1.0)
    assert alpha_rank(observed.lam).alpha == pytest.approx(2 * alpha_rank(observed.s).alpha, rel=1e-12)
    assert fit_spectrum(observed).alpha_lambda == pytest.approx(alpha_rank(observed.lam).alpha, rel=1e-12)


def test_alpha_and_r2_equal_numpy_and_the_weighted_normal_equations() -> None:
    s = of_true_spectrum(100, 1.0).s
    x, y = np.log(np.arange(1, s.size + 1)), np.log(s)
    slope, intercept = np.polyfit(x, y, 1)
    fit = alpha_rank(s)
    assert (-fit.alpha, fit.intercept) == (pytest.approx(slope), pytest.approx(intercept))
    assert fit.r2 == pytest.approx(np.corrcoef(x, y)[0, 1] ** 2)
    k = np.arange(11, 91)
    design = np.stack([-np.log(k), np.ones(k.size)], axis=1)
    weights = (1 / k)[:, None]
    stringer = np.linalg.solve(design.T @ (design * weights), (weights * design).T @ y[10:90])
    assert alpha_rank(s, 11, 90, 1 / k).alpha == pytest.approx(stringer[0], rel=1e-10)


def test_alpha_ignores_scale_and_rotation() -> None:
    x = torch.randn(60, 24, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    x = (x - x.mean(0)) * torch.linspace(1, 9, 24, dtype=torch.float64)
    rotation = torch.linalg.qr(torch.randn(24, 24, generator=torch.Generator().manual_seed(4)).double()).Q
    alpha = fit_spectrum(spectrum(x)).alpha
    assert fit_spectrum(spectrum(1e6 * x)).alpha == pytest.approx(alpha, abs=1e-10)
    assert fit_spectrum(spectrum(x @ rotation)).alpha == pytest.approx(alpha, abs=1e-10)


@pytest.mark.parametrize(
    ("n", "alpha"),
    [
        *[(10, 0.090), (16, 0.099), (32, 0.130), (64, 0.172), (128, 0.234), (256, 0.341), (512, 0.588), (577, 0.725)],
        *[(1024, 0.391), (2048, 0.253), (4096, 0.173)],
    ],
)
def test_noise_alone_has_an_alpha_that_depends_on_the_number_of_tokens(n: int, alpha: float) -> None:
    assert gaussian_null(n, 576, draws=4).alpha == pytest.approx(alpha, abs=0.01 if n >= 32 else 0.04)


@pytest.mark.parametrize(
    ("n", "alpha_lambda"), [(10, 0.68), (32, 0.83), (128, 1.03), (256, 1.22), (512, 1.68), (1024, 1.36), (4096, 1.08)]
)
def test_the_aspect_ratio_biases_a_known_spectrum(n: int, alpha_lambda: float) -> None:
    found = np.mean([fit_spectrum(of_true_spectrum(n, 1.0, seed=seed)).alpha_lambda for seed in range(8)])
    assert found == pytest.approx(alpha_lambda, abs=0.04 if n >= 128 else 0.06)


@pytest.mark.parametrize(("n", "alpha_lambda"), [(64, 0.81), (128, 0.89), (512, 1.05)])
def test_the_lower_half_of_the_ranks_is_less_biased(n: int, alpha_lambda: float) -> None:
    assert fit_spectrum(of_true_spectrum(n, 1.0), "lowrank").alpha_lambda == pytest.approx(alpha_lambda, abs=0.06)


@pytest.mark.parametrize(("exponent", "alpha_lambda"), [(1.0, 0.94), (2.0, 2.00)])
def test_alpha_req_on_a_known_spectrum(exponent: float, alpha_lambda: float) -> None:
    fit = fit_spectrum(of_true_spectrum(512, exponent), "11_100", "weighted")
    assert fit.alpha_lambda == pytest.approx(alpha_lambda, abs=0.04)


def test_one_massive_row_steepens_alpha_and_masking_it_restores_it() -> None:
    h = torch.randn(129, 576, generator=torch.Generator().manual_seed(0))
    h *= torch.arange(1, 577) ** -0.5
    h[0] *= 1000 * h[1:].norm(dim=1).mean() / h[0].norm()
    keep = torch.ones(129, dtype=torch.bool)
    assert fit_spectrum(spectrum(prepare(h, keep, normed=False))).alpha == pytest.approx(0.73, abs=0.03)
    keep[0] = False
    assert fit_spectrum(spectrum(prepare(h, keep, normed=False))).alpha == pytest.approx(0.52, abs=0.02)


@pytest.mark.parametrize(
    ("window", "rank", "expected"),
    [
        ("all", 145, (1, 145)),
        ("lowrank", 257, (1, 129)),
        ("11_100", 110, (11, 100)),
        ("11_100", 109, (11, 98)),
        ("11_100", 40, (11, 36)),
        ("11_100", 39, None),
        ("11_500", 257, (11, 255)),
        ("11_500", 576, (11, 500)),
        ("all", 0, None),
    ],
)
def test_rank_windows(window: str, rank: int, expected: tuple[int, int] | None) -> None:
    assert rank_window(window, rank) == expected


@pytest.mark.parametrize(
    ("rank", "n", "status"),
    [
        (3, 4, "too_few_tokens"),
        (3, 50, "rank_deficient"),
        (4, 5, "low_confidence"),
        (9, 10, "low_confidence"),
        (10, 11, "ok"),
    ],
)
def test_few_values_are_undefined_or_of_low_confidence(rank: int, n: int, status: str) -> None:
    fit = fit_spectrum(Spectrum(power_law(1.0, rank), n, 64))
    assert fit.status == status
    assert np.isnan(fit.alpha) == (rank < 4)


def test_a_window_beyond_the_spectrum_is_not_applicable_and_a_shortened_one_of_low_confidence() -> None:
    assert fit_spectrum(Spectrum(power_law(1.0, 39), 40, 64), "11_100").status == "not_applicable"
    assert fit_spectrum(Spectrum(power_law(1.0, 60), 61, 64), "11_100").status == "low_confidence"
    assert fit_spectrum(undefined_spectrum("non_finite", 30, 64)).status == "non_finite"


def test_zeros_and_ranks_outside_the_spectrum_are_refused() -> None:
    with pytest.raises(ValueError, match="must be positive"):
        alpha_rank(np.array([3.0, 2.0, 1.0, 0.5, 0.0]))
    with pytest.raises(ValueError, match=r"1\.\.300 are outside 1\.\.200"):
        alpha_rank(power_law(1.0), 1, 300)


def test_a_power_law_is_not_curved_and_a_planted_bend_is_found_with_its_interval() -> None:
    assert not curvature(power_law(1.0)).curved
    x = np.log(np.arange(1, 201))
    noise = 0.02 * np.random.default_rng(0).standard_normal(200)
    bent = curvature(np.exp(-0.4 * x - 0.1 * x**2 + noise))
    assert bent.low < -0.1 < bent.high
    assert bent.value.value == pytest.approx(-0.1, abs=0.01)
    assert bent.curved


def test_the_curvature_interval_is_the_least_squares_one() -> None:
    s = of_true_spectrum(80, 1.0).s
    x = np.log(np.arange(1, s.size + 1))
    coefficients, covariance = np.polyfit(x, np.log(s), 2, cov=True)
    found = curvature(s)
    assert found.value.value == pytest.approx(coefficients[0])
    assert (found.high - found.low) / 2 == pytest.approx(1.99 * np.sqrt(covariance[0, 0]), rel=0.01)


def test_a_slight_but_certain_bend_is_not_curved() -> None:
    x = np.log(np.arange(1, 201))
    slight = curvature(np.exp(-1.0 * x - 0.01 * x**2))
    assert slight.high < 0
    assert slight.slope_change < 0.5
    assert not slight.curved


def test_noise_can_reach_a_high_r2_and_is_told_by_its_curvature() -> None:
    x = torch.randn(258, 576, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    noise = spectrum(x - x.mean(0))
    assert fit_spectrum(noise).r2 < 0.9
    assert curvature(noise.s).curved


def test_local_slopes_are_flat_on_a_power_law_and_follow_a_bend() -> None:
    k, slopes = local_slopes(power_law(0.8))
    np.testing.assert_allclose(slopes, 0.8, atol=1e-9)
    assert (k[0], k[-1]) == (5, 142)
    x = np.log(np.arange(1, 201))
    k, slopes = local_slopes(np.exp(-0.4 * x - 0.1 * x**2))
    np.testing.assert_allclose(slopes[20:], 0.4 + 0.2 * np.log(k[20:]), rtol=0.02)


def test_local_slopes_of_a_short_spectrum_are_empty() -> None:
    assert local_slopes(power_law(1.0, 4))[0].size == 0


def test_a_flat_spectrum_has_a_slope_of_0_and_no_r2() -> None:
    fit = fit_spectrum(spectrum(prepare(torch.eye(30), torch.ones(30, dtype=torch.bool), normed=False)))
    assert fit.alpha == pytest.approx(0, abs=1e-12)
    assert np.isnan(fit.r2)
