"""The spectrum of the selected point under one convention: rank plot, local slopes, every other convention, and the tail."""

from collections.abc import Mapping
from typing import cast

import numpy as np
import pandas as pd
import streamlit as st

from analysis.alpha import ESTIMATORS, WINDOWS, Estimator, RankWindow, curvature
from analysis.heavy_tail import alpha_tail, compare_tail
from analysis.preparation import HEADLINE, PREPARATIONS, Preparation
from analysis.specification import sign_survival, specification
from analysis.spectrum import Spectrum
from app.components.explore import extra
from app.components.panel import panel
from app.components.plot_clicks import PlotClick
from app.components.reading import choice, kept
from app.components.view import View
from app.figures.specification import specification_curve
from app.figures.spectra import rank_plot, slope_plot, tail_plot
from app.figures.spectra_layers import PREPARATIONS as NAMES
from app.methods import section
from app.reproduce import Convention, command, python, spectrum_at
from probes.request import ProbeCall

__all__ = ["convention", "convention_curve", "spectrum_of", "spectrum_panels", "tail_panel"]

_KEYS = ("spectra-prep", "spectra-window", "spectra-estimator")
_REASONS = {
    "too_few_tokens": "there are too few tokens",
    "rank_deficient": "the states do not vary in enough directions",
    "non_finite": "the states are not finite",
    "not_applicable": "the spectrum is too short for these ranks",
}


def convention() -> Convention:
    """Draw the three choices and return what they say."""
    with st.container(key="spectra-convention", gap="xsmall"):
        options = cast(tuple[Mapping[str, str], ...], (NAMES, WINDOWS, ESTIMATORS))
        labels = ("Preparation", "Ranks", "Estimator")
        chosen = [choice(label, known, key) for label, known, key in zip(labels, options, _KEYS, strict=True)]
    return Convention(cast(Preparation, chosen[0]), cast(RankWindow, chosen[1]), cast(Estimator, chosen[2]))


def spectrum_of(view: View, point: int, prep: Preparation) -> Spectrum | None:
    """The stored spectrum of a point; None if the run did not ask for it."""
    layers, spectra = view.table("layer_metrics"), view.table("spectra")
    found: Spectrum | None = view.memo(
        ("spectrum", point, prep),
        lambda: spectrum_at(layers, spectra, point, prep, view.facts.d_model, centred=_centred(view)),
    )
    return found


def spectrum_panels(view: View, chosen: Convention) -> None:
    """Rank plot beside local slopes, then the specification curve with the code of the chosen convention."""
    point = view.selection.point
    observed = spectrum_of(view, point, chosen.prep)
    title = f"Rank plot of point {point}, {NAMES[chosen.prep]}"
    question = "Is the spectrum a power law, and how much of it is above chance?"
    if observed is None or observed.status != "ok":
        why = "this run did not ask for this point" if observed is None else _reason(observed.status)
        panel("spectra-rank", title, question, None, note=f"There is no spectrum: {why}.")
        return
    null = _null(view, chosen)
    fit = chosen.fit(observed)
    key = (point, chosen, null is not None)
    left, right = st.columns(2)
    with left:
        panel(
            "spectra-rank",
            title,
            question,
            view.figure("spectra-rank", lambda: rank_plot(observed.s, fit, null), *key),
            note=_told(view, chosen, observed),
            how=section("spectra", "Rank plot"),
            csv=lambda: _rank_table(observed, null),
        )
    with right:
        panel(
            "spectra-slopes",
            "Local slopes",
            "Does one alpha describe all ranks?",
            view.figure("spectra-slopes", lambda: slope_plot(observed.s, fit, null), *key),
            note=_curved(chosen, observed),
            how=section("spectra", "Local slopes"),
        )
    _specification(view, chosen, observed)


