"""The story of one number: a guided page made of live views of the open run and of passes it plans itself."""

import pandas as pd
import streamlit as st

from app.components.backend import services
from app.components.explore import extra
from app.components.panel import panel
from app.components.plot_clicks import PlotClick
from app.components.progress import show_progress
from app.components.spectrum import convention_curve
from app.components.view import View
from app.components.workspace import open_run
from app.figures.effect import effect_bars, head_effects
from app.figures.massive import origin_bars, top_values
from app.figures.sinks import sink_share
from app.figures.specification import specification_curve
from app.figures.trace import trace_lines
from app.methods import section
from app.services import Services
from app.state import current, select
from app.story import Birth, Plan, damage, largest_birth, make_plan, missing, submit, traced
from app.story_text import born, damaged, position_not_token, sinks_begin, written
from app.text import markdown
from app.trial import summary
from probes.errors import BadRequest
from probes.request import ProbeCall
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
    birth = view.memo("largest birth", lambda: largest_birth(result))
    if birth is None:
        st.info("No block of this run writes a strictly massive activation: there is no such number to tell of.")
        return
    _birth(view, birth)
    _sinks(view, birth)
    try:
        plan = view.memo("story", lambda: make_plan(view.services, result, birth))
    except BadRequest as problem:
        st.warning(markdown(str(problem)))
    else:
        if _ready(view.services, plan):
            _damage(view, plan)
            _masked(view, plan)
            _traces(view, plan)
    _alpha(view, birth)
    _heads(view)


def _birth(view: View, birth: Birth) -> None:
    st.markdown(f"#### One number in {_count(view)}\n{born(view.result, birth, view.tokens)}")
    layers, massive = view.table("layer_metrics"), view.table("massive")
    rows = layers[layers["metric"].str.startswith("massive_")]
    left, right = st.columns(2)
    with left:
        panel(
            "story-birth",
            "Largest entries by point",
            "When is it born, and when does it die?",
            view.figure("massive-top", lambda: top_values(rows, massive, view.tokens, view.facts.n_layers)),
            how=section("massive", "Largest entries by point"),
            csv=rows,
            on_click=_go_point,
            x=view.selection.point,
        )
    events = view.table("massive_events")
    mine = events[(events["pos"] == birth.position) & (events["dim"] == birth.dim) & (events["birth"] == birth.birth)]
    with right:
        panel(
            "story-writers",
            f"Writers in block {birth.block}",
            "Attention or MLP, and which neurons?",
            view.figure("story-writers", lambda: origin_bars(mine.iloc[0], birth.neurons)),
            how=section("massive", "Birth, death and writers"),
            csv=birth.neurons,
        )
    st.markdown(written(birth))


def _count(view: View) -> str:
    count = (view.facts.n_layers + 1) * len(view.tokens) * view.facts.d_model
    return f"{count / 1e6:.1f} million" if count >= 1e6 else f"{count:,}"


def _sinks(view: View, birth: Birth) -> None:
    st.markdown(f"#### Then heads come to rest on position 0\n{sinks_begin(view.result, birth)}")
    layers = view.table("layer_metrics")
    rows = layers[layers["metric"].str.startswith("sink_")]
    panel(
        "story-sinks",
        "Share of sink heads",
        "From which point on are there sinks?",
        view.figure("sinks-share", lambda: sink_share(rows, view.facts.n_layers)),
        how=section("sinks", "Share of sink heads"),
        csv=rows,
        on_click=_go_point,
        x=float(birth.birth),
    )


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


def _damage(view: View, plan: Plan) -> None:
    table = view.memo("story damage", lambda: damage(view.services, plan))
    st.markdown(f"#### What hangs on it\n{damaged(table, plan)}")
    panel(
        "story-damage",
        "Perplexity after a change of one number",
        "Does it matter, and more than its controls?",
        view.figure("story-damage", lambda: effect_bars(table)),
        how=section("interventions", "Test it"),
        csv=table,
    )


def _masked(view: View, plan: Plan) -> None:
    if plan.sink is None:
        return
    table = view.memo("story sink", lambda: summary(plan.sink.found(view.services)) if plan.sink else pd.DataFrame())
    panel(
        "story-masked",
        f"Nobody may look at position {plan.birth.position}, from block {plan.sink.target.layer} on",
        "Are the sinks needed, or only there?",
        view.figure("story-masked", lambda: effect_bars(table)),
        how=section("interventions", "Test it"),
        csv=table,
    )


def _traces(view: View, plan: Plan) -> None:
    rows = view.memo("story traces", lambda: traced(view.services, plan))
    st.markdown(f"#### Position, not token\n{position_not_token(rows, plan.birth)}")
    for reason in plan.skipped:
        st.caption(markdown(reason))
    panel(
        "story-traces",
        f"Dimension {plan.birth.dim} under other first tokens",
        "Does the token make it, or the place?",
        view.figure("story-traces", lambda: trace_lines(rows, plan.birth.dim, view.facts.n_layers)),
        how=section("story", "Position, not token"),
        csv=rows,
        on_click=_go_point,
        x=view.selection.point,
    )


def _alpha(view: View, birth: Birth) -> None:
    point = min(birth.birth + round(view.facts.n_layers / 5), view.facts.n_layers)
    curve = convention_curve(view, point)
    defined = curve["alpha"].dropna()
    st.markdown(
        "#### And a number that depends on how it is asked for\n"
        f"Whether one row of {len(view.tokens)} dwarfs all others is a matter of preparation to a spectrum: at point {point} "
        f"alpha lies between {defined.min():.2f} and {defined.max():.2f} over {len(defined)} conventions."
    )
    panel(
        "story-alpha",
        f"Alpha of point {point} under every convention",
        "How much of the number is the convention?",
        view.figure("story-alpha", lambda: specification_curve(curve)),
        how=section("spectra", "Specification curve"),
        csv=curve,
    )


def _heads(view: View) -> None:
    st.markdown("#### Which head does the text need most?")
    call = ProbeCall("head_effects", {"positions": "all"})
    read = extra(view, call, label="Set every head to zero, one after another (minutes)")
    if read is None:
        return
    table = read.table("head_metrics")
    rows = table[(table["metric"] == "effect_nll") & table["value"].notna()]
    if rows.empty:
        st.caption("This text is too short: there is nothing to compare.")
        return
    top = rows.loc[rows["value"].idxmax()]
    panel(
        "story-heads",
        "Every head in turn",
        f"Largest: head {top['layer']}.{top['head']}, {top['value']:.3f} nats a token over {top['n_used']} tokens.",
        view.figure("story-heads", lambda: head_effects(table, "effect_nll")),
        how=section("interventions", "Heads"),
        csv=table,
        on_click=_go_head,
    )


def _go_point(click: PlotClick) -> None:
    select(point=round(float(click.x)))


def _go_head(click: PlotClick) -> None:
    select(point=round(float(click.y)) + 1, head=round(float(click.x)))
