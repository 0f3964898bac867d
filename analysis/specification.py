"""The specification curve of alpha: one layer under every convention, sorted (decision 2; Simonsohn et al. 2020).

The convention decides the number. An entry names its preparation, rank window and estimator, which with the point and
the token mask is all that is needed to make it again.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import pandas as pd

from analysis.alpha import ESTIMATORS, WINDOWS, Estimator, RankWindow, fit_spectrum
from analysis.preparation import HEADLINE, Preparation
from analysis.spectrum import Spectrum

__all__ = ["NAMED", "SignSurvival", "convention_name", "sign_survival", "specification"]

NAMED: Mapping[tuple[RankWindow, Estimator], str] = MappingProxyType(
    {("11_100", "weighted"): "alpha-ReQ", ("11_500", "weighted"): "Stringer 2019"}
)
"""Conventions that carry a name in the literature; both papers report eigenvalues, twice the number shown here."""


@dataclass(frozen=True, slots=True)
class SignSurvival:
    """Of the conventions defined on both sides, how many find the first steeper and how many flatter."""

    steeper: int
    flatter: int
    n_used: int

    @property
    def survives(self) -> bool:
        """Every convention gives the difference the same sign."""
        return self.n_used > 0 and self.n_used in (self.steeper, self.flatter)


def specification(spectra: Mapping[Preparation, Spectrum]) -> pd.DataFrame:
    """Alpha (singular values) of one layer for every preparation given x rank window x estimator.

    Columns prep, window, estimator, name, alpha, r2, kmin, kmax, n_tokens, rank, status, sorted by alpha with undefined
    entries last. ``name`` is what the convention is called, "headline" for the dashboard's own, empty for the rest.
    """
    rows = []
    for prep, spectrum in spectra.items():
        for window in WINDOWS:
            for estimator in ESTIMATORS:
                fit = fit_spectrum(spectrum, window, estimator)
                rows.append(
                    {
                        "prep": prep,
                        "window": window,
                        "estimator": estimator,
                        "name": convention_name(prep, window, estimator),
                        "alpha": fit.alpha,
                        "r2": fit.r2,
                        "kmin": fit.kmin,
                        "kmax": fit.kmax,
                        "n_tokens": spectrum.n,
                        "rank": spectrum.rank,
                        "status": fit.status,
                    }
                )
    return pd.DataFrame(rows).sort_values("alpha", kind="stable", na_position="last", ignore_index=True)


def sign_survival(first: pd.DataFrame, second: pd.DataFrame) -> SignSurvival:
    """Whether two specification curves differ in the same direction under every convention both define."""
    keys = ["prep", "window", "estimator"]
    both = first.merge(second, on=keys, suffixes=("_first", "_second")).dropna(subset=["alpha_first", "alpha_second"])
    difference = both["alpha_first"] - both["alpha_second"]
    return SignSurvival(int((difference > 0).sum()), int((difference < 0).sum()), len(both))


def convention_name(prep: Preparation, window: RankWindow, estimator: Estimator) -> str:
    """What a convention is called: "headline" for the dashboard's own, empty for most."""
    if (prep, window, estimator) == (HEADLINE, "all", "slope"):
        return "headline"
    return NAMED.get((window, estimator), "")
