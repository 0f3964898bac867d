"""Correctness: whether what the states show before an answer tells if it will be right, beside what is known without them."""

import streamlit as st

from app.components.actions import after
from app.components.backend import services
from app.components.keeping import local
from app.components.panel import show
from app.components.progress import show_progress
from app.components.set_choice import choose_set, load_first
from app.jobs import sentence
from app.methods import section
from app.predicting import Prediction, find_prediction, predict_job, predict_key
from app.services import Services
from app.state import current, settle
from app.sweeps import facts_of
from app.text import markdown, printable
from app.view import View, run_bounds
from probes.errors import BadRequest
from probes.set_sweep import SetAsk

__all__ = ["page"]

_QUESTION = "Can the states before an answer tell whether it will be right?"


def page() -> None:
    """Draw the page."""
    st.markdown(f"**Correctness** :gray[{_QUESTION}]")
    held = services()
    names = held.model_names()
    if not names:
        st.write("No model is installed yet: the page *Models* fetches one.")
        return
    asked = choose_set(held, names, tokens=False)
    n_answers = sum(prompt.answer is not None for prompt in asked.prompts.prompts)
    if not n_answers:
        st.info(f"No prompt of {markdown(asked.prompts.name)} has an answer, so none can be right or wrong.")
        return
    if facts_of(held, asked.like.model) is None:
        load_first(held, asked.like.model)
        return
    try:
        found = _asked(held, asked, n_answers)
    except (BadRequest, OSError) as problem:
        st.error(markdown(sentence(problem)))
        return
    if found is not None:
        _shown(held, asked, found)
    with st.expander("How to read it / when not to trust it"):
        st.markdown(section("statistics", "Correctness") + "\n\n" + section("statistics", "Streams"))
    after()


def _asked(held: Services, asked: SetAsk, n_answers: int) -> Prediction | None:
    """What is kept of this set and model; a button that answers and predicts, or how far that is."""
    model = asked.like.model
    facts = facts_of(held, model)
    assert facts is not None
    found = find_prediction(held, facts, asked.prompts, asked.chat)
    job = held.desk.get(predict_key(model, asked.prompts, asked.chat))
    if job is not None and job.active:
        show_progress(job)
    elif local():
        with st.container(horizontal=True, vertical_alignment="center", gap="small"):
            if st.button(
                "Answer and predict" if found is None else "Again",
                type="primary" if found is None else "secondary",
                key="predict-go",
            ):
                predict_job(held, model, asked.prompts, asked.chat)
                st.rerun()
            st.caption(
                f"{n_answers:,} prompts with an answer; up to 32 tokens are written after each (greedily, BOS first), "
                "then features are cut before the answer. Some minutes for a model of 135 million weights; what is stored is not "
                "written again."
            )
    if job is not None and job.error is not None:
        st.warning(markdown(job.error))
    return found


def _shown(held: Services, asked: SetAsk, found: Prediction) -> None:
    result = held.latest(asked.like.model)
    if result is None:
        st.caption("Run any text on this model once: panels stand beside a run of it.")
        return
    settle(result.info.model, result.info.run_id, result.info.mask, run_bounds(result))
    view = View(held, result, current())
    show(view, "predict-auc", prompts=asked.prompts.name, chat=asked.chat)
    left, right = st.columns(2, gap="medium")
    with left:
        show(view, "predict-roc", prompts=asked.prompts.name, chat=asked.chat)
    with right:
        st.markdown("**Gain over each baseline** :small[:gray[AUC, the same prompts drawn for both; 95 %]]")
        numbers = {name: st.column_config.NumberColumn(format="%.3f") for name in ("gain", "low", "high")}
        st.dataframe(
            found.table("gains"), hide_index=True, key="predict-gains", height="content", column_config=numbers
        )
        with st.expander("Which answers are right"):
            table = found.table("prompts")
            st.dataframe(
                table.assign(id=table["id"].map(printable)), hide_index=True, key="predict-prompts", height=240
            )