def tail_panel(view: View, prep: Preparation) -> None:
    """The heavy-tail fit of the eigenvalue density, with the families it was held against."""
    point = view.selection.point
    observed = spectrum_of(view, point, prep)
    if observed is None or observed.status != "ok":
        return
    lam = observed.lam
    fit = view.memo(("tail", point, prep), lambda: alpha_tail(lam))
    note = f"No tail was fitted: {_reason(fit.status)}."
    if fit.status == "ok":
        rivals = view.memo(("tail rivals", point, prep), lambda: compare_tail(lam, fit))
        ratios = "; ".join(f"{name} {found.ratio:+.1f} (p {found.p_value:.2g})" for name, found in rivals.items())
        note = f"x_min {fit.xmin:.3g}, KS {fit.ks:.3f}. Log-likelihood ratio of the power law against {ratios}."
    panel(
        "spectra-tail",
        f"Tail of point {point}, {NAMES[prep]}",
        "How heavy is the tail of the density of eigenvalues? It moves against alpha.",
        view.figure("spectra-tail", lambda: tail_plot(lam, fit), point, prep),
        note=note,
        how=section("spectra", "Heavy tail"),
    )


def _specification(view: View, chosen: Convention, observed: Spectrum) -> None:
    point = view.selection.point
    curve = convention_curve(view, point)
    here = (curve["prep"] == chosen.prep) & (curve["window"] == chosen.window)
    here &= curve["estimator"] == chosen.estimator
    panel(
        "spectra-specification",
        f"Alpha of point {point} under every convention",
        "How much of the number is the convention? A click opens one.",
        view.figure("spectra-specification", lambda: specification_curve(curve), point),
        note=_survival(view, point),
        how=section("spectra", "Specification curve"),
        csv=curve,
        on_click=open_convention,
        x=int(np.flatnonzero(here)[0]),
    )
    with st.expander("The code that makes the chosen number"):
        st.code(python(chosen, point, observed, view.info.mask), language="python")
        st.code(command(chosen, point, observed, view.info.mask, view.info.model), language="bash")


def open_convention(click: PlotClick) -> None:
    """Choose the convention of a mark; its ``customdata`` begins with the three keys."""
    if click.customdata is not None:
        for key, value in zip(_KEYS, click.customdata, strict=False):
            st.session_state[key] = value


def convention_curve(view: View, point: int) -> pd.DataFrame:
    """Alpha of a point under every convention whose spectrum the run has."""

    def build() -> pd.DataFrame:
        known = {prep: spectrum_of(view, point, prep) for prep in PREPARATIONS}
        return specification({prep: spectrum for prep, spectrum in known.items() if spectrum is not None})

    return view.memo(("specification", point), build)


def _survival(view: View, point: int) -> str | None:
    if point == 0 or spectrum_of(view, point - 1, HEADLINE) is None:
        return None
    signs = sign_survival(convention_curve(view, point), convention_curve(view, point - 1))
    verdict = "the sign survives every convention" if signs.survives else "the sign depends on the convention"
    return (
        f"Against point {point - 1}: steeper in {signs.steeper} and flatter in {signs.flatter} of {signs.n_used} "
        f"conventions; {verdict}."
    )


def _null(view: View, chosen: Convention) -> np.ndarray | None:
    """The permuted spectra of the selected point; those of a raw preparation are drawn on the spot."""
    point, name = view.selection.point, f"spectral_null{chosen.suffix}"
    if chosen.prep == HEADLINE:
        tensor = kept(view, name)
        return None if tensor is None else tensor[point].numpy()
    params = {"points": [point], "null_preparations": [chosen.prep], "centre": _centred(view)}
    label = f"Draw the null of {NAMES[chosen.prep]} at point {point}"
    answer = extra(view, ProbeCall("spectral", params), label=label, auto=view.loaded)
    if answer is None:
        return None
    tensor = kept(View(view.services, answer, view.selection), name)
    return None if tensor is None else tensor[point].numpy()


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


def _curved(chosen: Convention, observed: Spectrum) -> str | None:
    fit = chosen.fit(observed)
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


def _centred(view: View) -> bool:
    calls = {call.name: call for call in view.info.request.probes}
    return bool(calls["spectral"].params.get("centre", True)) if "spectral" in calls else True


def _reason(status: str) -> str:
    return _REASONS.get(status, status.replace("_", " "))
