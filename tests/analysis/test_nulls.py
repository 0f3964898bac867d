import numpy as np
import pytest
import torch

from analysis.alpha import fit_spectrum
from analysis.nulls import gaussian_null, permuted_null
from analysis.spectrum import Spectrum, spectrum, undefined_spectrum


def gaussian(n: int, d: int, seed: int = 0) -> torch.Tensor:
    x = torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return x - x.mean(0)


def planted(n: int, d: int, directions: int, seed: int = 0) -> torch.Tensor:
    """Unit noise plus independent directions of 20 times its variance, spread over all columns."""
    generator = torch.Generator().manual_seed(seed + 1)
    scores = torch.randn(n, directions, generator=generator, dtype=torch.float64)
    axes = torch.linalg.qr(torch.randn(d, directions, generator=generator, dtype=torch.float64)).Q
    x = gaussian(n, d, seed) + 20 * scores @ axes.T
    return x - x.mean(0)


def test_the_gaussian_null_is_seeded_and_kept() -> None:
    first = gaussian_null(64, 48)
    assert gaussian_null(64, 48) is first
    gaussian_null.cache_clear()
    assert gaussian_null(64, 48) == first
    assert gaussian_null(64, 48, seed=1).alpha != first.alpha
    assert first.alpha_sd < 0.02


def test_the_gaussian_null_refuses_fewer_than_5_tokens() -> None:
    with pytest.raises(ValueError, match="at least 5 tokens, not 4"):
        gaussian_null(4, 48)


def test_a_permuted_null_keeps_the_variance_and_every_column() -> None:
    x = planted(80, 30, 3)
    null = permuted_null(x, spectrum(x))
    assert (null.s**2).sum() == pytest.approx(float(x.square().sum()), rel=1e-3)
    assert (null.s_low <= null.s).all()
    assert (null.s <= null.s_high).all()


def test_noise_is_its_own_null() -> None:
    x = gaussian(128, 96)
    null = permuted_null(x, spectrum(x))
    assert null.alpha == pytest.approx(fit_spectrum(spectrum(x)).alpha, abs=0.02)
    assert null.alpha == pytest.approx(gaussian_null(128, 96).alpha, abs=0.02)


@pytest.mark.parametrize("directions", [1, 3, 10])
@pytest.mark.parametrize("shape", [(128, 96), (96, 128)])
def test_parallel_analysis_counts_the_planted_directions(directions: int, shape: tuple[int, int]) -> None:
    x = planted(*shape, directions)
    assert permuted_null(x, spectrum(x)).n_parallel == directions


def test_parallel_analysis_finds_nothing_in_noise() -> None:
    found = [permuted_null(x, spectrum(x)).n_parallel for x in (gaussian(64, 40, seed) for seed in range(60))]
    assert np.mean([n > 0 for n in found if n is not None]) < 0.1


def test_a_massive_column_is_part_of_the_null() -> None:
    x = gaussian(128, 96)
    x[0, 7] += 5000
    x -= x.mean(0)
    null = permuted_null(x, spectrum(x))
    assert null.s[0] == pytest.approx(spectrum(x).s[0], rel=1e-3)
    assert gaussian_null(128, 96).alpha < null.alpha - 0.05


def test_a_level_from_8_draws_is_that_of_many() -> None:
    x = planted(100, 60, 4)
    few, many = permuted_null(x, spectrum(x)), permuted_null(x, spectrum(x), draws=200, seed=1)
    np.testing.assert_allclose(few.s_level, many.s_level, rtol=0.05)


def test_the_same_seed_gives_the_same_null() -> None:
    x = planted(60, 40, 2)
    first, again, other = (permuted_null(x, spectrum(x), seed=seed) for seed in (0, 0, 1))
    assert first.alpha == again.alpha
    np.testing.assert_array_equal(first.s_level, again.s_level)
    assert first.alpha != other.alpha


def test_where_there_is_no_spectrum_there_is_no_null() -> None:
    null = permuted_null(torch.zeros(30, 8, dtype=torch.float64), undefined_spectrum("rank_deficient", 30, 8))
    assert np.isnan(null.alpha)
    assert (null.n_parallel, null.status, null.s.size) == (None, "rank_deficient", 0)


def test_too_few_tokens_for_alpha_still_count_directions() -> None:
    x = gaussian(4, 50)
    null = permuted_null(x, spectrum(x))
    assert null.status == "too_few_tokens"
    assert np.isnan(null.alpha)
    assert null.n_parallel is not None


def test_one_draw_has_no_level() -> None:
    x = gaussian(20, 10)
    with pytest.raises(ValueError, match="at least 2 draws, not 1"):
        permuted_null(x, spectrum(x), draws=1)


def test_an_uncentred_spectrum_gets_an_uncentred_null() -> None:
    x = gaussian(20, 50) + 3
    null = permuted_null(x, spectrum(x, centred=False))
    assert null.s.size == 20
    assert isinstance(spectrum(x, centred=False), Spectrum)
