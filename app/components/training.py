"""A training as people see it: how far it is with its curves, what came of it, and the ones that were broken off."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st

from app.components.any_training import broken_off, ended_early, watch
from app.components.sae_choice import prefer
from app.components.shell import page_of
from app.figures.training import training_curves
from app.jobs import Job
from app.services import Services
from app.text import markdown
from app.training import name_of, resume
from probes.saes.fitting import LOG
from probes.saes.folder import CONFIG, saes_folder
from probes.saes.own_card import WARNING
from probes.saes.own_folder import Unfinished, discard, live_log, unfinished

__all__ = ["outcome", "running", "unfinished_ones"]


def running(job: Job) -> None:
    """Draw the training that runs with its curves; when it ends, the whole page is drawn anew."""
    name = name_of(job)
    watch(job, name, "training-running", partial(_live, name))


def _live(name: str) -> None:
    begun, log = unfinished(name), live_log(name)
    if begun and not log.empty:
        _curves(log, begun[0].steps, "training-live")
        st.caption(_latest(log))
    else:
        st.caption("The curves appear with the first steps, once the residual states are collected.")


def outcome(job: Job) -> None:
    """What the last training came to: its numbers on held-out text and where to go, or why it ended."""
    name = name_of(job)
    if not ended_early(job, name):
        _done(name)


def unfinished_ones(held: Services) -> None:
    """The trainings that were begun and not ended, each to be resumed or discarded."""
    there = unfinished()
    if there:
        st.markdown("**Unfinished** :small[:gray[Broken off, by a person or with the server; nothing of it is lost.]]")
    for begun in there:
        name = begun.request.name
        with st.container(border=True, key=f"unfinished-{name}"):
            broken_off(
                name, _said(begun), prefix="", busy=begun.busy, lost="Its states and its checkpoint are thrown away.",
                resume=partial(_resumed, held, begun), discard=discard,
            )  # fmt: skip
            log = live_log(name)
            if begun.done and not log.empty:
                with st.expander("Its curves so far"):
                    _curves(log, begun.steps, f"unfinished-curves-{name}")


def _resumed(held: Services, begun: Unfinished) -> str:
    return name_of(resume(held, begun))


def _done(name: str) -> None:
    folder = saes_folder() / name
    try:
        metadata = json.loads((folder / CONFIG).read_text(encoding="utf-8"))["metadata"]
        numbers: dict[str, Any] = metadata["held_out"]
        log = pd.read_csv(folder / LOG)
    except (OSError, ValueError, KeyError, TypeError):
        return  # removed since
    with st.container(border=True, key="training-done"):
        st.markdown(f"**{markdown(name)}** is trained and installed.")
        if str(metadata["remark"]).startswith(WARNING):
            remark = str(metadata["remark"])
            st.warning(markdown(remark[0].upper() + remark[1:]) + ".")
        with st.container(horizontal=True, gap="large"):
            st.metric("Explained variance", _told(numbers["explained_variance"], "{:.3f}"), width="content")
            st.metric("L0", _told(numbers["l0"], "{:.1f}"), width="content")
            st.metric("Never fired", _told(numbers["dead_share"], "{:.1%}"), width="content")
        st.caption(
            f"On {numbers['n']:,} held-out states, position 0 and massive tokens left out; never fired: in training."
        )
        with st.container(horizontal=True, gap="small"):
            if st.button("Read the open text with it", type="primary", key="training-read"):
                prefer(name)
                st.switch_page(page_of("latents"))
            if st.button("Measure its quality", key="training-quality"):
                prefer(name)
                st.switch_page(page_of("quality"))
        _curves(log, int(log["step"].iloc[-1]) + 1, "training-ended")
        with st.expander("Its card"):
            st.code(_card(folder), language=None, wrap_lines=True)


def _curves(log: pd.DataFrame, steps: int, key: str) -> None:
    st.plotly_chart(training_curves(log, steps), key=key, config={"displayModeBar": False})


def _latest(log: pd.DataFrame) -> str:
    last = log.iloc[-1]
    return (
        f"Step {int(last['step']) + 1:,}: explained variance {last['explained_variance']:.3f}, loss {last['loss']:.3f}, "
        f"{last['dead_share']:.1%} dead, learning rate {last['learning_rate']:.2g}. These are of training batches, not of "
        f"held-out text."
    )


def _said(begun: Unfinished) -> str:
    request = begun.request
    far = f"step {begun.done:,} of {begun.steps:,}" if begun.done else "states not all collected yet"
    far = "a process is at it now" if begun.busy else far
    return (
        f"{markdown(request.model)}, point {request.point}, {request.width} latents, k = {request.k}, "
        f"up to {request.tokens:,} tokens, {request.epochs:g} epochs · {far}"
    )


def _told(value: float | None, form: str) -> str:
    return "undefined" if value is None else form.format(value)


def _card(folder: Path) -> str:
    try:
        return (folder / "README.md").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return "It brings no card."
