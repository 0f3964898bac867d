"""TRY: the same text changed in one respect, run as a second run with one click, and what became of it."""

import streamlit as st

from app.components.comparison import open_comparison
from app.components.progress import show_progress
from app.components.saying import say
from app.jobs import Key
from app.methods import section
from app.outcome import Largest, Outcome, outcome
from app.text import markdown, visible
from app.view import View
from probes.errors import BadRequest
from probes.request import RunRequest
from probes.variations import Variation, Varied

__all__ = ["tries"]

_ASKED = "_tries"  # session key: the variations asked of each run, the newest first
_PATIENCE = 0.3  # seconds; a job this short needs no progress bar
_LABELS = {
    "no_bos": "without BOS",
    "first_token": "another first token",
    "chat": "chat template",
    "shuffled": "tokens shuffled",
    "twice": "passage twice",
    "own": "own text",
}
_HELP = {
    "no_bos": "Leave out the BOS token that the text begins with.",
    "chat": "The text as one message of a user, in the model's own template.",
    "shuffled": "All tokens but the first, in another order.",
    "twice": "The text once more behind itself, without a second BOS token.",
}


def tries(view: View) -> None:
    """The row of buttons, and under it an outcome for each variation asked of this run, the newest first."""
    with st.container(horizontal=True, vertical_alignment="center", gap="xsmall", key="tries"):
        st.markdown("**Try**", help=section("try", "What each one answers"), width="content")
        for kind, label in _LABELS.items():
            _option(view, kind, label)
    with st.container(gap="xxsmall", key="tried"):
        for variation in _asked(view):
            _answer(view, variation)


def _option(view: View, kind: str, label: str) -> None:
    reason = view.memo(("try", kind), lambda: _reason(view, kind))
    typed = kind in ("first_token", "own")
    if reason is not None or not typed:
        st.button(
            label,
            key=f"try-{kind}",
            on_click=None if typed else _ask,
            args=() if typed else (view, Variation(kind)),
            disabled=reason is not None,
            help=_HELP.get(kind) if reason is None else markdown(reason),
        )
        return
    popover = f"try-{kind}-open"
    with st.popover(label, key=popover, on_change="rerun"), st.form(f"try-{kind}-form", border=False):
        key = f"try-{kind}-text"
        if kind == "own":
            st.text_area("A text of your own", key=key, max_chars=20_000, height=140, width=420)
        else:
            instead = view.memo("another first token", lambda: _another(view))
            st.text_input("First token: a word or a special token", key=key, placeholder=instead, width=320)
        st.form_submit_button("Run", type="primary", on_click=_ask_typed, args=(view, kind, key, popover))


def _reason(view: View, kind: str) -> str | None:
    """Why a variation cannot be made of this run, or None."""
    try:
        if kind in ("first_token", "own"):
            view.services.tokenizer(view.info.model)
        else:
            view.services.varied(view.result, Variation(kind))
    except (BadRequest, OSError) as problem:
        return str(problem)
    return None


def _another(view: View) -> str:
    """The first token that is taken when none is typed."""
    try:
        request, _ = view.services.varied(view.result, Variation("first_token"))
    except BadRequest:
        return "The"
    return visible(view.decode(request.token_ids[:1])[0])


def _ask_typed(view: View, kind: str, key: str, popover: str) -> None:
    text = st.session_state[key]
    st.session_state[popover] = False
    try:
        variation = Variation(kind, text or None)
    except BadRequest as problem:
        say(markdown(str(problem)))
        return
    _ask(view, variation)


def _ask(view: View, variation: Variation) -> None:
    others = [known for known in _asked(view) if known != variation]
    st.session_state[_ASKED] = {**st.session_state.get(_ASKED, {}), view.info.run_id: (variation, *others)}
    job = view.services.desk.get(_key(view, variation))
    if job is not None and job.error is not None:
        view.services.try_(view.result, variation)  # asked anew, so tried anew


def _asked(view: View) -> tuple[Variation, ...]:
    known: tuple[Variation, ...] = st.session_state.get(_ASKED, {}).get(view.info.run_id, ())
    return known


def _answer(view: View, variation: Variation) -> None:
    """The outcome if the store has it; else the job's progress, or why there is none."""
    held = view.services
    name = _name(variation)
    try:
        request, varied = view.memo(("varied", variation), lambda: held.varied(view.result, variation))
    except (BadRequest, OSError) as problem:
        st.warning(f"{name}: {markdown(str(problem))}")
        return
    if held.tried(view.result, request) is None:
        job = held.desk.get(_key(view, variation)) or held.try_(view.result, variation)
        if not job.wait(_PATIENCE):
            show_progress(job)
            return
        if job.error is not None:
            st.warning(f"{name}: {markdown(job.error)}")
            return
    _told(view, variation, name, request, varied)


def _told(view: View, variation: Variation, name: str, request: RunRequest, varied: Varied) -> None:
    second = view.services.tried(view.result, request)
    if second is None:
        st.warning(f"{name}: the run was made, but the store no longer holds it.")
        return
    alignment = None if variation.kind == "own" else varied.alignment
    read: Outcome = view.memo(("outcome", variation), lambda: outcome(view.result, second, alignment))
    line, button = st.columns([9, 1], gap="small", vertical_alignment="center")
    line.markdown(f":small[**{name}**: {_said(read)}]")
    if button.button("Compare", key=f"compare-{second.info.run_id}", type="tertiary", help="Both runs side by side"):
        open_comparison(view.info.run_id, second.info.run_id, alignment)


def _said(read: Outcome) -> str:
    a, b = read.scored
    of = f"({a:,} tokens both predict)" if a == b else f"({a:,} and {b:,} tokens)"
    parts = [
        f"perplexity {_pair(read.perplexity, '{:,.1f}')} {of}",
        f"largest activation {_largest(*read.largest)}",
        f"sink heads {_pair(read.sinks, '{:.0f} %', 100)}",
    ]
    return " · ".join(parts)


def _pair(values: tuple[float | None, float | None], form: str, times: int = 1) -> str:
    return " → ".join("undefined" if value is None else form.format(times * value) for value in values)


def _largest(a: Largest | None, b: Largest | None) -> str:
    """Both values; the place once where it is the same."""
    known = [("not known", "") if one is None else (f"{one.value:,.0f}", _place(one)) for one in (a, b)]
    if a is not None and b is not None and a.place == b.place:
        return f"{known[0][0]} → {known[1][0]} {known[0][1]}"
    return " → ".join(f"{value} {place}".strip() for value, place in known)


def _place(one: Largest) -> str:
    return f"(point {one.point}, position {one.position}, dimension {one.dimension})"


def _name(variation: Variation) -> str:
    label = _LABELS[variation.kind]
    if variation.text is None:
        return label
    text = variation.text if len(variation.text) <= 40 else variation.text[:39] + "…"
    return f"{label} {markdown(visible(text))}"


def _key(view: View, variation: Variation) -> Key:
    return ("try", view.info.run_id, variation)
