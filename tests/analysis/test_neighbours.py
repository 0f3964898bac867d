"""Distances, duplicates and neighbourhood overlap (core.md 6.1, 6.2)."""

import numpy as np
import pytest
import torch

from analysis.neighbours import (
    chance_overlap,
    distances,
    distinct_rows,
    nearest,
    neighbourhood,
    overlap,
    point_distances,
)


def gaussian(n: int, d: int, seed: int) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_distances_are_euclidean_far_from_the_origin_too() -> None:
    x = gaussian(120, 16, 0) + 1000.0
    found = distances(x)
    expected = torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist")
    torch.testing.assert_close(found.distance, expected, rtol=1e-9, atol=1e-9)
    assert (found.status, found.n_used, found.n_duplicates) == ("low_confidence", 120, 0)
    assert torch.equal(found.distance.diagonal(), torch.zeros(120, dtype=torch.float64))


def test_nearest_neighbours_ascend_and_leave_the_point_itself_out() -> None:
    x = gaussian(110, 6, 1)
    expected = np.sort(torch.cdist(x, x).fill_diagonal_(torch.inf).numpy(), axis=1)[:, :7]
    found = distances(x)
    np.testing.assert_allclose(nearest(found, 7), expected, rtol=1e-10)
    for k in (0, 110):
        with pytest.raises(ValueError, match=r"k must be 1 to 109"):
            nearest(found, k)


def test_exact_duplicates_are_removed_and_counted() -> None:
    x = gaussian(300, 5, 2).float()
    x[10] = x[4]
    x[200] = x[4]
    x[7, 0], x[8] = -0.0, x[7]
    x[8, 0] = 0.0
    found = distances(x)
    assert (found.n_used, found.n_duplicates, found.status) == (297, 3, "ok")
    assert set(range(300)) - set(distinct_rows(x).tolist()) == {8, 10, 200}
    assert float(found.distance.fill_diagonal_(1.0).min()) > 0


def test_what_cannot_be_measured_says_why() -> None:
    assert distances(gaussian(99, 4, 3)).status == "too_few_tokens"
    assert distances(gaussian(255, 4, 3)).status == "low_confidence"
    assert distances(gaussian(256, 4, 3)).status == "ok"
    repeated = gaussian(300, 4, 4)
    repeated[240:] = repeated[:60]
    assert distances(repeated).status == "low_confidence"  # exactly a fifth, 240 are left
    repeated[239] = repeated[0]
    found = distances(repeated)
    assert (found.status, found.n_duplicates, len(found.distance)) == ("rank_deficient", 61, 0)
    repeated[5, 1] = torch.inf
    assert distances(repeated).status == "non_finite"


def test_overlap_of_a_space_with_itself_is_1_and_of_unrelated_ones_chance() -> None:
    n, k = 500, 30
    spaces = [neighbourhood(point_distances(gaussian(n, 8, seed)), k) for seed in range(6)]
    found = overlap(spaces)
    np.testing.assert_array_equal(found.diagonal(), 1.0)
    np.testing.assert_allclose(found, found.T)
    others = found[np.triu_indices(6, 1)]
    assert chance_overlap(n, k).value == pytest.approx(30 / 499)
    assert others.mean() == pytest.approx(30 / 499, abs=0.01)


def test_overlap_is_the_mean_share_of_common_neighbours() -> None:
    x, k = gaussian(301, 6, 9), 7
    y = x + 0.3 * gaussian(301, 6, 10)
    a, b = (neighbourhood(point_distances(one), k) for one in (x, y))
    expected = np.mean([len(set(p.tolist()) & set(q.tolist())) / k for p, q in zip(a, b, strict=True)])
    assert overlap([a, b])[0, 1] == pytest.approx(expected, abs=1e-12)
    assert overlap([a, neighbourhood(point_distances(-3.0 * x + 5.0), k)])[0, 1] == 1.0


def test_spaces_of_other_points_are_refused() -> None:
    a, b = (neighbourhood(point_distances(gaussian(n, 3, 0)), 5) for n in (20, 21))
    with pytest.raises(ValueError, match="same points"):
        overlap([a, b])
    with pytest.raises(ValueError, match=r"k must be 1 to 19"):
        neighbourhood(point_distances(gaussian(20, 3, 0)), 20)
    assert chance_overlap(1, 1).status == "too_few_tokens"
