"""Prompt sets: which there are, how long and how surprising their prompts are, and the sweep that runs them all."""

from pathlib import PurePath

import pandas as pd
import streamlit as st

from app.components.actions import after
from app.components.backend import services
from app.components.keeping import local
from app.components.progress import show_progress
from app.components.saying import say
from app.components.set_choice import choose_next, choose_set, load_first
from app.components.shell import page_of
from app.jobs import sentence
from app.methods import section
from app.services import MAX_CHARACTERS, Services
from app.sweeps import Survey, facts_of, job_key, start, survey
from app.text import csv_bytes, markdown, printable
from cache import StoreError
from probes.errors import BadRequest
from probes.prompts.library import all_sets, import_set, remove_set
from probes.prompts.sets import BUILT_IN, PromptSet, read_set
from probes.set_sweep import SetAsk

__all__ = ["page"]

_QUESTION = "What does a model do on many prompts, not on one?"
_NAME = "sets-name"


def page() -> None:
    """Draw the page."""
    st.markdown(f"**Prompt sets** :gray[{_QUESTION}]")
    held = services()
    names = held.model_names()
    if not names:
        st.write("No model is installed yet: the page *Models* fetches one.")
        return
    asked = choose_set(held, names)
    _sweep(held, asked)
    if local():
        _import(held)
    with st.expander("How to read it / when not to trust it"):
        st.markdown(section("sets", "Prompt sets"))
    after()


def _sweep(held: Services, asked: SetAsk) -> None:
    """What is known of the set, the sweep, and the table of its prompts."""
    model, facts = asked.like.model, facts_of(held, asked.like.model)
    job = held.desk.get(job_key(asked))
    if job is not None and job.active:
        show_progress(job)
    if facts is None:
        if job is None or not job.active:
            load_first(held, model)
        return
    try:
        known = survey(held, asked, facts)
    except (BadRequest, OSError) as problem:
        st.error(markdown(sentence(problem)))
        return
    left = known.n_runnable - known.n_run
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key="sets-status"):
        st.markdown(_says(asked.prompts, known))
        if local() and left and (job is None or not job.active):
            label = f"Run all {left}" if not known.n_run else f"Run the other {left}"
            if st.button(label, type="primary", key="sets-run"):
                start(held, asked)
                st.rerun()
    if job is not None and job.error is not None:
        st.info(markdown(job.error))
    if job is not None and job.state == "done":
        known = _with_refusals(known, job.result.refused)
    _groups(known)
    _table(asked, known)


def _says(prompts: PromptSet, known: Survey) -> str:
    total = len(prompts.prompts)
    unfit = "" if known.n_runnable == total else f", {total - known.n_runnable} do not fit the model"
    return f"**{total:,} prompts** :gray[{markdown(printable(prompts.source))}] · {known.n_run:,} run{unfit}"


def _with_refusals(known: Survey, refused: dict[int, Exception]) -> Survey:
    """The survey with what the last sweep could not run."""
    table = known.table.copy()
    for place, problem in refused.items():
        table.loc[place, "problem"] = str(problem)
    return Survey(table, known.begins)


def _groups(known: Survey) -> None:
    """A row a group, where there are groups: are they of one length?"""
    groups = known.by_group()
    if len(groups) < 2:
        return
    st.dataframe(
        groups, hide_index=True, key="sets-groups", height="content", width="content",
        column_config={
            "shortest": st.column_config.NumberColumn("shortest, tokens", format="%d"),
            "mean": st.column_config.NumberColumn("mean, tokens", format="%.1f"),
            "longest": st.column_config.NumberColumn("longest, tokens", format="%d"),
            "perplexity": st.column_config.NumberColumn("median perplexity", format="%.4g"),
        },
    )  # fmt: skip


