"""Compare groups: one number of a prompt set, group against group, layer by layer, with every control."""

import dataclasses

import streamlit as st

from analysis.outliers import outlier_prompts
from app.components.actions import after
from app.components.backend import services
from app.components.group_models import other_model
from app.components.opening import open_panel
from app.components.panel import show
from app.components.set_choice import choose_set, load_first
from app.components.set_progress import set_ready
from app.components.shell import page_of
from app.groups import UNGROUPED, GroupAsk, compared, matched_ask, matched_length, measured, metric_names
from app.jobs import sentence
from app.methods import section
from app.panels.groups import options_of, titled
from app.panels.panel import Click
from app.services import Services
from app.state import arrive, current, settle
from app.sweeps import facts_of
from app.text import markdown, printable
from app.view import View, run_bounds
from probes.errors import BadRequest
from probes.set_sweep import SetAsk

__all__ = ["page"]

_QUESTION = "Do two kinds of prompts differ in a number, at which layers, and how sure is that?"
_FIRST, _SECOND, _METRIC, _LENGTH = "groups-first", "groups-second", "groups-metric", "groups-n"
_OPEN = "_groups-open"  # session key: the run of a prompt that was clicked
_PREFERRED = ("reasoning", "factual")
_OUT = 12


def page() -> None:
    """Draw the page."""
    st.markdown(f"**Compare groups** :gray[{_QUESTION}]")
    held = services()
    names = held.model_names()
    if not names:
        st.write("No model is installed yet: the page *Models* fetches one.")
        return
    link = arrive()
    wrong = None if link is None else open_panel(link.beside)
    if wrong is not None:
        st.warning(markdown(wrong))
    asked = choose_set(held, names)
    if facts_of(held, asked.like.model) is None:
        load_first(held, asked.like.model)
        return
    try:
        ask = _sides(held, asked)
        if ask is not None:
            _compare(held, ask)
    except (BadRequest, OSError) as problem:
        st.error(markdown(sentence(problem)))
    after()


def _sides(held: Services, asked: SetAsk) -> GroupAsk | None:
    """What is compared with what, once the set was run; otherwise the way there."""
    groups = list(dict.fromkeys(prompt.group or UNGROUPED for prompt in asked.prompts.prompts))
    if len(groups) < 2:
        st.info(f"{markdown(asked.prompts.name)} has one group only: a comparison takes two. Choose another set.")
        return None
    if not set_ready(held, asked, "Run", "groups-run"):
        return None
    usual = [*(one for one in _PREFERRED if one in groups), *(one for one in groups if one not in _PREFERRED)]
    for key, before in ((_FIRST, usual[0]), (_SECOND, usual[1])):
        if st.session_state.get(key) not in groups:
            st.session_state[key] = before
    found = measured(held, GroupAsk(asked, usual[0], usual[1]))
    metrics = metric_names(held, found.values.run_ids)
    if st.session_state.get(_METRIC) not in metrics:
        st.session_state[_METRIC] = "alpha_sigma"
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small", key="groups-chooser"):
        first = st.selectbox("Group", groups, key=_FIRST, width=180, format_func=printable)
        second = st.selectbox("against", groups, key=_SECOND, width=180, format_func=printable)
        metric = st.selectbox("Metric", metrics, key=_METRIC, width=340, format_func=titled)
        ask = GroupAsk(asked, first, second, metric)
        if first == second:
            st.warning("Choose two different groups.")
            return None
        options, why = _lengths(held, ask)
        if st.session_state.get(_LENGTH) not in options:
            st.session_state[_LENGTH] = 0
        n = st.selectbox(
            "Length", options, key=_LENGTH, width=230,
            format_func=lambda one: f"matched: {one} tokens each" if one else "every prompt whole",
            help="Alpha and other numbers of geometry move with the number of tokens alone. Matched: 20 windows of this many "
            "tokens from each prompt, averaged.",
        )  # fmt: skip
    if why:
        st.caption(markdown(why))
    return dataclasses.replace(ask, n=n)


def _lengths(held: Services, ask: GroupAsk) -> tuple[list[int], str]:
    """The lengths the groups can be compared at, 0 for whole prompts, and why there is no matched one."""
    try:
        longest = matched_length(held, ask)
    except BadRequest as problem:
        return [0], str(problem)
    return sorted({0, longest, min(16, longest)}), ""


