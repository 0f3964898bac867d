"""The word a search found for a latent, beside its default label; the search itself, or why there is none."""

import streamlit as st

from app.components.keeping import local
from app.components.progress import show_progress
from app.label_jobs import label_job, label_key, label_sentences
from app.text import markdown
from app.view import View
from probes.saes.folder import SAEInfo, content_digest
from probes.saes.judge_check import stored_check
from probes.saes.word_label import stored_label

__all__ = ["word_label"]


def word_label(view: View, info: SAEInfo, latent: int) -> None:
    """Draw what is known of the word of a latent whose SAE has an index."""
    held, facts, model = view.services, view.facts, view.info.model
    found = stored_label(held.store, content_digest(info.folder), latent, facts.fingerprint)
    check = stored_check(held.store, facts.fingerprint, model)
    if found is not None:
        word, *figures = map(markdown, label_sentences(found))
        st.caption(f"**{word}** · {' '.join(figures)}")
    elif check is not None and check.refusal is not None:
        st.caption(markdown(check.refusal))
        return
    job = held.desk.get(label_key(facts, info, latent))
    if job is not None and job.active:
        show_progress(job)
        return
    if job is not None and job.error is not None:
        st.warning(markdown(job.error))

    def search() -> None:
        label_job(held, model, facts, info, latent)

    if found is None and local():
        st.button(
            "Search a word with the model (minutes)",
            key=f"latent-word-{latent}",
            type="tertiary",
            icon=":material/search:",
            on_click=search,
        )
