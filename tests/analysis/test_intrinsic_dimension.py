"""Intrinsic dimensions of isometric Gaussians: 5-seed means against the tabled values of core.md 5 and 6.1."""

import math

import numpy as np
import pytest
import torch

from analysis.intrinsic_dimension import SCALES, gride, gride_plateau, microscope, twonn, twonn_mle
from analysis.neighbours import Distances, distances

SEEDS = 5
POINTS = 1000


def embedded(d: int, seed: int, n: int = POINTS) -> torch.Tensor:
    """Gaussian points of d dimensions, turned into 64."""
    generator = torch.Generator().manual_seed(seed)
    basis, _ = torch.linalg.qr(torch.randn(64, d, generator=generator, dtype=torch.float64))
    return torch.randn(n, d, generator=generator, dtype=torch.float64) @ basis.T


@pytest.fixture(scope="module")
def clouds() -> dict[int, list[Distances]]:
    return {d: [distances(embedded(d, seed)) for seed in range(SEEDS)] for d in (2, 5, 10, 20)}


@pytest.mark.parametrize(
    ("d", "expected", "within"), [(2, 2.00, 0.1), (5, 4.91, 0.2), (10, 9.48, 0.4), (20, 16.46, 0.8)]
)
def test_twonn(clouds: dict[int, list[Distances]], d: int, expected: float, within: float) -> None:
    assert np.mean([twonn(cloud).value for cloud in clouds[d]]) == pytest.approx(expected, abs=within)


@pytest.mark.parametrize(("d", "expected", "sd"), [(2, 2.02, 0.05), (5, 5.05, 0.29), (10, 9.3, 0.66), (20, 16.3, 0.87)])
def test_microscope_preset(clouds: dict[int, list[Distances]], d: int, expected: float, sd: float) -> None:
    found = [microscope(cloud).value for cloud in clouds[d]]
    assert np.mean(found) == pytest.approx(expected, abs=2.5 * sd)


def test_gride_by_scale(clouds: dict[int, list[Distances]]) -> None:
    found = [[scale.dimension.value for scale in gride(cloud)] for cloud in clouds[10]]
    expected = [9.47, 9.27, 9.15, 8.73, 8.34, 7.81]
    np.testing.assert_allclose(np.mean(found, axis=0)[:6], expected, atol=0.35)


def test_gride_at_1_is_twonn_by_likelihood(clouds: dict[int, list[Distances]]) -> None:
    for cloud in (clouds[2][0], clouds[20][1]):
        assert gride(cloud)[0].dimension.value == pytest.approx(twonn_mle(cloud).value, rel=1e-8)


def test_gride_maximises_its_likelihood(clouds: dict[int, list[Distances]]) -> None:
    cloud, k = clouds[5][0], 8
    scale = gride(cloud, (k,))[0]
    ordered = np.sort(cloud.distance.numpy(), axis=1)
    logs = np.log(ordered[:, 2 * k] / ordered[:, k])

    def likelihood(d: float) -> float:
        n = len(logs)
        return (n - 1) * math.log(d) + float(((k - 1) * np.log(np.expm1(d * logs)) - ((2 * k - 1) * d) * logs).sum())

    d = scale.dimension.value
    assert likelihood(d) > max(likelihood(d - 0.01), likelihood(d + 0.01))
    curvature = (likelihood(d + 1e-3) - 2 * likelihood(d) + likelihood(d - 1e-3)) / 1e-6
    assert scale.error == pytest.approx(1 / math.sqrt(-curvature), rel=1e-2)
    assert scale.distance == pytest.approx((ordered[:, k].mean() + ordered[:, 2 * k].mean()) / 2)


def test_twonn_is_the_slope_of_the_lower_nine_tenths() -> None:
    cloud = distances(embedded(3, 7, 200))
    ordered = np.sort(cloud.distance.numpy(), axis=1)
    x = np.sort(np.log(ordered[:, 2] / ordered[:, 1]))[:180]
    y = -np.log(1 - np.arange(1, 181) / 200)
    assert twonn(cloud).value == pytest.approx((x * y).sum() / (x * x).sum(), rel=1e-12)
    assert twonn(cloud, 1.0).value > 0
    with pytest.raises(ValueError, match="fraction"):
        twonn(cloud, 0.0)


def test_microscope_is_the_packages_formula_where_nothing_is_dropped() -> None:
    cloud = distances(embedded(4, 3, 150))
    ordered = np.sort(cloud.distance.numpy(), axis=1)
    mu = np.sort(ordered[:, 2] / ordered[:, 1])[:30]
    x, y = np.log(mu), -np.log(1 - np.arange(1, 31) / 150)
    assert microscope(cloud).value == pytest.approx((x * y).sum() / (x * x).sum(), rel=1e-10)


def test_the_plateau_is_the_mean_of_scales_2_and_4(clouds: dict[int, list[Distances]]) -> None:
    scales = gride(clouds[10][0])
    plateau = gride_plateau(scales)
    assert plateau.dimension.value == pytest.approx((scales[1].dimension.value + scales[2].dimension.value) / 2)
    assert plateau.error == pytest.approx((scales[1].error + scales[2].error) / 2)
    with pytest.raises(KeyError):
        gride_plateau(scales[:2])


def test_scales_beyond_the_text_are_missing() -> None:
    scales = gride(distances(embedded(3, 0, 110)))
    assert [scale.dimension.status for scale in scales] == ["low_confidence"] * 6 + ["too_few_tokens"]
    assert scales[-1].k == SCALES[-1]


def test_what_has_no_dimension_says_why() -> None:
    for x, status in (
        (embedded(3, 0, 60), "too_few_tokens"),
        (torch.ones(300, 4), "rank_deficient"),
        (torch.full((300, 4), torch.nan), "non_finite"),
    ):
        found = distances(x)
        for measured in (twonn(found), twonn_mle(found), microscope(found), *(s.dimension for s in gride(found))):
            assert measured.status == status
            assert math.isnan(measured.value)
        assert gride_plateau(gride(found)).dimension.status == status


def test_equal_distances_everywhere_have_no_dimension() -> None:
    found = distances(torch.eye(120, dtype=torch.float64))
    assert twonn_mle(found).status == "rank_deficient"
    assert gride(found)[3].dimension.status == "rank_deficient"
