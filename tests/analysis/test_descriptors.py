import numpy as np
import pytest
import torch

from analysis.descriptors import describe, entropy_collapse, matrix_entropy
from analysis.preparation import prepare
from analysis.spectrum import Spectrum, spectrum, undefined_spectrum


def gaussian(n: int, d: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_isotropic_values() -> None:
    found = describe(Spectrum(np.full(20, 3.0), 64, 20))
    assert found.erank_sigma == pytest.approx(20)
    assert found.erank_lambda == pytest.approx(20)
    assert found.participation_ratio == pytest.approx(20)
    assert found.stable_rank == pytest.approx(20)
    assert found.spectral_entropy == pytest.approx(np.log(20))
    assert found.entropy_normalised == pytest.approx(1)
    assert found.anisotropy == found.top1_energy == pytest.approx(1 / 20)
    assert found.top5_energy == pytest.approx(5 / 20)
    assert found.top10_energy == pytest.approx(10 / 20)
    assert found.gap == pytest.approx(1)


def test_known_values_of_a_two_value_spectrum() -> None:
    found = describe(Spectrum(np.array([3.0, 1.0]), 10, 5))
    assert found.anisotropy == pytest.approx(0.9)
    assert found.participation_ratio == pytest.approx(100 / 82)
    assert found.stable_rank == pytest.approx(10 / 9)
    assert found.gap == pytest.approx(9)
    assert found.spectral_entropy == pytest.approx(-0.9 * np.log(0.9) - 0.1 * np.log(0.1))
    assert found.erank_sigma == pytest.approx(np.exp(-0.75 * np.log(0.75) - 0.25 * np.log(0.25)))


@pytest.mark.parametrize(
    ("n", "expected"),
    [(64, (57.6, 63.1, 60.5, 37.4)), (256, (176.5, 239.3, 204.4, 94.2)), (2048, (449.1, 553.8, 500.2, 248.0))],
)
def test_iid_noise_of_width_576(n: int, expected: tuple[float, ...]) -> None:
    draws = [describe(spectrum(gaussian(n, 576, seed), centred=False)) for seed in range(4)]
    names = ("participation_ratio", "erank_sigma", "erank_lambda", "stable_rank")
    values = tuple(np.mean([getattr(draw, name) for draw in draws]) for name in names)
    assert values == tuple(pytest.approx(value, rel=0.025) for value in expected)


def test_rank_1_has_an_infinite_gap_and_an_effective_rank_of_1() -> None:
    found = describe(Spectrum(np.array([2.0]), 10, 5))
    assert found.gap == np.inf
    assert (found.erank_sigma, found.spectral_entropy) == (1.0, 0.0)


def test_an_undefined_spectrum_has_no_descriptors() -> None:
    found = describe(undefined_spectrum("non_finite", 7, 5))
    assert np.isnan(found.erank_sigma)
    assert np.isnan(found.top10_energy)
    assert (found.n_used, found.status) == (7, "non_finite")


def test_matrix_entropy_of_parallel_and_orthonormal_rows() -> None:
    assert matrix_entropy(torch.ones(9, 1, dtype=torch.float64) * gaussian(1, 12)).value == pytest.approx(0, abs=1e-12)
    assert matrix_entropy(torch.eye(9, 12, dtype=torch.float64)).value == pytest.approx(np.log(9), abs=1e-12)
    assert matrix_entropy(torch.diag(torch.arange(1.0, 10)).double()).value == pytest.approx(np.log(9), abs=1e-12)


def test_matrix_entropy_is_the_same_from_either_gram_matrix() -> None:
    x = gaussian(40, 25)
    x = x / x.norm(dim=1, keepdim=True)
    dual = torch.linalg.eigvalsh(x @ x.T / 40).numpy()
    dual = dual[dual > 1e-14]
    assert matrix_entropy(x).value == pytest.approx(-(dual * np.log(dual)).sum(), abs=1e-10)


def test_matrix_entropy_ignores_the_length_of_rows_and_leaves_zero_rows_out() -> None:
    x = gaussian(30, 20)
    scaled = x * torch.logspace(-2, 2, 30, dtype=torch.float64)[:, None]
    assert matrix_entropy(scaled).value == pytest.approx(matrix_entropy(x).value, abs=1e-10)
    padded = torch.cat([x, torch.zeros(3, 20, dtype=torch.float64)])
    assert matrix_entropy(padded).n_used == 30
    assert matrix_entropy(padded).value == pytest.approx(matrix_entropy(x).value, abs=1e-12)


def test_matrix_entropy_of_nothing_has_a_reason() -> None:
    repeated = prepare(torch.full((8, 4), 0.3), torch.ones(8, dtype=torch.bool), normed=True)
    assert matrix_entropy(repeated).status == "rank_deficient"
    assert matrix_entropy(gaussian(1, 4)).status == "too_few_tokens"
    assert matrix_entropy(gaussian(5, 4) / 0).status == "non_finite"


def test_the_collapse_is_the_one_step_that_stands_out() -> None:
    slow = 5 - 0.01 * np.arange(20) + 0.003 * np.random.default_rng(0).standard_normal(20)
    assert entropy_collapse(slow) is None
    collapsed = slow.copy()
    collapsed[7:] -= 1.0
    assert entropy_collapse(collapsed) == 7


def test_a_drop_of_less_than_5_percent_or_among_equal_drops_is_no_collapse() -> None:
    small = np.full(20, 5.0) + 1e-4 * np.random.default_rng(0).standard_normal(20)
    small[7:] -= 0.2
    assert entropy_collapse(small) is None
    small[7:] -= 0.1
    assert entropy_collapse(small) == 7
    steps = np.array([5, 4.4, 4.6, 4.0, 4.3, 3.7, 4.1, 3.5, 3.9])
    assert entropy_collapse(steps) is None


def test_gaps_take_part_in_no_step() -> None:
    entropy = np.full(12, 5.0) + 1e-3 * np.random.default_rng(0).standard_normal(12)
    entropy[6:] = 2
    entropy[6] = np.nan
    assert entropy_collapse(entropy) is None
    assert entropy_collapse(np.full(5, np.nan)) is None
