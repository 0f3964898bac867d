import warnings

import numpy as np
import pytest

from analysis.heavy_tail import alpha_tail, compare_tail

PARETO = (1 - np.random.default_rng(0).random(2000)) ** (-1 / 2.5)
SPECTRA = {
    "pareto": PARETO[:600],
    "lognormal": np.random.default_rng(1).lognormal(0, 1, 576),
    "exponential": np.random.default_rng(2).exponential(1, 576) + 1e-3,
    "power of the rank": np.arange(1, 577.0) ** -0.7,
    "ties": np.repeat(np.arange(1, 60.0), 4),
    "short": np.random.default_rng(3).pareto(2, 20) + 1,
}


def powerlaw_fit(x: np.ndarray, **options: object):
    """powerlaw 2 bounds alpha at 3 unless told otherwise."""
    import powerlaw

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Standard error for the MLE should be accessed", DeprecationWarning)
        return powerlaw.Fit(x, parameter_ranges={"alpha": [1.01, 20]}, verbose=False, **options)


@pytest.mark.parametrize("name", SPECTRA)
def test_same_alpha_and_xmin_as_weightwatcher(name: str) -> None:
    from weightwatcher.WW_powerlaw import WWFit

    x = SPECTRA[name]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "divide by zero", RuntimeWarning)
        warnings.filterwarnings("ignore", "invalid value", RuntimeWarning)
        theirs = WWFit(x)
    ours = alpha_tail(x, min_tail=2)
    assert ours.alpha == pytest.approx(theirs.alpha, rel=1e-9)
    assert ours.xmin == pytest.approx(theirs.xmin, rel=1e-9)
    assert ours.ks == pytest.approx(theirs.D, abs=1e-9)
    assert ours.sigma == pytest.approx(theirs.sigma, rel=1e-9)


def test_same_fit_as_powerlaw_once_its_bound_is_lifted() -> None:
    theirs, ours = powerlaw_fit(PARETO, xmin=(1.0, 1.1)), alpha_tail(PARETO, min_tail=2)
    assert (ours.alpha, ours.xmin, ours.ks) == tuple(
        pytest.approx(value, rel=1e-9) for value in (theirs.alpha, theirs.xmin, theirs.D)
    )
    assert (ours.alpha, ours.xmin, ours.ks) == tuple(pytest.approx(v, abs=5e-4) for v in (3.488, 1.006, 0.0082))


@pytest.mark.parametrize(("a", "alpha"), [(0.5, 3.014), (1.0, 2.007), (2.0, 1.504)])
def test_a_power_law_of_the_rank_has_a_tail_exponent_of_1_plus_1_over_a(a: float, alpha: float) -> None:
    fit = alpha_tail(np.arange(1, 577.0) ** -a)
    assert fit.alpha == pytest.approx(alpha, abs=5e-4)
    assert fit.alpha == pytest.approx(1 + 1 / a, rel=0.01)
    assert fit.sigma == pytest.approx((fit.alpha - 1) / np.sqrt(fit.n_tail))


def test_the_floor_on_the_tail_holds() -> None:
    x = SPECTRA["exponential"]
    assert alpha_tail(x, min_tail=2).n_tail < 60
    assert alpha_tail(x, min_tail=60).n_tail >= 60


def test_order_and_scale_do_not_matter() -> None:
    x = SPECTRA["lognormal"]
    shuffled = alpha_tail(1e9 * np.random.default_rng(4).permutation(x))
    assert shuffled.alpha == pytest.approx(alpha_tail(x).alpha, rel=1e-9)
    assert shuffled.xmin == pytest.approx(1e9 * alpha_tail(x).xmin)


@pytest.mark.parametrize("values", [np.ones(50), np.arange(1, 20.0)], ids=["all equal", "19 values"])
def test_what_cannot_be_fitted_is_rank_deficient(values: np.ndarray) -> None:
    fit = alpha_tail(values)
    assert np.isnan(fit.alpha)
    assert (fit.status, fit.n_tail) == ("rank_deficient", 0)


def test_zeros_and_tiny_tails_are_refused() -> None:
    with pytest.raises(ValueError, match="must be positive, not 0"):
        alpha_tail(np.arange(50.0))
    with pytest.raises(ValueError, match="at least 2, not 1"):
        alpha_tail(PARETO, min_tail=1)


@pytest.mark.parametrize("name", ["pareto", "lognormal", "exponential"])
def test_likelihood_ratios_equal_those_of_powerlaw(name: str) -> None:
    x = SPECTRA[name]
    fit = alpha_tail(x, min_tail=400)
    theirs = powerlaw_fit(x, xmin=fit.xmin)
    for rival, ours in compare_tail(x, fit).items():
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "No valid fits found for distribution lognormal", UserWarning)
            ratio, p_value = theirs.distribution_compare("power_law", rival)
        assert ours.ratio == pytest.approx(ratio, abs=0.01)
        assert ours.p_value == pytest.approx(p_value, abs=0.05)


def test_the_right_family_wins() -> None:
    pareto = compare_tail(PARETO, alpha_tail(PARETO))
    assert pareto["exponential"].ratio > 0
    assert pareto["exponential"].p_value < 1e-3
    bent = SPECTRA["lognormal"]
    lognormal = compare_tail(bent, alpha_tail(bent, min_tail=500))["lognormal"]
    assert lognormal.ratio < 0
    assert lognormal.p_value < 1e-3


def test_there_is_nothing_to_compare_without_a_fit() -> None:
    with pytest.raises(ValueError, match="no tail to compare: the fit is rank_deficient"):
        compare_tail(np.ones(50), alpha_tail(np.ones(50)))
