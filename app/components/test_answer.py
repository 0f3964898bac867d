"""What a test found: the cost beside its controls, sinks, along the text, and the answers before and after."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import streamlit as st

from app.components.comparison import open_comparison
from app.components.panel import panel
from app.components.progress import show_progress
from app.components.reading import around, choice
from app.components.view import View
from app.figures.effect import effect_bars, effect_by_position, sink_shares
from app.methods import section
from app.state import select
from app.text import markdown, number, visible
from app.trial import EFFECTS, Test, edited_request, submit, summary
from probes.runner import RunResult
from probes.trials import Trial

__all__ = ["growing", "head", "whole"]

_TOKENS_SHOWN = 256
_TOP = 5


def head(test: Test, close: Callable[[], None]) -> None:
    """What is tested, and a button that closes it."""
    verb = "" if test.target.kind in ("sink", "key") else " set to zero" if test.how == "zero" else " set to its mean"
    place = f" at point {test.target.layer}" if test.target.kind in ("entry", "dimension") else ""
    with st.container(horizontal=True, horizontal_alignment="distribute", vertical_alignment="center"):
        st.markdown(f"**Test: {markdown(test.trials[0].label)}{place}{verb}**")
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


def whole(view: View, test: Test, found: tuple[tuple[Trial, RunResult], ...]) -> None:
    """A test all of whose passes are there."""
    table = view.services.memo.get(("summary", test.run_ids), lambda: summary(found))
    st.markdown(_headline(table))
    left, right = st.columns([1.25, 1])
    with left:
        panel(
            "test-perplexity",
            "What the text costs",
            "Does it matter, and more than its controls?",
            effect_bars(table),
            how=section("interventions", "Test it"),
            csv=table,
        )
    with right:
        _sinks(view, found)
    _along(view, found)
    _answers(view, found[0][1])
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


def _sinks(view: View, found: tuple[tuple[Trial, RunResult], ...]) -> None:
    layers = [(t, r, r.table("layer_metrics")) for t, r in found]
    curves = [(t.label, t.role, rows[rows["metric"] == "sink_share"]) for t, _, rows in layers]
    clean = view.metric("layer_metrics", "sink_share")
    none = curves[0][2].empty
    panel(
        "test-sinks",
        "Sink heads",
        "Do the heads still rest on position 0?",
        None if none else sink_shares(clean, curves, view.facts.n_layers),
        note="Below 32 tokens no head is called a sink." if none else None,
        how=section("interventions", "Sinks after a change"),
    )


def _along(view: View, found: tuple[tuple[Trial, RunResult], ...]) -> None:
    measure = choice("Measure", {name: _SHORT[name] for name in EFFECTS}, "test-measure")
    first, tokens = around(view, _TOKENS_SHOWN)
    clean = _of(found[0][1], "nll_clean")
    curves = []
    for trial, result in found:
        values = _of(result, measure) - (clean if measure == "nll" else 0.0)
        curves.append((trial.label, trial.role, values[first : first + len(tokens)]))
    panel(
        "test-along",
        "Along the text",
        "Which tokens lose it?",
        effect_by_position(curves, tokens, EFFECTS[measure], first=first),
        how=section("interventions", "Effect measures"),
        csv=lambda: pd.DataFrame({"token": list(tokens)} | {label: values for label, _, values in curves}),
        on_click=lambda click: select(position=round(float(click.x))),
        x=view.selection.position,
    )


_SHORT = {
    "nll": "loss",
    "effect_kl": "KL",
    "effect_dlp": "log-prob lost",
    "effect_hellinger": "Hellinger",
    "effect_jsd": "JSD",
    "effect_flip": "flips",
}


def _of(result: RunResult, metric: str) -> np.ndarray:
    rows = result.table("token_metrics")
    rows = rows[rows["metric"] == metric].sort_values("pos")
    values: np.ndarray = rows["value"].to_numpy(dtype=float)
    return values


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
