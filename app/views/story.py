"""The story of one number: a guided page made of live views of the open run and of passes it plans itself."""

import streamlit as st

from app.components.actions import after
from app.components.backend import services
from app.components.explore import extra
from app.components.panel import show
from app.components.progress import show_progress
from app.components.workspace import open_run
from app.panels.story import HEADS, NO_STORY, alpha_curve, birth_of, damage_table, runners_of, trace_table
from app.services import Services
from app.state import current
from app.story import Birth, Plan, make_plan, missing, submit
from app.story_text import born, damaged, position_not_token, sinks_begin, written
from app.text import markdown
from app.view import Gap, View
from probes.errors import BadRequest
from probes.runner import RunResult

__all__ = ["page"]

_WHOLE = "_story-whole"  # session key: the first pass of the story whose passes are all stored


def page() -> None:
    """Draw the page."""
    result = open_run("One number", "The largest activation of this text: who writes it, and what hangs on it?")
    if result is not None:
        _body(result)


@st.fragment
def _body(result: RunResult) -> None:
    view = View(services(), result, current())
    try:
        birth = birth_of(view)
    except Gap:
        st.info(NO_STORY)
        return
    _birth(view, birth)
    _sinks(view, birth)
    try:
        plan = view.memo("story", lambda: make_plan(view.services, result, birth))
    except BadRequest as problem:
        st.warning(markdown(str(problem)))
    else:
        if _ready(view.services, plan):
            _passes(view, plan)
    _alpha(view)
    _heads(view)
    after()


def _birth(view: View, birth: Birth) -> None:
    st.markdown(f"#### One number in {_count(view)}\n{born(view.result, birth, view.tokens)}")
    left, right = st.columns(2)
    with left:
        show(view, "story-birth")
    with right:
        show(view, "story-writers")
    st.markdown(written(birth))


def _count(view: View) -> str:
    count = (view.facts.n_layers + 1) * len(view.tokens) * view.facts.d_model
    return f"{count / 1e6:.1f} million" if count >= 1e6 else f"{count:,}"


def _sinks(view: View, birth: Birth) -> None:
    st.markdown(f"#### Then heads come to rest on position 0\n{sinks_begin(view.result, birth)}")
    show(view, "story-sinks")


def _ready(held: Services, plan: Plan) -> bool:
    """Whether every pass of the story is stored; otherwise a button that runs them, or how far they are."""
    name = plan.requests()[0][0]
    if st.session_state.get(_WHOLE) == name:
        return True
    left = missing(held, plan)
    if left == 0:
        st.session_state[_WHOLE] = name  # some forty runs: looked up once, not at every click
        return True
    job = held.desk.get(("story", plan.requests()[0][0]))
    if job is not None and job.active:
        show_progress(job)
        return False
    if job is not None and job.error is not None:
        st.warning(markdown(job.error))
    st.markdown("#### What hangs on it")
    if st.button(f"Run the {left} passes the rest of the story needs", type="primary", key="story-run"):
        submit(held, plan)
        st.rerun(scope="fragment")
    return False


def _passes(view: View, plan: Plan) -> None:
    """What is told from the story's own passes; should the store have dropped one since, why not."""
    try:
        _damage(view, plan)
        _masked(view, plan)
        _traces(view, plan)
    except Gap as gap:
        del st.session_state[_WHOLE]
        st.warning(str(gap))


def _damage(view: View, plan: Plan) -> None:
    runners = runners_of(plan.tests)
    st.markdown(f"#### What hangs on it\n{damaged(damage_table(view, runners), plan)}")
    show(view, "story-damage", runners=runners)


def _masked(view: View, plan: Plan) -> None:
    if plan.sink is not None:
        show(view, "story-masked")


def _traces(view: View, plan: Plan) -> None:
    st.markdown(f"#### Position, not token\n{position_not_token(trace_table(view), plan.birth)}")
    for reason in plan.skipped:
        st.caption(markdown(reason))
    show(view, "story-traces")


def _alpha(view: View) -> None:
    try:
        point, curve = alpha_curve(view)
    except Gap:
        show(view, "story-alpha")
        return
    defined = curve["alpha"].dropna()
    st.markdown(
        "#### And a number that depends on how it is asked for\n"
        f"Whether one row of {len(view.tokens)} dwarfs all others is a matter of preparation to a spectrum: at point {point} "
        f"alpha lies between {defined.min():.2f} and {defined.max():.2f} over {len(defined)} conventions."
    )
    show(view, "story-alpha")


def _heads(view: View) -> None:
    st.markdown("#### Which head does the text need most?")
    if extra(view, HEADS, label="Set every head to zero, one after another (minutes)") is not None:
        show(view, "story-heads")
