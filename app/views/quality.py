"""SAE quality: how well each SAE that fits the open model rebuilds states of text it has not seen, and what that costs."""

from collections.abc import Mapping

import pandas as pd
import streamlit as st

from app.components.explore import View, explore
from app.components.latent_table import latent_table
from app.components.own_text import own_text
from app.components.panel import show
from app.components.progress import show_progress
from app.components.sae_choice import none_fits
from app.figures.quality import bar_name
from app.methods import section
from app.panels.panel import Click
from app.quality import fitting, in_bar, measure, measured, quality_key
from app.sae_index import labels_of
from app.text import markdown
from probes.errors import BadRequest
from probes.saes.folder import SAEInfo
from probes.saes.quality import LOSS_TOKENS
from probes.saes.quality_text import BUILTIN, TOKENS
from probes.saes.sequences import FileText

__all__ = ["page"]

_QUESTION = "How well does an SAE rebuild text it has not seen, and does the model still work on what it rebuilds?"
_CARDS = {
    "sae_explained_variance": ("Explained variance", "{:.3f}"),
    "ce_recovered_zero": ("Loss recovered", "{:.3f}"),
    "delta_ce": ("Loss added, nats", "{:+.3f}"),
    "sae_l0": ("L0", "{:.1f}"),
    "sae_dead": ("Dead latents", "{:.1%}"),
    "sae_dense": ("Dense latents", "{:.1%}"),
}
_TABLE = {
    "sae_l0": "L0",
    "sae_explained_variance": "explained variance",
    "sae_explained_variance_own": "explained variance, own",
    "sae_fvu": "FVU (1 - own)",
    "sae_cosine": "cosine",
    "sae_norm_ratio": "norm ratio",
    "sae_reconstruction_bias": "reconstruction bias",
    "ce_clean": "loss, clean",
    "ce_sae": "loss on the reconstruction",
    "ce_zero": "loss on zeros",
    "ce_mean": "loss on the mean",
    "ce_recovered_zero": "loss recovered, against zeros",
    "ce_recovered_mean": "loss recovered, against the mean",
    "delta_ce": "loss added",
    "kl": "KL (clean || reconstruction)",
    "sae_never_fired": "never fired",
    "sae_dense": "dense (above 10 %)",
}
_BAR = "_quality-bar"  # session key: SAE and bar of the histogram that was clicked


def page() -> None:
    """Draw the page."""
    explore("SAE quality", _QUESTION, panels, colour_by="sae_explained_variance")


def panels(view: View) -> None:
    """Cards of each SAE, all their numbers side by side, then the histograms and curves."""
    infos = fitting(view.facts)
    if not infos:
        none_fits(view)
        return
    text = own_text("Measure on your own text", "A text file the SAE was not trained on (UTF-8)", "quality-text")
    found: dict[str, pd.DataFrame] = {}
    for info in infos.values():
        rows = _one(view, info, text)
        if rows is not None:
            found[info.name] = rows
    if not found:
        return
    st.markdown("**Side by side** :small[:gray[With and without position 0 and massive tokens]]")
    st.dataframe(_side_by_side(found), hide_index=True, key="quality-table", height="content")
    with st.expander("How to read it / when not to trust it"):
        st.markdown(section("quality", "Fit") + "\n\n" + section("quality", "Loss"))
    left, right = st.columns(2)
    with left:
        show(view, "quality-density", on_click=lambda click: _clicked(list(found), click))
        _listed(view, infos, found)
        show(view, "quality-position")
    with right:
        show(view, "quality-l0")
        show(view, "quality-source")


def _clicked(names: list[str], click: Click) -> None:
    """Note the bar that was clicked; a second click lets go."""
    if isinstance(click.customdata, int | float) and click.curve < len(names):
        bar = (names[click.curve], int(click.customdata))
        st.session_state[_BAR] = None if st.session_state.get(_BAR) == bar else bar


