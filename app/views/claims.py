"""Claims: what papers report, tested on a model here: verdicts with intervals and controls, one click for one or all."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd
import streamlit as st

from app.claims import claims_job, claims_key, claims_table, interval, other_models
from app.components.actions import after
from app.components.backend import services
from app.components.keeping import local
from app.components.panel import show
from app.components.progress import show_progress
from app.jobs import Job
from app.methods import section
from app.services import Services
from app.sweeps import facts_of
from app.text import csv_bytes, markdown, number
from app.view import View, run_bounds
from probes.claims.claim import VERDICTS, Claim
from probes.claims.registry import claims
from probes.claims.running import Ask, Finding, kept_findings
from probes.model.catalog import EMBEDDED
from probes.prompts.library import all_sets
from probes.prompts.sets import BUILT_IN

__all__ = ["page"]

_QUESTION = "Does what papers report hold on this model, with these prompts?"
_MODEL, _BESIDE, _SET, _CONTROL = "claims-model", "claims-beside", "claims-set", "claims-shuffled"
_NONE, _OWN = "none", "each claim's own"
_CHOSEN = (
    "_claims-chosen"  # session key: model, the one beside it and the control, kept while other pages are looked at
)
_OPEN = "_claims-open"  # session key: the claim whose text is shown
_SHARED = ("verdict", "effect", "low", "high")  # columns of the model beside
_MANY = {"holds": "hold", "does not hold": "do not hold", "cannot be tested here": "cannot be tested here"}


@dataclass(frozen=True, slots=True)
class _Choice:
    """What the page shows: a model, one beside it, a set (None: each claim's own), and whether labels are shuffled."""

    model: str
    beside: str | None
    prompts: str | None
    shuffled: bool

    def ask(self, *names: str) -> Ask:
        return Ask(names, self.model, self.prompts, other_models(self.model), shuffled=self.shuffled)

    def shown(self) -> list[Claim]:
        """The claims that can be tested this way."""
        return [claim for claim in claims() if claim.shuffles is not None or not self.shuffled]

    def findings(self, held: Services, model: str | None) -> Mapping[str, Finding]:
        facts = None if model is None else facts_of(held, model)
        return {} if facts is None else kept_findings(held.store, facts, self.prompts, shuffled=self.shuffled)

    def job(self, held: Services) -> Job | None:
        return held.desk.get(claims_key(self.model, self.prompts, self.shuffled))


def page() -> None:
    """Draw the page."""
    st.markdown(f"**Claims** :gray[{_QUESTION}]")
    held = services()
    names = held.model_names()
    if not names:
        st.write("No model is installed yet: the page *Models* fetches one.")
        return
    choice = _choose(held, names)
    findings, beside = choice.findings(held, choice.model), choice.findings(held, choice.beside)
    _running(held, choice, findings)
    chosen = _table(choice, findings, beside)
    if chosen is not None:
        _one(held, choice, chosen, findings.get(chosen.name))
    view = _view(held, choice.model) if findings and not choice.shuffled else None
    if view is not None:
        show(view, "claims-effects", prompts=choice.prompts or "")
    with st.expander("How to read it / when not to trust it"):
        st.markdown(section("claims", "Reading an outcome"))
    after()


def _choose(held: Services, names: list[str]) -> _Choice:
    """Model, second model, set and control, as they were left."""
    first = EMBEDDED if EMBEDDED in names else names[0]
    kept = st.session_state.get(_CHOSEN, {})
    sets = [_OWN, *(one.name for one in all_sets(held.store) if local() or one.source == BUILT_IN)]
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small", key="claims-chooser"):
        _as_left(_MODEL, kept, names, first)
        model = st.selectbox("Model", names, key=_MODEL, width=280)
        rest = [_NONE, *(name for name in names if name != model)]
        _as_left(_BESIDE, kept, rest, _NONE)
        beside = st.selectbox("Beside it", rest, key=_BESIDE, width=280, disabled=len(rest) == 1)
        _as_left(_SET, kept, sets, _OWN)
        prompts = st.selectbox("Prompt set", sets, key=_SET, width=200)
        _as_left(_CONTROL, kept, [False, True], False)
        shuffled = st.checkbox(
            "Shuffled labels", key=_CONTROL,
            help="The control of the bench: groups, answers and losses are permuted, so that nothing should hold.",
        )  # fmt: skip
    st.session_state[_CHOSEN] = {key: st.session_state[key] for key in (_MODEL, _BESIDE, _SET, _CONTROL)}
    return _Choice(model, None if beside == _NONE else beside, None if prompts == _OWN else prompts, shuffled)


def _as_left(key: str, kept: Mapping[str, object], known: Sequence[object], first: object) -> None:
    """Let a widget that is drawn next hold what it held; Streamlit forgets it while another page is looked at."""
    if st.session_state.get(key, kept.get(key)) not in known:
        st.session_state[key] = first
    st.session_state.setdefault(key, kept.get(key, first))


def _running(held: Services, choice: _Choice, findings: Mapping[str, Finding]) -> None:
    """What runs, or a button that runs what is left."""
    job = choice.job(held)
    if job is not None and job.active:
        show_progress(job)
        return
    if job is not None and job.error is not None:
        st.info(markdown(job.error))
    every = choice.shown()
    left = [claim.name for claim in every if claim.name not in findings]
    verdicts = [one.outcome.verdict for one in findings.values()]
    counts = ", ".join(f"{verdicts.count(one)} {_MANY[one]}" for one in VERDICTS if one in verdicts)
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key="claims-status"):
        st.markdown(f"**{len(every)} claims** · {len(findings)} tested{': ' if counts else ''}{counts}")
        if local() and left:
            label = "Test all" if len(left) == len(every) else f"Test the other {len(left)}"
            if st.button(label, type="primary", key="claims-all"):
                claims_job(held, choice.ask(*left))
                st.rerun()


