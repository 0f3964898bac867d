import numpy as np
import pytest
import torch

from analysis.alpha import fit_spectrum
from analysis.preparation import prepare
from analysis.spectrum import spectrum, spectrum_by_svd
from analysis.windows import alpha_windows

H = torch.randn(3, 40, 24, generator=torch.Generator().manual_seed(0)) + 2
ALL = torch.ones(40, dtype=torch.bool)


@pytest.mark.parametrize("normed", [True, False])
@pytest.mark.parametrize("w", [10, 30])
def test_a_window_equals_the_directly_centred_rows(w: int, normed: bool) -> None:
    found = alpha_windows(H, w, ALL, normed=normed)
    for t in (w - 1, 35, 39):
        keep = torch.zeros(40, dtype=torch.bool)
        keep[t - w + 1 : t + 1] = True
        direct = fit_spectrum(spectrum_by_svd(prepare(H[1], keep, normed=normed))).alpha
        assert found[1, t] == pytest.approx(direct, rel=1e-9)
    assert np.isnan(found[:, : w - 1]).all()
    assert np.isfinite(found[:, w - 1 :]).all()


def test_the_whole_text_as_a_window_is_the_alpha_of_the_layer() -> None:
    found = alpha_windows(H, 40, ALL, normed=True)
    assert found[2, 39] == pytest.approx(fit_spectrum(spectrum(prepare(H[2], ALL, normed=True))).alpha, rel=1e-9)


def test_masked_tokens_are_dropped_from_each_window() -> None:
    sink = H.clone()
    sink[:, 20] *= 1000
    keep = ALL.clone()
    keep[20] = False
    found = alpha_windows(sink, 10, keep, normed=False)
    direct = torch.zeros(40, dtype=torch.bool)
    direct[15:25] = True
    direct[20] = False
    assert found[0, 24] == pytest.approx(fit_spectrum(spectrum(prepare(sink[0], direct, normed=False))).alpha, rel=1e-9)
    assert alpha_windows(sink, 10, ALL, normed=False)[0, 24] > found[0, 24] + 0.2


def test_a_window_with_too_few_rows_is_a_gap() -> None:
    keep = ALL.clone()
    keep[10:16] = False
    found = alpha_windows(H, 10, keep, normed=True)
    assert np.isnan(found[:, 15:19]).all()
    assert np.isfinite(found[:, [14, 20]]).all()


def test_a_periodic_stream_has_a_constant_alpha_and_repeated_rows_none() -> None:
    stream = H[:, :8].repeat(1, 5, 1)
    found = alpha_windows(stream, 8, ALL, normed=True)[:, 7:]
    np.testing.assert_allclose(np.diff(found, axis=1), 0, atol=1e-8)
    repeated = H[:, :1].repeat(1, 40, 1)
    assert np.isnan(alpha_windows(repeated, 8, ALL, normed=True)).all()


def test_short_windows_are_noisier() -> None:
    stationary = torch.randn(1, 300, 576, generator=torch.Generator().manual_seed(1)) * torch.arange(1, 577) ** -0.5
    keep = torch.ones(300, dtype=torch.bool)
    sd = [float(np.nanstd(alpha_windows(stationary, w, keep, normed=False))) for w in (10, 32, 64)]
    assert sd == [pytest.approx(value, rel=0.45) for value in (0.046, 0.013, 0.006)]


@pytest.mark.parametrize("w", [4, 41])
def test_a_window_outside_the_text_is_refused(w: int) -> None:
    with pytest.raises(ValueError, match=rf"between 5 and the 40 tokens of the text, not {w}"):
        alpha_windows(H, w, ALL, normed=True)


def test_a_broken_state_stops_its_own_point_unless_it_is_masked() -> None:
    broken = H.clone()
    broken[1, 20, 3] = torch.inf
    found = alpha_windows(broken, 10, ALL, normed=True)
    assert np.isnan(found[1]).all()
    np.testing.assert_array_equal(found[[0, 2]], alpha_windows(H, 10, ALL, normed=True)[[0, 2]])
    keep = ALL.clone()
    keep[20] = False
    assert np.isfinite(alpha_windows(broken, 10, keep, normed=True)[1, 9:]).all()
