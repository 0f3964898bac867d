"""Matched length: windows equal direct spectra, and take the length effect away that a plain alpha shows."""

import numpy as np
import pytest
import torch

from analysis.alpha import fit_spectrum
from analysis.matched import alpha_of, matched_alpha, matched_spectra, mean_over_draws
from analysis.preparation import prepare
from analysis.spectrum import spectrum_by_svd

H = torch.randn(3, 60, 40, generator=torch.Generator().manual_seed(0)) * torch.arange(1, 41) ** -0.5 + 1
ALL = torch.ones(60, dtype=torch.bool)


@pytest.mark.parametrize("normed", [True, False])
@pytest.mark.parametrize("centred", [True, False])
def test_a_prompt_of_just_that_length_is_one_window_itself(normed: bool, centred: bool) -> None:
    keep = ALL.clone()
    keep[[0, 17, 40]] = False
    found = matched_spectra(H, 57, keep, normed=normed, centred=centred)
    assert [len(point) for point in found] == [1, 1, 1]
    for point in range(3):
        direct = spectrum_by_svd(prepare(H[point], keep, normed=normed, centre=centred), centred=centred)
        np.testing.assert_allclose(found[point][0].s[:35], direct.s[:35], rtol=1e-9)
        assert (found[point][0].n, found[point][0].centred) == (57, centred)


def test_draws_are_different_contiguous_windows_of_kept_tokens() -> None:
    keep = ALL.clone()
    keep[5] = False
    rows = H[1][keep]
    every = [fit_spectrum(spectrum_by_svd(prepare(rows[i : i + 16], ALL[:16], normed=True))).alpha for i in range(44)]
    found = [fit_spectrum(one).alpha for one in matched_spectra(H, 16, keep, normed=True)[1]]
    places = [int(np.abs(np.array(every) - alpha).argmin()) for alpha in found]
    np.testing.assert_allclose(found, np.array(every)[places], rtol=1e-9)
    assert len(set(places)) == 20
    assert [s.s[0] for s in matched_spectra(H, 16, keep, normed=True)[1]] == [
        s.s[0] for s in matched_spectra(H, 16, keep, normed=True)[1]
    ]


def test_all_windows_are_taken_where_there_are_few() -> None:
    found = matched_spectra(H, 57, ALL, normed=True)
    assert [len(point) for point in found] == [4, 4, 4]
    alphas = [fit_spectrum(one).alpha for one in found[0]]
    measured = matched_alpha(H, 57, ALL, normed=True)[0]
    assert (measured.value, measured.n_used, measured.status) == (pytest.approx(np.mean(alphas)), 57, "ok")


def test_matching_takes_away_what_length_alone_does() -> None:
    """One process, two lengths: plain alphas differ by many sds, matched ones do not (core.md 1.2)."""
    scale = torch.arange(1, 257) ** -0.5

    def text(tokens: int, seed: int) -> torch.Tensor:
        return torch.randn(1, tokens, 256, generator=torch.Generator().manual_seed(seed)) * scale

    def keep(n: int) -> torch.Tensor:
        return torch.ones(n, dtype=torch.bool)

    whole = {
        n: [matched_alpha(text(n, seed), n, keep(n), normed=False)[0].value for seed in range(6)] for n in (40, 160)
    }
    matched = {
        n: [matched_alpha(text(n, seed), 32, keep(n), normed=False)[0].value for seed in range(6)] for n in (40, 160)
    }
    assert np.mean(whole[160]) - np.mean(whole[40]) > 0.1
    assert np.mean(matched[160]) == pytest.approx(np.mean(matched[40]), abs=0.02)


def test_undefined_windows_lower_the_confidence_and_only_undefined_ones_are_undefined() -> None:
    repeated = H.clone()
    repeated[0, :40] = repeated[0, :1]
    repeated[1] = repeated[1, :1]
    repeated[2, 3, 0] = torch.nan
    found = matched_alpha(repeated, 16, ALL, normed=False)
    assert [one.status for one in found] == ["low_confidence", "rank_deficient", "non_finite"]
    assert np.isfinite(found[0].value)
    assert np.isnan(found[1].value)
    short = mean_over_draws(matched_spectra(H, 8, ALL, normed=True)[0], alpha_of())
    assert short.status == "low_confidence"
    assert mean_over_draws(matched_spectra(H, 16, ALL, normed=True)[0], alpha_of("11_100")).status == "not_applicable"


@pytest.mark.parametrize("n", [4, 61])
def test_a_length_outside_the_prompt_is_refused(n: int) -> None:
    with pytest.raises(ValueError, match=rf"between 5 and the 60 kept tokens, not {n}"):
        matched_spectra(H, n, ALL, normed=True)
