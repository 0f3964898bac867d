"""Universality: the same dictionary, a turned one, an unrelated one, and the trap of counting components wrongly."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import kstest, spearmanr

from analysis.universality import (
    CrossMoments,
    compare_geometry,
    concept_pairs,
    kept_components,
    match_latents,
    rsa,
    svcca,
)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def turn(d: int, seed: int = 5) -> torch.Tensor:
    return torch.linalg.qr(normal(d, d, seed=seed).double())[0].float()


def moments(a: torch.Tensor, b: torch.Tensor, chunk: int = 64) -> CrossMoments:
    made = CrossMoments(a.shape[1], b.shape[1])
    for left, right in zip(a.split(chunk), b.split(chunk), strict=True):
        made.add(left, right)
    return made


def test_correlations_are_pearsons() -> None:
    a, b = normal(500, 7).relu(), normal(500, 5, seed=1).relu() + 100
    expected = np.corrcoef(a.double().T.numpy(), b.double().T.numpy())[:7, 7:]
    assert np.abs(moments(a, b).correlations().numpy() - expected).max() < 1e-3
    assert np.abs(moments(a.double(), b.double()).correlations().numpy() - expected).max() < 1e-6


def test_the_same_dictionary_matches_itself_with_r_1() -> None:
    a = normal(400, 30).relu()
    a[:, 4] = 0
    matches = match_latents(moments(a, a).correlations())
    others = torch.arange(30) != 4
    assert torch.equal(matches.best[others], torch.arange(30)[others])
    assert (matches.r[others] - 1).abs().max() < 1e-4
    assert matches.best[4] == -1  # it never changes, so it has no match
    assert math.isnan(matches.r[4])
    assert matches.share_unique == 1.0


def test_many_to_one_is_allowed_and_told() -> None:
    a = normal(300, 3).relu()
    matches = match_latents(moments(a, torch.cat([a[:, :1], a[:, :1] * 2], dim=1)).correlations())
    assert matches.best.tolist() == [0, 0]
    assert matches.share_unique == 0.5


def test_different_tokens_are_refused() -> None:
    with pytest.raises(ValueError, match="must read the same tokens, not 4 and 5"):
        CrossMoments(2, 2).add(torch.zeros(4, 2), torch.zeros(5, 2))


def test_the_same_and_a_turned_decoder_score_1() -> None:
    rows = normal(400, 16)
    for other in (rows, rows @ turn(16)):
        found = compare_geometry(rows, other, draws=19)
        assert found.svcca.value == pytest.approx(1, abs=1e-6)
        assert found.svcca_p.value == pytest.approx(1 / 20)
        assert found.svcca_null.value < 0.5
    assert rsa(rows, rows).value == pytest.approx(1, abs=1e-9)
    assert compare_geometry(rows, rows, draws=19).rsa_p.value == pytest.approx(1 / 20)


def test_rsa_is_spearman_of_row_distances() -> None:
    a, b = normal(40, 12), normal(40, 9, seed=2)
    b[:, :6] += a[:, :6]
    upper = np.triu_indices(40, k=1)
    expected = spearmanr((1 - np.corrcoef(a))[upper], (1 - np.corrcoef(b))[upper]).statistic
    assert rsa(a, b).value == pytest.approx(expected, abs=1e-9)


def test_unrelated_rows_have_uniform_p() -> None:
    p = {"svcca": [], "rsa": []}  # type: dict[str, list[float]]
    for seed in range(60):
        found = compare_geometry(normal(60, 6, seed=seed), normal(60, 6, seed=1000 + seed), draws=19, seed=seed)
        p["svcca"].append(found.svcca_p.value)
        p["rsa"].append(found.rsa_p.value)
    for values in p.values():
        assert kstest(values, "uniform").pvalue > 0.01
        assert min(values) >= 1 / 20
        assert 0.35 < np.mean(values) < 0.7


def test_too_few_pairs_say_nothing() -> None:
    a, b = normal(79, 16), normal(79, 16, seed=3)
    found = compare_geometry(a, b, draws=5)
    assert found.svcca.status == "not_applicable"  # 79 < 5 * 16
    assert found.n_directions == 16
    assert compare_geometry(a[:0], b[:0], draws=5).n_directions == 0
    assert math.isnan(found.svcca.value)
    assert found.svcca_p.status == "not_applicable"
    assert svcca(normal(95, 16), normal(95, 16, seed=3)).status == "ok"
    assert rsa(a[:9], b[:9]).status == "not_applicable"
    assert svcca(a[:1], b[:1]).status == "not_applicable"


def test_components_are_counted_by_share_not_by_total() -> None:
    """The trap: a total variance above 1.01 must not leave one component."""
    rows = normal(300, 8) * 50
    centred = (rows - rows.mean(dim=0)).double().numpy()
    energy = np.sort(np.linalg.eigvalsh(centred.T @ centred))[::-1]
    expected = int((np.cumsum(energy) / energy.sum() < 0.99).sum()) + 1
    assert kept_components(rows) == expected == 8
    assert kept_components(rows * 1e-4) == 8
    assert kept_components(torch.ones(5, 3)) == 0
    b = normal(300, 8, seed=9) * 50
    b[:, 0] = rows[:, 0]
    assert svcca(rows, b).value < 0.6  # one shared direction of eight, not everything


def test_pairs_of_punctuation_and_of_strangers_are_dropped() -> None:
    r = torch.tensor([[0.9, 0.0, 0.05, 0.8], [0.1, 0.7, 0.0, 0.0]], dtype=torch.float64)
    top_a = torch.tensor([[1, 2, 3, 4, 5], [6, 7, 8, 9, 10]])
    top_b = torch.tensor([[5, 20, 21, 22, -1], [99, 6, 7, 8, 9], [1, 2, 3, 4, 5], [30, 31, 32, 33, 34]])
    keep = concept_pairs(match_latents(r), top_a, top_b, frozenset({99}))
    assert keep.tolist() == [True, False, False, False]  # shares 5; holds 99; r of .05; nothing shared
