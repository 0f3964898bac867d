"""Panels of the spectrum of the selected point under one convention: rank plot, slopes, every other convention, tail."""

import numpy as np
import pandas as pd

from analysis.alpha import ESTIMATORS, WINDOWS, Estimator, RankFit, RankWindow, curvature, local_slopes
from analysis.heavy_tail import TailFit, alpha_tail, compare_tail
from analysis.preparation import HEADLINE, PREPARATIONS, Preparation
from analysis.specification import sign_survival, specification
from analysis.spectrum import Spectrum
from app.figures.specification import specification_curve
from app.figures.spectra import rank_plot, slope_plot, tail_plot
from app.figures.spectra_layers import PREPARATIONS as NAMES
from app.panels.panel import Drawn, Marks, Option, panel
from app.reproduce import Convention, spectrum_at
from app.view import Gap, View
from probes.request import ProbeCall

__all__ = ["CONVENTION", "convention_curve", "null_call", "observed_spectrum", "spectrum_of"]

CONVENTION = {
    "prep": Option(tuple(NAMES), "spectra-prep"),
    "window": Option(tuple(WINDOWS), "spectra-window"),
    "estimator": Option(tuple(ESTIMATORS), "spectra-estimator"),
}
_ROWS = ["layer", "prep", "k", "singular_value"]
_REASONS = {
    "too_few_tokens": "there are too few tokens",
    "rank_deficient": "the states do not vary in enough directions",
    "non_finite": "the states are not finite",
    "not_applicable": "the spectrum is too short for these ranks",
}


@panel("spectra-rank", "spectra", "Rank plot", "Is the spectrum a power law, and how much of it is above chance?",
       ("spectra", "Rank plot"), options=CONVENTION)  # fmt: skip
def rank(view: View, prep: Preparation = HEADLINE, window: RankWindow = "all", estimator: Estimator = "slope") -> Drawn:
    chosen, observed = Convention(prep, window, estimator), observed_spectrum(view, prep)
    point, fit = view.selection.point, chosen.fit(observed)
    null, held = _null(view, chosen)
    return Drawn(
        view.figure("spectra-rank", lambda: rank_plot(observed.s, fit, null), point, chosen, held),
        f"Rank plot of point {point}, {NAMES[prep]}",
        note=_told(view, chosen, observed),
        csv=lambda: _rank_table(observed, null),
    )


@panel("spectra-slopes", "spectra", "Local slopes", "Does one alpha describe all ranks?",
       ("spectra", "Local slopes"), options=CONVENTION)  # fmt: skip
def slopes(
    view: View, prep: Preparation = HEADLINE, window: RankWindow = "all", estimator: Estimator = "slope"
) -> Drawn:
    chosen, observed = Convention(prep, window, estimator), observed_spectrum(view, prep)
    point, fit = view.selection.point, chosen.fit(observed)
    null, held = _null(view, chosen)
    figure = view.figure("spectra-slopes", lambda: slope_plot(observed.s, fit, null), point, chosen, held)
    return Drawn(figure, note=_curved(observed, fit), csv=lambda: _slope_table(observed, fit, null))


@panel(
    "spectra-specification",
    "spectra",
    "Alpha under every convention",
    "How much of the number is the convention? A click opens one.",
    ("spectra", "Specification curve"),
    options=CONVENTION,
)
def conventions(
    view: View, prep: Preparation = HEADLINE, window: RankWindow = "all", estimator: Estimator = "slope"
) -> Drawn:
    point = view.selection.point
    curve = convention_curve(view, point)
    if curve.empty:
        raise Gap("There is no spectrum: this run did not ask for this point.")
    here = np.flatnonzero(
        (curve["prep"] == prep) & (curve["window"] == window) & (curve["estimator"] == estimator)
    ).tolist()
    return Drawn(
        view.figure("spectra-specification", lambda: specification_curve(curve), point),
        f"Alpha of point {point} under every convention",
        note=_survival(view, point),
        csv=curve,
        place=Marks(lambda at: here[0] if here and at == view.selection else None, lambda at: None),
    )


