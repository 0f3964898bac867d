"""What a test found: the cost beside its controls, sinks, along the text, and the answers before and after."""

from collections.abc import Callable
from typing import Any

import pandas as pd
import streamlit as st

from app.components.comparison import open_comparison
from app.components.panel import show
from app.components.progress import show_progress
from app.components.reading import choice
from app.figures.effect import effect_bars
from app.panels.test import as_target, costs, told
from app.text import markdown, number, visible
from app.trial import EFFECTS, Test, edited_request, submit, summary
from app.view import View
from probes.runner import RunResult

__all__ = ["growing", "head", "whole"]

_TOP = 5
_SHORT = {
    "nll": "loss",
    "effect_kl": "KL",
    "effect_dlp": "log-prob lost",
    "effect_hellinger": "Hellinger",
    "effect_jsd": "JSD",
    "effect_flip": "flips",
}


def head(test: Test, close: Callable[[], None]) -> None:
    """What is tested, and a button that closes it."""
    with st.container(horizontal=True, horizontal_alignment="distribute", vertical_alignment="center"):
        st.markdown(f"**Test: {told(test)}**")
        st.button("Close", key="test-close", on_click=close, type="tertiary")


def growing(view: View, test: Test) -> None:
    """Start the test and show what there is of it; look again until it is whole, then draw the page anew."""
    held = view.services
    found = test.found(held)
    if len(found) == len(test.trials):
        st.rerun(scope="app")
    job = held.desk.get(test.key) or submit(held, test)
    if job.active:
        with st.container(horizontal=True, vertical_alignment="center"):
            left = "" if job.eta is None else f", about {job.eta:.0f} s left"
            st.progress(job.fraction, text=f"{len(found)} of {len(test.trials)} passes; now {markdown(job.what)}{left}")
            st.button("Cancel", key="test-cancel", on_click=job.cancel, type="tertiary")
    else:
        st.warning(markdown(job.error or "The passes were made, but the store no longer holds all of them."))
        if st.button("Try again", key="test-again"):
            submit(held, test)
            st.rerun(scope="fragment")
    if found:
        table = summary(found)
        st.markdown(_headline(table))
        st.plotly_chart(effect_bars(table), key=f"test-growing-{len(found)}", config={"displayModeBar": False})


def whole(view: View, test: Test, target: RunResult) -> None:
    """A test all of whose passes are there; ``target`` is the answer to the first."""
    st.markdown(_headline(costs(view, test)))
    asked: dict[str, Any] = {"target": as_target(test), "how": test.how}
    left, right = st.columns([1.25, 1])
    with left:
        show(view, "test-perplexity", title="What the text costs", **asked)
    with right:
        show(view, "test-sinks", title="Sink heads", **asked)
    measure = choice("Measure", {name: _SHORT[name] for name in EFFECTS}, "test-measure")
    show(view, "test-along", title="Along the text", measure=measure, **asked)
    _answers(view, target)
    _whole_run(view, test)


def _headline(table: pd.DataFrame) -> str:
    clean, target = table.iloc[0], table.iloc[1]
    controls = table.loc[table["role"] == "control", "perplexity"].astype(float).dropna()
    said = f"Perplexity **{number(clean['perplexity'])} → {number(target['perplexity'])}**"
    if len(controls):
        ends = dict.fromkeys((number(controls.min()), number(controls.max())))
        said += f"; {len(controls)} control{'s' * (len(controls) > 1)} {' to '.join(ends)}"
    if pd.notna(target["effect_kl"]):
        said += f". KL {number(target['effect_kl'])} nats, "
        said += f"another likeliest token at {target['effect_flip']:.0%} of the positions"
    if pd.notna(target["sink_share_on"]):
        said += f", sink heads {clean['sink_share_on']:.0%} → {target['sink_share_on']:.0%}"
    return said + "."


def _answers(view: View, target: RunResult) -> None:
    """The likely next tokens at the selected position, before and after."""
    position = view.selection.position
    rows = target.table("lens_topk")
    rows = rows[(rows["pos"] == position) & (rows["rank"] <= _TOP)].sort_values("rank")
    columns = {}
    for variant, name in (("clean", "before"), ("edited", "after")):
        top = rows[rows["variant"] == variant]
        texts = view.decode(top["token_id"].tolist())
        columns[name] = [f"{visible(text)}  {prob:.3f}" for text, prob in zip(texts, top["prob"], strict=True)]
    following = view.token(position + 1) if position + 1 < len(view.tokens) else None
    st.caption(
        f"Likely next tokens at position {position} “{markdown(view.token(position))}”; the text "
        + (f"goes on with “{markdown(following)}”." if following is not None else "ends here.")
    )
    st.dataframe(pd.DataFrame(columns), hide_index=True, key="test-top", height="content", width=520)


def _whole_run(view: View, test: Test) -> None:
    """Every view of the edited run, beside the clean one."""
    held = view.services
    request = edited_request(view.result, test.trials[0])
    key = ("edited", test.key)
    job = held.desk.get(key)
    if job is not None and job.state == "done" and st.session_state.pop("_compare-test", False):
        open_comparison(view.info.run_id, str(job.result))
    if job is not None and job.active:
        show_progress(job)
        return
    if job is not None and job.error is not None:
        st.warning(markdown(job.error))
    if st.button("Every view of it: A, B and B − A", key="test-compare"):
        st.session_state["_compare-test"] = True
        held.run(request, key, "Every view of the edited run")
        st.rerun(scope="fragment")