def _table(choice: _Choice, findings: Mapping[str, Finding], others: Mapping[str, Finding]) -> Claim | None:
    """Every claim with its outcome; the one whose row was clicked."""
    every = choice.shown()
    untested: dict[str, object] = {"verdict": "not tested yet"}
    rows = []
    for claim in every:
        one, other = findings.get(claim.name), others.get(claim.name)
        row: dict[str, object] = {"claim": claim.title, "set": choice.prompts or claim.prompts}
        row |= untested if one is None else _numbers(one)
        beside = untested if other is None else _numbers(other)
        rows.append(row | {f"{name} beside": beside.get(name) for name in _SHARED})
    columns = ["claim", "verdict", "effect", "low", "high", "control", "unit", "n"]
    columns += [] if choice.beside is None else [f"{name} beside" for name in _SHARED]
    table = (
        pd.DataFrame(rows)[[*columns, "set"]] if findings or others else pd.DataFrame(rows)[["claim", "verdict", "set"]]
    )
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
        said = "" if choice.beside is None else f" · beside: {markdown(choice.beside)}"
        st.markdown(f":small[:gray[a click on a row opens the claim, on a heading sorts{said}]]")
        whole = claims_table([*findings.values(), *others.values()])
        st.download_button(
            "CSV", lambda: csv_bytes(whole), "claims.csv", "text/csv", key="claims-csv", type="tertiary", on_click="ignore",
        )  # fmt: skip
    numeric = {
        name: st.column_config.NumberColumn(format="%.3g", width=70)
        for name in table.columns
        if name.split()[0] in ("effect", "low", "high", "control")
    }
    event = st.dataframe(
        table, hide_index=True, key=f"claims-table-{choice.shuffled}", on_select="rerun", height="content",
        selection_mode=["single-row", "single-cell"],
        column_config={
            "claim": st.column_config.TextColumn(width=300), "verdict": st.column_config.TextColumn(width=140),
            "unit": st.column_config.TextColumn(width=190), "n": st.column_config.NumberColumn(width=50),
            "set": st.column_config.TextColumn("prompt set", width=120), **numeric,
        },
    )  # fmt: skip
    chosen = [*event.selection.rows, *(cell[0] for cell in event.selection.cells)]
    if chosen and chosen[0] < len(every):
        st.session_state[_OPEN] = every[chosen[0]].name
    return next((claim for claim in every if claim.name == st.session_state.get(_OPEN)), None)


def _numbers(one: Finding) -> dict[str, object]:
    outcome = one.outcome
    return {
        "verdict": outcome.verdict, "effect": outcome.effect, "low": outcome.low, "high": outcome.high,
        "unit": outcome.unit, "control": outcome.control, "n": outcome.n or None,
    }  # fmt: skip


def _one(held: Services, choice: _Choice, claim: Claim, found: Finding | None) -> None:
    """All of one claim: what is reported, how it is tested, what came out and why."""
    with st.container(border=True, key="claims-one"):
        head, button = st.columns([5, 1], vertical_alignment="center")
        head.markdown(f"**{claim.title}** :small[:gray[{markdown(claim.paper)}]]")
        job = choice.job(held)
        idle = job is None or not job.active
        if local() and idle and (found is None or found.outcome.verdict == "cannot be tested here"):
            label = "Test it" if found is None else "Try again"
            if button.button(label, key="claims-one-run", width="stretch"):
                claims_job(held, choice.ask(claim.name))
                st.rerun()
        if found is not None:
            _outcome(found)
        words = {"Reported": claim.reported, "Tested here": claim.tested, "Rule": claim.rule}
        words["When not to trust it"] = claim.distrust
        if choice.shuffled:
            words["Shuffled"] = str(claim.shuffles)
        for name, text in words.items():
            st.markdown(f":small[**{name}** {markdown(text)}]")
        if found is not None and found.outcome.details:
            with st.expander("Numbers behind it"):
                st.dataframe(pd.DataFrame(found.outcome.details), hide_index=True, key=f"claims-details-{claim.name}")


def _outcome(found: Finding) -> None:
    outcome = found.outcome
    said = f"**{outcome.verdict.capitalize()}.** {markdown(outcome.reason)}"
    if outcome.effect is not None:
        said += f"  \nEffect {markdown(interval(outcome))}, over {outcome.n} {markdown(outcome.of)}."
    if outcome.control is not None:
        said += f" Control {number(outcome.control)}: {markdown(outcome.control_is)}."
    st.markdown(said)


def _view(held: Services, model: str) -> View | None:
    """A run of the model to hang the panel on, so that sessions and reports can hold it."""
    result = held.latest(model)
    if result is None:
        runs = held.store.runs()
        of_model = runs[runs["model"] == model]["run_id"]
        result = None if of_model.empty else held.open(str(of_model.iloc[0]))
    return None if result is None else View(held, result, run_bounds(result).start())