def _compare(held: Services, ask: GroupAsk) -> None:
    """The comparison of what was run."""
    if ask.n and not set_ready(held, matched_ask(ask.asked, ask.n), "Match", "groups-match"):
        return
    if ask.n and ask.metric not in metric_names(
        held, measured(held, dataclasses.replace(ask, metric="alpha_sigma")).values.run_ids
    ):
        st.info(f"{titled(ask.metric)} is not computed at a matched length: alpha under every convention, effective rank, "
                "participation ratio, stable rank, entropy and anisotropy are.")  # fmt: skip
        return
    _, found = compared(held, ask)
    result = held.open(found.runs[0])
    assert result is not None
    for problem in settle(result.info.model, result.info.run_id, result.info.mask, run_bounds(result)):
        st.warning(markdown(problem))
    _panels(View(held, result, current()), ask)
    other_model(View(held, result, current()), ask)


@st.fragment
def _panels(view: View, ask: GroupAsk) -> None:
    opened = st.session_state.pop(_OPEN, None)
    if opened is not None:
        st.switch_page(page_of("overview"), query_params={"run": opened})
    view = dataclasses.replace(view, selection=current())
    options = options_of(ask)
    show(view, "groups-means", **options)
    show(view, "groups-difference", **options)
    _prompts(view, ask)
    if ask.n:
        _conventions(view, ask)
    else:
        st.caption("Choose a matched length to see whether the sign survives every convention of alpha.")
    with st.expander("How to read it / when not to trust it"):
        st.markdown(section("statistics", "Two groups"))
    after()


def _prompts(view: View, ask: GroupAsk) -> None:
    """Every prompt as a column; those that stand out of their group, each a click from its Overview."""
    found = measured(view.services, ask)
    runs = [
        run
        for group in (ask.first, ask.second)
        for run, own in zip(found.runs, found.groups, strict=True)
        if own == group
    ]

    def open_prompt(click: Click) -> None:
        place = click.x if isinstance(click.x, int | float) else -1
        if 0 <= round(place) < len(runs):
            st.session_state[_OPEN] = runs[round(place)]

    left, right = st.columns([2.2, 1], gap="medium")
    with left:
        colour = st.segmented_control("Colour", ["value", "z"], default="value", required=True, key="groups-colour",
                                      format_func={"value": "value", "z": "distance from its group"}.__getitem__)  # fmt: skip
        show(
            view,
            "groups-prompts",
            on_click=open_prompt,
            question="A click opens the prompt",
            **options_of(ask),
            colour=colour,
        )
    with right:
        _outliers(view, ask)


def _outliers(view: View, ask: GroupAsk) -> None:
    found = measured(view.services, ask)
    rows = []
    for group in (ask.first, ask.second):
        places = [place for place, own in enumerate(found.groups) if own == group]
        table = outlier_prompts(found.values.values[places])
        table = table[table["outlier"]]
        rows += [
            (found.ids[places[row.prompt]], group, row.layer, row.z, found.runs[places[row.prompt]])
            for row in table.itertuples()
        ]
    st.markdown("**Prompts that stand out** :small[:gray[robust z above 3.5 in their group; a click opens one]]")
    if not rows:
        st.caption("None does at any point.")
        return
    rows.sort(key=lambda row: -abs(row[3]))
    shown = [
        {"prompt": printable(one), "group": printable(group), "point": layer, "z": z}
        for one, group, layer, z, _ in rows[:_OUT]
    ]
    state = st.dataframe(shown, hide_index=True, key="groups-outliers", on_select="rerun", selection_mode="single-cell",
                         column_config={"z": st.column_config.NumberColumn(format="%.1f")}, height="content")  # fmt: skip
    if state.selection.cells:
        st.switch_page(page_of("overview"), query_params={"run": rows[state.selection.cells[0][0]][4]})


def _conventions(view: View, ask: GroupAsk) -> None:
    names = {"mean": "mean over points", "point": f"point {view.selection.point}"}
    where = st.segmented_control(
        "At", list(names), default="mean", required=True, key="groups-at", format_func=names.__getitem__
    )
    options = {name: value for name, value in options_of(ask).items() if name != "metric"}
    show(view, "groups-conventions", **options, overall=where == "mean", layer=view.selection.point)
