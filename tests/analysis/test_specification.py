import numpy as np
import torch

from analysis.alpha import ESTIMATORS, WINDOWS, fit_spectrum
from analysis.preparation import PREPARATIONS, prepare
from analysis.specification import sign_survival, specification
from analysis.spectrum import Spectrum, spectrum, undefined_spectrum

POWER = Spectrum(np.arange(1, 201.0) ** -0.7, 201, 300)


def of_layer(scale: float) -> dict[str, Spectrum]:
    h = torch.randn(160, 200, generator=torch.Generator().manual_seed(0)) * torch.arange(1, 201) ** -scale
    h[0] *= 100
    keep = torch.ones(160, dtype=torch.bool)
    raw = spectrum(prepare(h, keep, normed=False))
    return {"normed": spectrum(prepare(h, keep, normed=True)), "raw_all": raw}


def test_every_preparation_window_and_estimator_stands_once_sorted_by_alpha() -> None:
    curve = specification(of_layer(0.5))
    assert len(curve) == 2 * len(WINDOWS) * len(ESTIMATORS)
    assert not curve.duplicated(["prep", "window", "estimator"]).any()
    assert curve["alpha"].is_monotonic_increasing


def test_each_entry_can_be_made_again_from_what_it_carries() -> None:
    spectra = of_layer(0.5)
    for row in specification(spectra).itertuples():
        fit = fit_spectrum(spectra[row.prep], row.window, row.estimator)
        assert (row.alpha, row.kmin, row.kmax, row.r2) == (fit.alpha, fit.kmin, fit.kmax, fit.r2)
        assert (row.n_tokens, row.rank) == (160, 159)


def test_named_conventions_are_named() -> None:
    curve = specification(dict.fromkeys(PREPARATIONS, POWER))
    assert (curve["name"] == "headline").sum() == 1
    headline = curve[curve["name"] == "headline"].iloc[0]
    assert (headline["prep"], headline["window"], headline["estimator"]) == ("normed", "all", "slope")
    assert (curve["name"] == "alpha-ReQ").sum() == (curve["name"] == "Stringer 2019").sum() == 4


def test_undefined_entries_keep_their_reason_and_come_last() -> None:
    curve = specification({"normed": POWER, "raw_no_sink": undefined_spectrum("too_few_tokens", 2, 300)})
    assert curve["alpha"].isna().tolist() == [False] * 8 + [True] * 8
    assert set(curve["status"].tail(8)) == {"too_few_tokens"}


def test_a_sign_survives_only_if_every_convention_agrees() -> None:
    steep, flat = specification(of_layer(0.9)), specification(of_layer(0.3))
    survival = sign_survival(steep, flat)
    assert (survival.steeper, survival.flatter, survival.survives) == (survival.n_used, 0, True)
    mixed = flat.copy()
    mixed.loc[mixed.index[0], "alpha"] = 99.0
    assert not sign_survival(steep, mixed).survives
    assert not sign_survival(steep, steep).survives


def test_conventions_undefined_on_one_side_do_not_count() -> None:
    short = specification({"normed": Spectrum(POWER.s[:30], 31, 300)})
    survival = sign_survival(specification({"normed": POWER}), short)
    assert survival.n_used == 4
    assert not sign_survival(short.head(0), short).survives
