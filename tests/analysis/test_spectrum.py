import numpy as np
import pytest
import torch

from analysis import spectrum as module
from analysis.alpha import fit_spectrum
from analysis.preparation import prepare
from analysis.spectrum import gram, spectra, spectrum, spectrum_by_svd

EPS64 = np.finfo(np.float64).eps


def gaussian(n: int, d: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def centred(x: torch.Tensor) -> torch.Tensor:
    return x - x.mean(0)


@pytest.mark.parametrize("shape", [(40, 100), (100, 40), (64, 64)])
def test_gram_eigenvalues_equal_squared_singular_values_of_numpy(shape: tuple[int, int]) -> None:
    x = centred(gaussian(*shape))
    expected = np.linalg.svd(x.numpy(), compute_uv=False)
    found = spectrum(x)
    np.testing.assert_allclose(found.s**2, expected[: found.rank] ** 2, rtol=1e-9)
    assert found.rank == min(shape[0] - 1, shape[1])


def test_eigenvalues_sum_to_the_total_variance() -> None:
    x = centred(gaussian(50, 30))
    assert spectrum(x).lam.sum() == pytest.approx(float(x.var(0, unbiased=True).sum()), rel=1e-12)


def test_the_last_singular_value_of_a_centred_wide_matrix_never_enters() -> None:
    x = centred(gaussian(20, 100))
    assert spectrum(x).rank == 19
    assert spectrum_by_svd(x).rank == 19
    assert spectrum(gaussian(20, 100), centred=False).rank == 20


def test_usable_values_are_decided_on_eigenvalues() -> None:
    n, d = 60, 40
    bound = max(n, d) * EPS64
    values = np.array([1.0, 0.5, 2 * bound, 0.5 * bound])
    assert module.usable(values, n, d, centred=True).tolist() == [1.0, 0.5, 2 * bound]


def test_repeated_tokens_keep_their_true_rank_on_both_paths() -> None:
    distinct = gaussian(9, 64)
    x = centred(distinct[torch.randint(0, 9, (120,), generator=torch.Generator().manual_seed(1))])
    assert spectrum(x).rank == spectrum_by_svd(x).rank == 8
    np.testing.assert_allclose(spectrum(x).s, spectrum_by_svd(x).s, rtol=1e-9)


def test_gram_and_svd_agree_on_alpha_beside_a_massive_activation() -> None:
    h = gaussian(200, 96).float()
    h[0, 7] = 24926.0
    x = prepare(h, torch.ones(200, dtype=torch.bool), normed=False)
    assert fit_spectrum(spectrum(x)).alpha == pytest.approx(fit_spectrum(spectrum_by_svd(x)).alpha, abs=1e-6)


def test_a_float32_gram_would_be_wrong_beside_a_dominant_direction() -> None:
    x = gaussian(128, 144)
    x[0, 0] = 1e6
    x = centred(x)
    exact = spectrum(x).s[-1] ** 2
    single = torch.linalg.eigvalsh((x.float() @ x.float().T).double())[1:].abs().min()
    assert exact == pytest.approx(spectrum_by_svd(x).s[-1] ** 2, rel=1e-4)
    assert abs(float(single) - exact) / exact > 0.5


def test_batched_decomposition_gives_the_same_numbers_as_the_loop() -> None:
    matrices = [centred(gaussian(30, 50, seed)) for seed in range(4)]
    batched = torch.linalg.eigvalsh(torch.stack([gram(x) for x in matrices])).flip(1).numpy()
    for one, many in zip(spectra(matrices), batched, strict=True):
        np.testing.assert_allclose(one.s**2, many[: one.rank], rtol=1e-6)


def test_spectra_keep_the_order_of_matrices_of_different_sizes_and_fates() -> None:
    broken = centred(gaussian(30, 20))
    broken[3, 3] = torch.nan
    found = spectra([centred(gaussian(30, 20, 1)), broken, centred(gaussian(12, 20, 2)), gaussian(1, 20)])
    assert [x.status for x in found] == ["ok", "non_finite", "ok", "too_few_tokens"]
    assert [x.rank for x in found] == [20, 0, 11, 0]


@pytest.mark.parametrize(
    ("rows", "status", "rank"),
    [
        (torch.zeros(30, 8), "rank_deficient", 0),
        (torch.full((30, 8), 0.1), "rank_deficient", 0),
        (torch.outer(torch.arange(30.0), torch.arange(1.0, 9.0)), "ok", 1),
        (torch.eye(30), "ok", 29),
        (torch.ones(1, 8), "too_few_tokens", 0),
        (torch.arange(16.0).reshape(2, 8).square(), "ok", 1),
        (torch.arange(8192.0)[:, None], "ok", 1),
        (torch.full((30, 8), torch.inf), "non_finite", 0),
    ],
    ids=["zero", "constant", "rank 1", "identity", "n=1", "n=2", "8192x1", "inf"],
)
def test_degenerate_matrices_have_a_rank_or_a_reason(rows: torch.Tensor, status: str, rank: int) -> None:
    found = spectrum(prepare(rows, torch.ones(len(rows), dtype=torch.bool), normed=False))
    assert (found.status, found.rank) == (status, rank)