@panel(
    "spectra-tail",
    "spectra",
    "Tail of the eigenvalues",
    "How heavy is the tail of the density of eigenvalues? It moves against alpha.",
    ("spectra", "Heavy tail"),
    options={"prep": CONVENTION["prep"]},
)
def tail(view: View, prep: Preparation = HEADLINE) -> Drawn:
    point, lam = view.selection.point, observed_spectrum(view, prep).lam
    fit: TailFit = view.memo(("tail", point, prep), lambda: alpha_tail(lam))
    note = f"No tail was fitted: {_reason(fit.status)}."
    if fit.status == "ok":
        rivals = view.memo(("tail rivals", point, prep), lambda: compare_tail(lam, fit))
        ratios = "; ".join(f"{name} {found.ratio:+.1f} (p {found.p_value:.2g})" for name, found in rivals.items())
        note = f"x_min {fit.xmin:.3g}, KS {fit.ks:.3f}. Log-likelihood ratio of the power law against {ratios}."
    return Drawn(
        view.figure("spectra-tail", lambda: tail_plot(lam, fit), point, prep),
        f"Tail of point {point}, {NAMES[prep]}",
        note=note,
        csv=lambda: _tail_table(lam, fit),
    )


def spectrum_of(view: View, point: int, prep: Preparation) -> Spectrum | None:
    """The stored spectrum of a point; None if the run did not ask for it."""
    layers, rows = view.table("layer_metrics"), view.table("spectra")
    if layers.empty:
        return None
    spectra = rows.reindex(columns=_ROWS) if rows.empty else rows
    found: Spectrum | None = view.memo(
        ("spectrum", point, prep),
        lambda: spectrum_at(layers, spectra, point, prep, view.facts.d_model, centred=_centred(view)),
    )
    return found


def observed_spectrum(view: View, prep: Preparation) -> Spectrum:
    """The singular values of the selected point. Raises Gap where there are none."""
    observed = spectrum_of(view, view.selection.point, prep)
    if observed is None:
        raise Gap("There is no spectrum: this run did not ask for this point.")
    if observed.status != "ok":
        raise Gap(f"There is no spectrum: {_reason(observed.status)}.")
    if observed.rank == 0:
        raise Gap("There is no spectrum: this run holds no singular values of this point.")
    return observed


def convention_curve(view: View, point: int) -> pd.DataFrame:
    """Alpha of a point under every convention whose spectrum the run has; empty if it has none."""

    def build() -> pd.DataFrame:
        known = {prep: spectrum_of(view, point, prep) for prep in PREPARATIONS}
        spectra = {prep: spectrum for prep, spectrum in known.items() if spectrum is not None}
        return specification(spectra) if spectra else pd.DataFrame(columns=[*CONVENTION, "alpha"])

    curve: pd.DataFrame = view.memo(("specification", point), build)
    return curve


def null_call(view: View, prep: Preparation) -> ProbeCall | None:
    """The question whose answer holds the null of the selected point; None for the headline's, which every run draws."""
    if prep == HEADLINE:
        return None
    params = {"points": [view.selection.point], "null_preparations": [prep], "centre": _centred(view)}
    return ProbeCall("spectral", params)


def _survival(view: View, point: int) -> str | None:
    if point == 0 or spectrum_of(view, point - 1, HEADLINE) is None:
        return None
    signs = sign_survival(convention_curve(view, point), convention_curve(view, point - 1))
    verdict = "the sign survives every convention" if signs.survives else "the sign depends on the convention"
    return (
        f"Against point {point - 1}: steeper in {signs.steeper} and flatter in {signs.flatter} of {signs.n_used} "
        f"conventions; {verdict}."
    )


