"""The linearity score against its definition, planted maps, chance, and its refusals (core.md 5)."""

import numpy as np
import pytest
import torch

from analysis.linearity import linearity, nonlinearity, score_on


def gaussian(n: int, d: int, seed: int) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def microscope(x: np.ndarray, y: np.ndarray) -> float:
    """``procrustes_similarity`` of llm-microscope 0.0.7, by its formula."""
    x, y = x - x.mean(0), y - y.mean(0)
    x, y = x / np.linalg.norm(x), y / np.linalg.norm(y)
    u, s, vh = np.linalg.svd(x, full_matrices=False)
    return float(1 - np.square(x @ (vh.T @ np.diag(1 / s) @ u.T @ y) - y).sum())


def test_a_linear_map_scores_1() -> None:
    x = gaussian(80, 12, 0)
    y = x @ gaussian(12, 12, 1) + 3.0
    found = linearity(x, y)
    assert found.score.value == pytest.approx(1.0, abs=1e-8)
    assert found.update_score.value == pytest.approx(1.0, abs=1e-8)
    assert found.rank == 12


def test_independent_rows_score_d_over_n_less_1() -> None:
    scores = [linearity(gaussian(1000, 10, seed), gaussian(1000, 10, seed + 50)).score.value for seed in range(5)]
    assert np.mean(scores) == pytest.approx(10 / 999, abs=0.002)


def test_it_is_the_formula_of_the_package_for_full_rank() -> None:
    x = gaussian(200, 20, 2) * torch.logspace(0, -3, 20, dtype=torch.float64)
    y = torch.tanh(x @ gaussian(20, 20, 3)) + 0.1 * gaussian(200, 20, 4)
    found = linearity(x, y)
    assert found.score.value == pytest.approx(microscope(x.numpy(), y.numpy()), abs=1e-10)
    assert found.update_score.value == pytest.approx(microscope(x.numpy(), (y - x).numpy()), abs=1e-10)


def test_the_residual_stream_inflates_the_score_and_not_that_of_the_update() -> None:
    x = gaussian(400, 10, 5)
    y = x + 0.1 * gaussian(400, 10, 6)
    found = linearity(x, y)
    assert found.score.value > 0.98
    assert found.update_score.value < 0.1


def test_fewer_than_4_rows_a_dimension_are_refused_though_they_would_fit_exactly() -> None:
    x, y = gaussian(30, 36, 0).numpy(), gaussian(30, 36, 1).numpy()
    fitted = np.linalg.lstsq(x - x.mean(0), y - y.mean(0))[0]
    np.testing.assert_allclose((x - x.mean(0)) @ fitted, y - y.mean(0), atol=1e-10)
    found = linearity(gaussian(39, 10, 0), gaussian(39, 10, 1))
    assert found.score.status == found.update_score.status == "too_few_tokens"
    assert found.score.n_used == 39
    assert found.map is None
    assert linearity(gaussian(40, 10, 0), gaussian(40, 10, 1)).score.status == "ok"


def test_directions_of_rounding_are_left_out() -> None:
    x = gaussian(200, 10, 7)
    x[:, 9] = x[:, 0] + 1e-9 * gaussian(200, 1, 8)[:, 0]
    found = linearity(x, x @ gaussian(10, 10, 9))
    assert found.rank == 9
    assert found.map is not None
    assert float(found.map.weight.abs().max()) < 100
    assert found.score.value == pytest.approx(1.0, abs=1e-8)


def test_what_does_not_vary_has_no_score() -> None:
    x = gaussian(80, 4, 10)
    assert linearity(torch.ones(80, 4).double(), x).score.status == "rank_deficient"
    same = linearity(x, x)
    assert same.score.value == pytest.approx(1.0)
    assert same.update_score.status == "rank_deficient"
    broken = x.clone()
    broken[3, 1] = torch.nan
    assert linearity(broken, x).score.status == "non_finite"


def test_squared_nonlinearity_of_the_fitted_rows_is_1_less_the_score_whatever_their_number() -> None:
    for n in (100, 400):
        x = gaussian(n, 8, 11)
        y = torch.relu(x @ gaussian(8, 8, 12))
        found = linearity(x, y)
        assert found.map is not None
        absolute, _ = nonlinearity(found.map, x, y)
        assert float(absolute.square().mean()) == pytest.approx(1 - found.score.value, abs=1e-10)
        assert score_on(found.map, x, y).value == pytest.approx(found.score.value, abs=1e-10)


def test_the_token_that_breaks_the_map_stands_out() -> None:
    x, rotation = gaussian(300, 8, 13), gaussian(8, 8, 14)
    fitted = linearity(x, x @ rotation + 0.01 * gaussian(300, 8, 15)).map
    assert fitted is not None
    other = gaussian(20, 8, 16)
    after = other @ rotation
    after[7] += 5.0
    absolute, relative = nonlinearity(fitted, other, after)
    assert int(absolute.argmax()) == int(relative.argmax()) == 7
    expected = float((after[7] - other[7] @ rotation).norm() / (after[7] - fitted.mean_y).norm())
    assert float(relative[7]) == pytest.approx(expected, rel=0.02)
    assert score_on(fitted, other, after).value < 1


def test_a_map_of_other_text_may_do_worse_than_the_mean() -> None:
    x = gaussian(200, 5, 17)
    x = x - x.mean(dim=0)
    fitted = linearity(x, x).map
    assert fitted is not None
    assert score_on(fitted, x, -x).value == pytest.approx(-3.0)
    assert score_on(fitted, x[:1], x[:1]).status == "too_few_tokens"
