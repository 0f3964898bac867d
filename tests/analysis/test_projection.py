"""Principal directions against the singular value decomposition."""

import numpy as np
import torch

from analysis.preparation import prepare
from analysis.projection import project


def prepared(rows: torch.Tensor) -> torch.Tensor:
    return prepare(rows, torch.ones(len(rows), dtype=torch.bool), normed=False)


def test_coordinates_and_shares_are_those_of_the_svd() -> None:
    x = prepared(torch.randn(40, 12, generator=torch.Generator().manual_seed(0)) * torch.arange(1, 13))
    u, s, _ = np.linalg.svd(x.numpy(), full_matrices=False)
    found = project(x)
    np.testing.assert_allclose(np.abs(found.coordinates), np.abs(u[:, :2] * s[:2]), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(found.share, s[:2] ** 2 / (s**2).sum(), rtol=1e-9)
    farthest = np.abs(found.coordinates).argmax(axis=0)
    assert (found.coordinates[farthest, [0, 1]] > 0).all()


def test_one_far_token_is_the_first_direction() -> None:
    rows = torch.randn(30, 8, generator=torch.Generator().manual_seed(1))
    rows[0, 3] = 1000.0
    found = project(prepared(rows))
    assert np.abs(found.coordinates[:, 0]).argmax() == 0
    assert found.share[0] > 0.99


def test_what_has_no_plane_says_why() -> None:
    assert project(prepared(torch.ones(9, 4))).status == "rank_deficient"
    assert project(prepared(torch.randn(2, 4))).status == "too_few_tokens"
    broken = torch.randn(9, 4, dtype=torch.float64)
    broken[3, 1] = float("nan")
    assert project(broken).status == "non_finite"
    assert np.isnan(project(broken).share).all()
