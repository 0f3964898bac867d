"""An SAE without an index: the one its folder brings is read in; else what one would take is said, and it is made."""

import streamlit as st

from app.components.keeping import local
from app.components.progress import show_progress
from app.index_jobs import index_job, job_key, own_texts, plan_job, shipped_texts
from app.sae_index import Indexed, known_index
from app.text import markdown
from app.view import View
from cache import StoreError
from probes.saes.folder import SAEFormatError, SAEInfo
from probes.saes.index import IndexPlan
from probes.saes.shipped_index import import_shipped_index

__all__ = ["offer_index"]


def offer_index(view: View, info: SAEInfo) -> Indexed | None:
    """The index that comes with an SAE, read in at this first need; where there is none, how to get one."""
    try:
        with st.spinner("Reading in the index that comes with this SAE"):
            brought = import_shipped_index(view.services.store, info.folder)
    except (SAEFormatError, StoreError) as problem:
        brought = None
        st.warning(markdown(str(problem)))
    found = None if brought is None else known_index(view, info)
    if found is None:
        with st.container(border=True, key="index-offer"):
            _offer(view, info)
    return found


def _offer(view: View, info: SAEInfo) -> None:
    st.markdown(
        f"**No index of {markdown(info.name)}** :gray[An index says what text each latent fires on, how often and how "
        "strongly. Without it, what a latent writes and where it fires on the open text is all that can be shown.]"
    )
    st.caption("On the command line, with any text: `python -m app sae index NAME`")
    if not local():
        return
    files = st.file_uploader("Text of your own (UTF-8); without any, the passages that come with the app are read",
                             ["txt", "md"], accept_multiple_files=True, key="index-files", max_upload_size=20)  # fmt: skip
    try:
        texts = own_texts([(file.name, file.getvalue()) for file in files]) if files else shipped_texts()
    except ValueError as problem:
        st.warning(markdown(str(problem)))
        return
    corpus = f"{len(texts)} text files" if files else "the passages that come with the app"
    held, model = view.services, view.info.model
    planned, made = (held.desk.get(job_key(kind, model, info, texts)) for kind in ("index-plan", "index"))
    for job in (made, planned):
        if job is not None and job.active:
            show_progress(job)
            return
        if job is not None and job.error is not None:
            st.warning(markdown(job.error))

    def plan() -> None:
        plan_job(held, model, info, texts)

    def make() -> None:
        index_job(held, model, info, texts, corpus)

    if planned is None or planned.state != "done":
        size = f"{len(texts)} texts, {sum(len(one.text) for one in texts):,} characters"
        st.button(f"How long will it take? ({size})", key="index-plan", on_click=plan)
        return
    st.caption(_said(planned.result, corpus))
    st.button("Make the index", type="primary", key="index-make", on_click=make)


def _said(plan: IndexPlan, corpus: str) -> str:
    took = f"{plan.seconds:.0f} s" if plan.seconds < 90 else f"{plan.seconds / 60:.0f} min"
    return (
        f"{plan.n_tokens:,} tokens of {corpus} in {plan.n_sequences:,} pieces: about {took} at {plan.tokens_per_second:,.0f} "
        f"tokens/s, {plan.memory_bytes / 1e6:,.0f} MB of memory while it runs, {plan.store_bytes / 1e6:,.1f} MB in the store. "
        f"A latent that fires on fewer than one token in {plan.n_tokens:,} will look as if it never fired."
    )
