"""Compare SAEs: whether two of them hold the same latents, which split, and whether latents of words swallow letters."""

from collections.abc import Callable, Mapping
from typing import Any

import streamlit as st

from analysis.absorption import MIN_F1
from app.components.explore import View, explore
from app.components.latent_table import latent_table
from app.components.own_text import own_text
from app.components.panel import show
from app.components.progress import show_progress
from app.components.sae_choice import none_fits
from app.jobs import Job
from app.panels.sae_compare import ONE, A, B, child_table
from app.quality import fitting
from app.sae_compare import (
    Answer,
    absorbed,
    absorption_job,
    absorption_key,
    compare_job,
    compare_key,
    compared,
)
from app.text import markdown
from probes.saes.folder import SAEInfo
from probes.saes.quality_text import TOKENS

__all__ = ["page"]

_QUESTION = "Do two SAEs hold the same latents, and which of them split or swallow others?"
_ENOUGH = 20_000  # tokens from which on correlations of rare latents mean something


def page() -> None:
    """Draw the page."""
    explore("Compare SAEs", _QUESTION, panels, colour_by="sae_explained_variance")


def panels(view: View) -> None:
    """Two SAEs on one text, then absorption in one."""
    infos = fitting(view.facts)
    if not infos:
        none_fits(view)
        return
    _two(view, infos)
    _absorption(view, infos)


def _two(view: View, infos: Mapping[str, SAEInfo]) -> None:
    if len(infos) < 2:
        st.info(
            f"Only one installed SAE reads {markdown(view.facts.name)}, and a comparison takes two: train another on the "
            "page *Train an SAE*, or get one with `python -m app sae fetch`."
        )
        return
    newest = compared(view.services, view.facts)
    first, second = [info.name for info in newest.saes] if newest is not None else list(infos)[:2]
    left, right, button = st.columns([2, 2, 1], vertical_alignment="bottom")
    with left:
        a = infos[_pick("A", list(infos), first, A)]
    with right:
        b = infos[_pick("B", [name for name in infos if name != a.name], second, B)]
    text = own_text(
        "Compare on your own text", "A text file both read (UTF-8); 20,000 tokens or more tell most", "saes-text"
    )
    found = compared(view.services, view.facts, a.name, b.name)
    job = view.services.desk.get(compare_key(view.info.model, a.name, b.name))

    def compare() -> None:
        compare_job(view.services, _request(view), a, b, text)

    with button:
        _ask(job, "Compare" if found is None else "Compare again", "saes-compare", compare)
    _progress(job)
    if found is None:
        st.caption(
            f"{_sizes(a, b)}. Not compared yet: both read up to {TOKENS:,} tokens in the background, some minutes "
            "on two cores for a model of 135 million weights."
        )
        return
    _numbers(found)
    pair: dict[str, Any] = {"sae": a.name, "other": b.name}
    left, right = st.columns(2)
    with left:
        show(view, "saes-matches", **pair)
        show(view, "saes-geometry", **pair)
    with right:
        show(view, "saes-splitting", **pair)
        _children(view, found)


def _absorption(view: View, infos: Mapping[str, SAEInfo]) -> None:
    st.markdown(
        "**Absorption** :small[:gray[Do latents of single words swallow the first letter that another latent tells?]]"
    )
    newest = absorbed(view.services, view.facts)
    left, button = st.columns([4, 1], vertical_alignment="bottom")
    with left:
        sae = infos[_pick("SAE", list(infos), newest.saes[0].name if newest is not None else next(iter(infos)), ONE)]
    found = absorbed(view.services, view.facts, sae.name)
    job = view.services.desk.get(absorption_key(view.info.model, sae.name))

    def measure() -> None:
        absorption_job(view.services, _request(view), sae)

    with button:
        _ask(job, "Measure" if found is None else "Measure again", "saes-measure", measure)
    _progress(job)
    if found is None:
        st.caption(
            "Not measured yet: the model is asked for the first letters of 60 words each and probes are fitted, some minutes "
            "on two cores for a model of 135 million weights."
        )
        return
    told = found.document["absorption"]
    measured, chance = told["rate"]["value"] is not None, 1 / len(found.document["probe_f1"])
    _cards(
        {
            "Letters told": (
                _share(told["icl_accuracy"]),
                f"of {told['icl_accuracy']['n_used']:,} words; chance {chance:.1%}",
            ),
            "F1 of the probes": (_score(told["probe_f1"]), "mean over letters"),
            "Absorbed": (_share(told["rate"]), f"of {told['rate']['n_used']:,} words" if measured else "see below"),
        }
    )
    if not measured and told["probe_f1"]["value"] < MIN_F1:
        st.warning(
            f"Absorption cannot be tested here: the F1 of the probes is {told['probe_f1']['value']:.2f}, below {MIN_F1}. "
            "A letter that cannot be read from the states cannot be absorbed by a latent."
        )
    show(view, "saes-absorption", sae=sae.name)
    _letters(found, sae)