def _null(view: View, chosen: Convention) -> tuple[np.ndarray | None, str | None]:
    """The permuted singular values of the selected point, and the run that holds them; None where none were drawn."""
    call = null_call(view, chosen.prep)
    result = view.result if call is None else view.find(call)
    if result is None:
        return None, None
    tensor = view.beside(result).kept(f"spectral_null{chosen.suffix}")
    if tensor is None:
        return None, None
    return tensor[view.selection.point].numpy(), result.info.run_id


def _told(view: View, chosen: Convention, observed: Spectrum) -> str:
    fit = chosen.fit(observed)
    if not np.isfinite(fit.alpha):
        return f"No alpha: {_reason(fit.status)}."
    told = [
        f"**alpha {fit.alpha:.3f}** of singular values ({fit.alpha_lambda:.3f} of eigenvalues) over ranks "
        f"{fit.kmin}-{fit.kmax} of {observed.rank}, {observed.n} tokens"
    ]
    if fit.status == "low_confidence":
        told.append("**low confidence**")
    if chosen.prep == HEADLINE and chosen.window == "all":
        nulls = {"columns permuted": "alpha_null", "iid Gaussian": "alpha_null_iid"}
        for name, metric in nulls.items():
            rows = view.metric("layer_metrics", metric)
            value = rows[rows["layer"] == view.selection.point]["value"]
            if value.notna().any():
                told.append(f"{name} {value.iloc[0]:.3f}")
    return "; ".join(told) + "."


def _curved(observed: Spectrum, fit: RankFit) -> str | None:
    if not np.isfinite(fit.alpha):
        return None
    found = curvature(observed.s, fit.kmin, fit.kmax)
    if not np.isfinite(found.value.value):
        return None
    badge = "**curved**" if found.curved else "not called curved"
    return (
        f"{badge}: quadratic term {found.value.value:.3f} [{found.low:.3f}, {found.high:.3f}], the slope changes by "
        f"{found.slope_change:.1f} times its mean over ranks {fit.kmin}-{fit.kmax}."
    )


def _rank_table(observed: Spectrum, null: np.ndarray | None) -> pd.DataFrame:
    table = pd.DataFrame({"k": np.arange(1, observed.rank + 1), "singular_value": observed.s})
    if null is None:
        return table
    names = ("null_mean", "null_low", "null_high", "null_level_99")
    curves = pd.DataFrame(null.T, columns=list(names)).assign(k=np.arange(1, null.shape[1] + 1)).dropna()
    return table.merge(curves, on="k", how="outer")


def _slope_table(observed: Spectrum, fit: RankFit, null: np.ndarray | None) -> pd.DataFrame:
    """``curve, k, alpha`` of every line: the local alphas, those of the null, and both ends of the fit."""
    curves = {"observed": observed.s} | ({} if null is None else {"columns permuted": null[0][np.isfinite(null[0])]})
    lines = {name: local_slopes(values) for name, values in curves.items()}
    if np.isfinite(fit.alpha):
        lines["fit"] = (np.array([fit.kmin, fit.kmax]), np.full(2, fit.alpha))
    return pd.concat([pd.DataFrame({"curve": name, "k": k, "alpha": alpha}) for name, (k, alpha) in lines.items()])


def _tail_table(lam: np.ndarray, fit: TailFit) -> pd.DataFrame:
    """``k, eigenvalue, share`` at least as large, and from x_min on the ``fitted`` share."""
    values = np.sort(lam)[::-1]
    fitted = np.full(values.size, np.nan)
    if fit.status == "ok":
        above = values >= fit.xmin
        fitted[above] = fit.n_tail / values.size * (values[above] / fit.xmin) ** (1 - fit.alpha)
    k = np.arange(1, values.size + 1)
    return pd.DataFrame({"k": k, "eigenvalue": values, "share": k / values.size, "fitted": fitted})


def _centred(view: View) -> bool:
    calls = {call.name: call for call in view.info.request.probes}
    return bool(calls["spectral"].params.get("centre", True)) if "spectral" in calls else True


def _reason(status: str) -> str:
    return _REASONS.get(status, status.replace("_", " "))