def _table(asked: SetAsk, known: Survey) -> None:
    """The prompts; a click on one that was run opens its Overview."""
    table = known.table
    key = f"sets-table-{asked.prompts.set_id[:8]}"
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
        said = f"each after “{known.begins}” · " if known.begins else ""
        st.markdown(f":small[:gray[{markdown(said)}a click on a row opens its Overview, on a heading sorts]]")
        st.download_button(
            "CSV", lambda: csv_bytes(table), f"{asked.prompts.name}.csv", "text/csv", key="sets-csv", type="tertiary",
            on_click="ignore",
        )  # fmt: skip
    shown = table.drop(columns=["run_id", *(["problem"] if table["problem"].isna().all() else [])])
    shown = shown.drop(columns=[name for name in ("group", "answer") if table[name].isna().all()])
    for name in ("id", "group", "answer"):
        if name in shown:
            shown[name] = shown[name].map(lambda text: printable(text) if isinstance(text, str) else None)
    event = st.dataframe(
        shown, hide_index=True, key=key, on_select="rerun", selection_mode=["single-row", "single-cell"], height=440,
        column_config={
            "id": st.column_config.TextColumn("prompt", width=130), "group": st.column_config.TextColumn(width=100),
            "prompt": st.column_config.TextColumn("text", width=560), "answer": st.column_config.TextColumn(width=100),
            "tokens": st.column_config.NumberColumn(width=70), "perplexity": st.column_config.NumberColumn(format="%.4g"),
            "problem": st.column_config.TextColumn("why not run", width=300),
        },
    )  # fmt: skip
    chosen = [*event.selection.rows, *(cell[0] for cell in event.selection.cells)]
    if chosen and chosen[0] < len(table):
        _open(table.iloc[chosen[0]])


def _open(row: "pd.Series[str]") -> None:
    if pd.notna(row["run_id"]):
        st.switch_page(page_of("overview"), query_params={"run": row["run_id"]})
    why = f": {row['problem']}" if isinstance(row["problem"], str) else " yet."
    st.caption(f"{markdown(printable(row['id']))} has not been run{markdown(why)}")


def _import(held: Services) -> None:
    """A set of one's own from a file or pasted, and away with it."""
    with st.expander("Import a set, or remove one"):
        st.markdown(
            "One JSON object a line: `id`, `text` or `messages`, and where known `group`, `answer`, `response`.  \n"
            '`{"id": "a1", "text": "The capital of France is", "group": "factual", "answer": "Paris"}`'
        )
        left, right = st.columns(2, gap="large")
        file = left.file_uploader("A file", type=["jsonl", "json", "txt"], key="sets-file", max_upload_size=32)
        pasted = right.text_area("or pasted lines", key="sets-pasted", height=110, max_chars=MAX_CHARACTERS)
        name = st.text_input("Name", key=_NAME, max_chars=64, placeholder="the file's name if left empty", width=330)
        if st.button("Import", key="sets-import"):
            if (file is None) == (not pasted.strip()):
                st.error("Give a file or paste lines, one of the two.")
            elif file is not None:
                _take_in(held, name.strip() or PurePath(file.name).stem, file.getvalue(), file.name)
            else:
                _take_in(held, name.strip() or "pasted", pasted.encode("utf-8", "surrogatepass"), "pasted lines")
        own = [one.name for one in all_sets(held.store) if one.source != BUILT_IN]
        if own:
            with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
                gone = st.selectbox("Imported sets", own, key="sets-own", width=220)
                st.button("Remove it", key="sets-remove", on_click=_remove, args=(held, gone))


def _take_in(held: Services, name: str, content: bytes, what: str) -> None:
    try:
        made = read_set(name, content, what, what)
        import_set(held.store, made)
    except (BadRequest, StoreError) as problem:
        st.error(markdown(str(problem)))
        return
    choose_next(made.name)
    say(f"{markdown(made.name)} is imported: {len(made.prompts):,} prompts.")
    st.rerun()


def _remove(held: Services, name: str) -> None:
    try:
        remove_set(held.store, name)
    except (BadRequest, StoreError) as problem:
        say(markdown(str(problem)))
    else:
        say(f"{markdown(name)} is removed; runs of its prompts stay.")