def _letters(found: Answer, sae: SAEInfo) -> None:
    """Rates by letter, and the words that were looked at with the latent that carries their letter."""
    letters, words = found.table("letters"), found.table("words")
    if letters.empty:
        return
    left, right = st.columns(2)
    with left:
        st.markdown("**By letter** :small[:gray[Main latents are those that tell the letter]]")
        st.dataframe(letters, hide_index=True, key="saes-letters", height=320)
    with right:
        st.markdown(
            "**Words with silent main latents** :small[:gray[A click opens the latent that writes their letter]]"
        )
        latent_table(words, "saes-words", {"latent": sae.name})


def _numbers(found: Answer) -> None:
    told = found.document["compare"]
    mean = "undefined" if told["mean_r"] is None else f"{told['mean_r']:.3f}"
    unique = "undefined" if told["share_unique"] is None else f"{told['share_unique']:.1%}"
    _cards(
        {
            "Mean r": (mean, f"of {told['n_matched']:,} matches"),
            "Share unique": (unique, "distinct latents of A"),
            "Pairs compared": (f"{told['n_pairs']:,}", "by their decoder rows"),
            "SVCCA": (_score(told["svcca"]), _null(told, "svcca")),
            "RSA": (_score(told["rsa"]), _null(told, "rsa")),
        }
    )
    few = f" Fewer than {_ENOUGH:,}: a latent for something rare had no occasion." if told["n_tokens"] < _ENOUGH else ""
    st.caption(f"{_sizes(*found.saes)}. {told['n_tokens']:,} tokens of {markdown(found.document['corpus'])}.{few}")


def _children(view: View, found: Answer) -> None:
    table = child_table(view, found)
    if table.empty:
        return
    narrow, wide = found.by_width
    st.markdown("**Children** :small[:gray[A click opens the latent, or the child]]")
    numbers = {name: st.column_config.NumberColumn(format="%.3f") for name in ("cosine", "correlation")}
    latent_table(
        table, f"saes-children-{narrow.name}-{wide.name}", {"latent": narrow.name, "child": wide.name}, **numbers
    )


def _pick(label: str, names: list[str], first: str, key: str) -> str:
    """A choice among SAEs; an address may ask for one that is gone."""
    if st.session_state.get(key) not in names:
        st.session_state[key] = first if first in names else names[0]
    return str(st.selectbox(label, names, key=key))


def _ask(job: Job | None, label: str, key: str, submit: Callable[[], None]) -> None:
    st.button(label, key=key, width="stretch", on_click=submit, disabled=job is not None and job.active)


def _progress(job: Job | None) -> None:
    if job is not None and job.active:
        show_progress(job)
    elif job is not None and job.error is not None:
        st.warning(markdown(job.error))


def _cards(cards: Mapping[str, tuple[str, str]]) -> None:
    with st.container(horizontal=True):
        for label, (value, under) in cards.items():
            with st.container(width=150, gap=None):
                st.metric(label, value)
                st.caption(under)


def _sizes(*saes: SAEInfo) -> str:
    return "; ".join(f"{markdown(sae.name)}: {sae.d_sae:,} latents at point {sae.point}" for sae in saes)


def _score(told: Mapping[str, Any]) -> str:
    return "not given" if told["value"] is None else f"{told['value']:.3f}"


def _share(told: Mapping[str, Any]) -> str:
    return "not given" if told["value"] is None else f"{told['value']:.1%}"


def _null(told: Mapping[str, Any], name: str) -> str:
    null, p = told[f"{name}_null"]["value"], told[f"{name}_p"]["value"]
    return "see below" if null is None or p is None else f"shuffled {null:.3f}, p = {p:.2g}"


def _request(view: View) -> tuple[str, str, str]:
    request = view.info.request
    return request.model, request.dtype, request.device