def _listed(view: View, infos: Mapping[str, SAEInfo], found: Mapping[str, pd.DataFrame]) -> None:
    """The latents in the bar that was clicked."""
    name, place = st.session_state.get(_BAR) or ("", 0)
    if name not in found:
        st.caption("A click on a bar lists its latents.")
        return
    table = in_bar(view.services.store, view.facts, infos[name], str(found[name]["corpus"].iloc[0]), place)
    if table is None:
        st.caption(f"Which latents they are was not kept when {markdown(name)} was measured: measure it again.")
        return
    labels = labels_of(view, name)
    table["label"] = [labels.get(int(latent), "") for latent in table["latent"]]
    table["density"] *= 100
    count = f"{len(table):,} latent{'s' * (len(table) != 1)}"
    st.markdown(f"**{count}** of {markdown(name)} :small[:gray[{markdown(bar_name(place))}; a click opens one]]")
    latent_table(
        table, f"quality-bar-{name}-{place}", {"latent": name},
        n_fired=st.column_config.NumberColumn("tokens", format="localized"),
        density=st.column_config.NumberColumn("share, %", format="%.3g"),
    )  # fmt: skip


def _one(view: View, info: SAEInfo, text: FileText | None) -> pd.DataFrame | None:
    """The card of one SAE: what is stored of it, a button that measures it, or how far that is; its newest rows."""
    known = measured(view.services.store, view.facts, info)
    name = BUILTIN if text is None else text.name
    with st.container(border=True, key=f"quality-card-{info.name}"):
        head, button = st.columns([4, 1], vertical_alignment="center")
        corpus = next(iter(known), None)
        said = "not measured yet" if corpus is None else f"on {markdown(corpus)}"
        head.markdown(f"**{markdown(info.name)}** :small[:gray[{info.d_sae:,} latents at point {info.point}, {said}]]")
        job = view.services.desk.get(quality_key(info.name, name))
        if job is not None and job.error is not None:
            st.warning(markdown(job.error))
        if job is not None and job.active:
            show_progress(job)
        elif button.button(
            "Measure" if corpus is None else "Measure again", key=f"quality-go-{info.name}", width="stretch",
            help=f"Reads up to {TOKENS:,} tokens, and {LOSS_TOKENS:,} of them six times through the rest of the model: "
            "some minutes on two cores for a model of 135 million weights. It runs in the background.",
        ):  # fmt: skip
            try:
                measure(view.services, _request(view), info, text)
            except BadRequest as problem:
                st.warning(markdown(str(problem)))
            st.rerun(scope="fragment")
        if corpus is None:
            return None
        rows = known[corpus]
        _cards(rows)
        return rows


def _cards(rows: pd.DataFrame) -> None:
    whole = rows[rows["pos"].isna()].set_index("metric")
    with st.container(horizontal=True):
        for metric, (label, form) in _CARDS.items():
            if metric not in whole.index:
                continue
            row = whole.loc[metric]
            missing = pd.isna(row["value"])
            if metric == "sae_dead" and missing:
                row = whole.loc["sae_never_fired"]
                label, missing = "Never fired", pd.isna(row["value"])
            value = str(row["status"]).replace("_", " ") if missing else form.format(float(row["value"]))
            with st.container(width=128, gap=None):
                st.metric(label, value)
                st.caption(f"n = {int(row['n_used']):,}")


def _side_by_side(found: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """One row a number, one or two columns an SAE: plain, and with massive tokens and position 0 where that is known."""
    columns: dict[str, list[str]] = {"number": list(_TABLE.values())}
    for name, rows in found.items():
        whole = rows[rows["pos"].isna()].set_index("metric")
        columns[name] = [_told(whole, metric) for metric in _TABLE]
        columns[f"{name}, all tokens"] = [_told(whole, f"{metric}@all") for metric in _TABLE]
    return pd.DataFrame(columns)


def _told(rows: pd.DataFrame, metric: str) -> str:
    if metric not in rows.index:
        return ""
    row = rows.loc[metric]
    return str(row["status"]).replace("_", " ") if pd.isna(row["value"]) else f"{float(row['value']):,.4g}"


def _request(view: View) -> tuple[str, str, str]:
    request = view.info.request
    return request.model, request.dtype, request.device
