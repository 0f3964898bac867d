import numpy as np
import pytest
import torch
from scipy.integrate import quad

from analysis.marchenko_pastur import (
    covariance_eigenvalues,
    mp_cdf,
    mp_density,
    mp_edges,
    mp_fit,
    mp_median,
    tw_threshold,
)
from analysis.spectrum import spectrum


def gaussian(n: int, d: int, seed: int = 0) -> torch.Tensor:
    x = torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return x - x.mean(0)


@pytest.mark.parametrize("gamma", [0.1, 0.281, 0.9])
def test_the_density_equals_weightwatchers(gamma: float) -> None:
    from weightwatcher.RMT_Util import marchenko_pastur_fun

    lower, upper = mp_edges(gamma)
    x = np.linspace(lower, upper, 100)[1:-1]
    np.testing.assert_allclose(mp_density(x, gamma), marchenko_pastur_fun(x, 1 / gamma)[1], rtol=1e-12)


@pytest.mark.parametrize("gamma", [0.2, 0.95, 2.23, 5.0])
@pytest.mark.parametrize("sigma2", [1.0, 0.4])
def test_the_distribution_function_is_the_integral_of_the_density(gamma: float, sigma2: float) -> None:
    lower, upper = mp_edges(gamma, sigma2)
    for x in np.linspace(lower, upper, 7)[1:]:
        integral = quad(lambda t: float(mp_density(np.array([t]), gamma, sigma2)[0]), lower, x, limit=200)[0]
        assert mp_cdf(np.array([x]), gamma, sigma2)[0] == pytest.approx(integral, abs=1e-5)
    assert mp_cdf(np.array([mp_median(gamma) * sigma2]), gamma, sigma2)[0] == pytest.approx(0.5, abs=1e-9)


def test_outside_the_bulk_there_is_no_density() -> None:
    assert mp_density(np.array([0.0, 0.01, 50.0]), 0.25).tolist() == [0, 0, 0]


@pytest.mark.parametrize("shape", [(2048, 576), (256, 576), (400, 400)])
def test_noise_of_unit_variance_is_recognised(shape: tuple[int, int]) -> None:
    eigenvalues, columns = covariance_eigenvalues(gaussian(*shape))
    assert columns == shape[1]
    fit = mp_fit(eigenvalues, *shape)
    assert fit.sigma2 == pytest.approx(1, abs=0.02)
    assert fit.n_outliers == 0
    assert fit.ks < 0.02
    assert fit.bulk_fraction > 0.98
    assert fit.soft_rank == pytest.approx(1, abs=0.03)


def test_outliers_of_noise_are_counted_against_the_99_percent_margin() -> None:
    n, d = 300, 150
    naive = margin = 0
    for seed in range(20):
        eigenvalues = covariance_eigenvalues(gaussian(n, d, seed), standardise=False)[0]
        naive += int((eigenvalues > mp_edges(d / n)[1]).sum())
        margin += int((eigenvalues > tw_threshold(n, d)).sum())
    assert margin == 0
    assert 1 <= naive <= 10


@pytest.mark.parametrize("spike", [2.0, 3.0, 5.0])
def test_a_spike_above_the_phase_transition_appears_where_bbp_says(spike: float) -> None:
    n, d = 2048, 576
    gamma = d / n
    largest, outliers = [], []
    for seed in range(10):
        x = gaussian(n, d, seed)
        x[:, 0] *= np.sqrt(spike)
        eigenvalues = covariance_eigenvalues(x, standardise=False)[0]
        largest.append(eigenvalues[0])
        outliers.append(mp_fit(eigenvalues, n, d).n_outliers)
    assert np.mean(largest) == pytest.approx(spike * (1 + gamma / (spike - 1)), rel=0.02)
    assert outliers == [1] * 10


def test_a_spike_below_the_transition_stays_in_the_bulk() -> None:
    x = gaussian(2048, 576)
    x[:, 0] *= np.sqrt(1.3)
    assert mp_fit(covariance_eigenvalues(x, standardise=False)[0], 2048, 576).n_outliers == 0


def test_raw_eigenvalues_are_those_of_the_spectrum_and_standardised_ones_sum_to_the_columns() -> None:
    x = gaussian(100, 40) * torch.linspace(1, 9, 40, dtype=torch.float64)
    np.testing.assert_allclose(covariance_eigenvalues(x, standardise=False)[0], spectrum(x).s ** 2 / 100, rtol=1e-12)
    assert covariance_eigenvalues(x)[0].sum() == pytest.approx(40)


def test_constant_columns_are_left_out() -> None:
    x = gaussian(100, 40)
    x[:, 3] = 0
    eigenvalues, columns = covariance_eigenvalues(x)
    assert columns == 39
    assert eigenvalues.sum() == pytest.approx(39)


def test_correlated_columns_deviate_from_the_law() -> None:
    x = gaussian(512, 256) * torch.linspace(0.1, 3, 256, dtype=torch.float64)
    noise = mp_fit(covariance_eigenvalues(x)[0], 512, 256)
    deviating = mp_fit(covariance_eigenvalues(x, standardise=False)[0], 512, 256)
    assert deviating.ks > 3 * noise.ks
    assert deviating.kl > noise.kl
    assert deviating.n_outliers > 0


def test_kl_is_skipped_where_the_lower_edge_is_zero() -> None:
    fit = mp_fit(covariance_eigenvalues(gaussian(400, 400))[0], 400, 400)
    assert np.isnan(fit.kl)
    assert np.isfinite(fit.ks)


@pytest.mark.parametrize("shape", [(31, 100), (100, 19)])
def test_too_small_a_matrix_is_not_applicable(shape: tuple[int, int]) -> None:
    fit = mp_fit(covariance_eigenvalues(gaussian(*shape))[0], *shape)
    assert fit.status == "not_applicable"
    assert np.isnan(fit.upper)


@pytest.mark.parametrize("rows", [torch.zeros(50, 30), torch.full((50, 30), torch.nan), torch.zeros(1, 30)])
def test_degenerate_matrices_have_no_eigenvalues(rows: torch.Tensor) -> None:
    assert covariance_eigenvalues(rows.double())[0].size == 0
