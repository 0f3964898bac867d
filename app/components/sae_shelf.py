"""The SAEs of the page Models: what is installed and what for, what is wrong with the rest, and more from the hub."""

import pandas as pd
import streamlit as st

from app.components.keeping import local
from app.components.progress import show_progress
from app.jobs import Job
from app.services import Services
from app.text import markdown, printable
from probes.progress import Progress
from probes.saes.folder import InstalledSAE, installed_saes
from probes.saes.hub import EXAMPLE, fetch_sae

__all__ = ["sae_shelf"]

_ASKED = "_sae-fetch"  # session key: what was last asked of the hub


def sae_shelf(held: Services) -> None:
    """Draw the section."""
    st.markdown("**SAEs** :gray[Which sparse autoencoders are here, and what was each made for?]")
    found = installed_saes()
    if found:
        st.dataframe(pd.DataFrame([_row(sae) for sae in found]), hide_index=True, key="saes", height="content")
    else:
        st.caption("None is installed.")
    for sae in found:
        if sae.problem is not None:
            st.warning(markdown(sae.problem))
        elif sae.info is not None and sae.info.unreadable is not None:
            st.caption(markdown(sae.info.unreadable))
    if not local():
        st.caption("SAEs are fetched by whoever runs this server: python -m app sae fetch RELEASE/SAE_ID.")
        return
    with st.form("sae-hub", border=False), st.container(horizontal=True, vertical_alignment="bottom"):
        typed = st.text_input("A release of SAEs on the hub", placeholder=EXAMPLE, max_chars=300, key="sae-asked")
        asked = st.form_submit_button("Fetch and check SAE", type="primary")
    if asked and not typed.strip():
        st.warning(f"Give a release and an id, such as {markdown(EXAMPLE)}.")
    elif asked:
        st.session_state[_ASKED] = typed.strip()
        _fetch(held, typed.strip())
    if _ASKED in st.session_state:
        _outcome(held.desk.get(("fetch-sae", st.session_state[_ASKED])))


def _fetch(held: Services, asked: str) -> Job:
    def work(progress: Progress) -> str:
        return fetch_sae(asked, progress).name

    return held.desk.submit("saes", ("fetch-sae", asked), f"Fetch {asked}", work)


def _outcome(job: Job | None) -> None:
    if job is None:
        return
    if job.active:
        show_progress(job)
    elif job.error is not None:
        st.error(markdown(job.error))
    else:
        st.success(f"{markdown(str(job.result))} is here; every weight was checked.")


def _row(sae: InstalledSAE) -> dict[str, object]:
    info = sae.info
    if info is None:
        return {"SAE": printable(sae.name), "state": "cannot be used"}
    return {
        "SAE": info.name,
        "state": "ready" if info.unreadable is None else "not on a run",
        "made for": printable(info.model_name) or "unnamed",
        "reads": info.hook_name,
        "writes": info.hook_name_out or info.hook_name,
        "kind": info.architecture,
        "latents": info.d_sae,
        "dimensions": info.d_in,
        "from": "shipped" if info.shipped else printable(info.source) or "a folder",
    }
