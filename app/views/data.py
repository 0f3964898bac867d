"""Data: one's own SQL over the result tables, its answer as a table and a quick chart."""

import io
import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

import pandas as pd
import streamlit as st

from app.components.actions import Shown, after
from app.components.backend import services
from app.components.keeping import keep_item, local
from app.components.panel import frame as framed
from app.components.progress import show_progress
from app.figures.quick import KINDS, Chart, Kind, is_number, quick_chart, suggest
from app.items import query_item
from app.jobs import Job
from app.methods import section
from app.panels.panel import Drawn
from app.services import Services
from app.text import csv_bytes, markdown, visible
from cache.query import ROWS, SECONDS, QueryResult
from probes.progress import Progress

__all__ = ["EXAMPLES", "page"]

EXAMPLES = {
    "alpha by layer": """SELECT m.layer, m.value, left(m.run_id, 6) || ' ' || r.model AS run
FROM layer_metrics m JOIN runs r USING (run_id)
WHERE m.metric = 'alpha_sigma' AND m.status = 'ok'
ORDER BY run, m.layer""",
    "most surprising tokens": """SELECT t.text, m.value AS nll, m.pos, left(m.run_id, 6) AS run
FROM token_metrics m JOIN runs r USING (run_id)
JOIN tokens t ON t.capture_id = r.capture_id AND t.pos = m.pos
WHERE m.metric = 'nll' AND m.status = 'ok'
ORDER BY nll DESC LIMIT 40""",
    "sink heads by run": """SELECT left(h.run_id, 6) || ' ' || r.model AS run, sum(h.value) AS sink_heads,
       count(h.value) AS heads, any_value(r.n_tokens) AS n_tokens
FROM head_metrics h JOIN runs r USING (run_id)
WHERE h.metric = 'is_sink'
GROUP BY ALL ORDER BY sink_heads DESC""",
    "runs by model": """SELECT model, count(*) AS runs, sum(n_tokens) AS tokens, max(created) AS newest
FROM runs GROUP BY model ORDER BY runs DESC""",
    "massive entries": """SELECT m.layer, abs(m.value) AS size, 'dimension ' || m.dim || ', position ' || m.pos AS entry,
       left(m.run_id, 6) AS run
FROM massive m WHERE m.strict
ORDER BY m.run_id, m.layer, size DESC""",
    "why values are missing": """SELECT metric, status, count(*) AS n
FROM layer_metrics WHERE value IS NULL
GROUP BY ALL ORDER BY n DESC""",
}

_SQL, _EXAMPLE = "data-sql", "data-example"  # widget keys
_TYPED, _ASKED, _CHART = "_data-typed", "_data-asked", "_data-chart"  # what outlives a visit to another page
_QUEUE = "queries of the Data page"  # one after another: they share the store's memory
_PATIENCE = 1.0  # seconds a query may take before its progress is shown
_ROWS_SHOWN = 2_000
_CELL = 300


@dataclass
class _Asked:
    """A query of this session: its job, and in ``answer`` what it gave."""

    sql: str
    rows: int
    job: Job
    answer: list[QueryResult] = field(default_factory=list)


def page() -> None:
    """Draw the page."""
    st.markdown("**Data** :gray[What does the store hold, in your own words?]")
    if not local():
        st.info("Queries are off where the server answers other machines: they can use much of its memory and time.")
        return
    held = services()
    if held.store.info()["runs"] == 0:
        st.caption("The store holds no runs yet, so a query finds no rows: open the Overview and run a text.")
    _form(held)
    if (asked := _asked()) is not None:
        _outcome(asked)
    _tables(held)
    after()


def _asked() -> _Asked | None:
    asked: _Asked | None = st.session_state.get(_ASKED)
    return asked


def _outcome(asked: _Asked) -> None:
    if asked.job.active:
        show_progress(asked.job)
    elif asked.answer:
        _result(asked.sql, asked.rows, asked.answer[0], asked.job.number)
    elif asked.job.state == "cancelled":
        st.info("The query was stopped.")
    else:
        st.error(markdown(asked.job.error or "The query gave no answer."))


def _form(held: Services) -> None:
    def take() -> None:
        if (chosen := st.session_state[_EXAMPLE]) is not None:
            st.session_state[_SQL] = EXAMPLES[chosen]

    st.session_state.setdefault(_SQL, st.session_state.get(_TYPED, next(iter(EXAMPLES.values()))))
    st.pills("Examples", list(EXAMPLES), key=_EXAMPLE, on_change=take, label_visibility="collapsed")
    with st.form("data-form", border=False):
        sql = st.text_area("SQL: one SELECT, run by the button or Ctrl + Enter", key=_SQL, height=150, max_chars=10_000)
        with st.container(horizontal=True, vertical_alignment="bottom"):
            run = st.form_submit_button("Run", type="primary")
            rows = st.number_input("Rows at most", ROWS[0], ROWS[2], ROWS[1], step=1000, width=160)
            seconds = st.number_input(
                "Seconds at most", *(SECONDS[0], SECONDS[2], SECONDS[1]), step=1.0, format="%.1f", width=160
            )
    st.session_state[_TYPED] = sql
    if run:
        _ask(held, sql, int(rows), float(seconds))


def _ask(held: Services, sql: str, rows: int, seconds: float) -> None:
    """Start the query in place of the one before."""
    answer: list[QueryResult] = []

    def work(progress: Progress) -> None:
        def watch(spent: float) -> None:
            progress.step(0.0, f"reading for {spent:.0f} s of at most {seconds:g} s")

        answer.append(held.store.query(sql, rows=rows, seconds=seconds, watch=watch))

    if (before := _asked()) is not None:
        before.job.cancel()
    job = held.desk.submit(_QUEUE, ("query", uuid.uuid4().hex), "Query", work)
    st.session_state[_ASKED] = _Asked(sql, rows, job, answer)
    job.wait(_PATIENCE)


def _tables(held: Services) -> None:
    left, right = st.columns(2)
    lines = []
    for table, rows in held.store.schema().groupby("table", sort=False):
        columns = " · ".join(f"{markdown(row.column)} :gray[{row.type.lower()}]" for row in rows.itertuples())
        lines.append(f"- **{markdown(str(table))}** :small[{columns}]")
    left.expander("Tables and columns").markdown("\n".join(lines))
    with right.expander("How to read it / when not to trust it"):
        st.markdown(section("data", "Your own question"))


def _result(sql: str, limit: int, result: QueryResult, number: int) -> None:
    frame = result.frame
    cut = ""
    if result.truncated:
        why = "the row limit" if len(frame) == limit else "a result has at most 64 MB"
        cut = f", cut at {len(frame):,} rows: {why}"
    st.markdown(f"**{len(frame):,} {'row' if len(frame) == 1 else 'rows'}** in {result.seconds:.2f} s{cut}")
    table, chart = st.columns(2)
    with table:
        if len(frame) > _ROWS_SHOWN:
            st.caption(f"The first {_ROWS_SHOWN:,} rows are shown; the files hold all.")
        height = min(420, 36 * (len(frame) + 1) + 3)
        st.dataframe(_shown(frame.head(_ROWS_SHOWN)), hide_index=True, height=height, key=f"data-table-{number}")
        with st.container(horizontal=True, gap="small"):
            st.download_button(
                "CSV",
                lambda: csv_bytes(frame),
                "data.csv",
                "text/csv",
                key="data-csv",
                type="tertiary",
                on_click="ignore",
            )
            st.button(
                "Keep",
                on_click=_keep,
                args=(sql, frame),
                key="data-keep",
                type="tertiary",
                help="Add this result to the session, as it is now",
            )
            st.download_button(
                "Parquet",
                lambda: _parquet(frame),
                "data.parquet",
                key="data-parquet",
                type="tertiary",
                on_click="ignore",
            )
    with chart:
        _draw(frame, number)


def _draw(frame: pd.DataFrame, number: int) -> None:
    """The chart, first as it was drawn last if it has these columns, otherwise as the columns suggest."""
    last: Chart | None = st.session_state.get(_CHART)
    fits = last is not None and {last.x, last.y, last.colour} - {None} <= set(frame.columns)
    first = last if fits else suggest(frame)
    if first is None:
        st.caption("There is nothing to draw: a chart needs a column of numbers and another column.")
        return
    names = [str(name) for name in frame.columns]
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        kind: Kind = st.selectbox("Chart", KINDS, KINDS.index(first.kind), key=f"data-kind-{number}", width=120)
        is_map = kind == "heatmap"
        if is_map != (first.kind == "heatmap"):
            first = suggest(frame, kind) or first
        ys = names if is_map else [name for name in names if is_number(frame[name])]
        key = f"{'map' if is_map else 'plain'}-{number}"
        x, y = _column("x", names, first.x, key), _column("y", ys, first.y, key)
        chart = Chart(kind, str(x), str(y), _column("colour", [None, *names], first.colour, key))
    st.session_state[_CHART] = chart
    try:
        fig = quick_chart(frame, chart)
    except ValueError as problem:
        st.caption(f"No chart: {markdown(str(problem))}.")
    else:
        question = f"{markdown(visible(chart.y))} by {markdown(visible(chart.x))}"
        framed(Shown(f"data-chart-{number}", Drawn(fig, "Chart", question)))


def _keep(sql: str, frame: pd.DataFrame) -> None:
    chart: Chart | None = st.session_state.get(_CHART)
    keep_item(services(), query_item(sql, frame, None if chart is None else asdict(chart)), "")


def _column(label: str, names: Sequence[str | None], first: str | None, key: str) -> str | None:
    index = names.index(first) if first in names else 0
    chosen: str | None = st.selectbox(
        label,
        names,
        index,
        format_func=lambda name: "none" if name is None else visible(name)[:40],
        key=f"data-{label}-{key}",
    )
    return chosen


def _shown(frame: pd.DataFrame) -> pd.DataFrame:
    """Text, lists and bytes as text with every sign visible; column names too, each once."""
    shown = frame.copy()
    for name in shown.columns:
        if shown[name].dtype.kind not in "biufM":
            shown[name] = shown[name].map(_cell)
    names: list[str] = []
    for name in shown.columns:
        label = visible(str(name))[:64]
        names.append(f"{label} ({len(names) + 1})" if label in names else label)
    shown.columns = names
    return shown


def _cell(value: object) -> str | None:
    if value is None or (pd.api.types.is_scalar(value) and pd.isna(value)):
        return None
    text = visible(str(value)) if value != "" else ""
    return text if len(text) <= _CELL else f"{text[:_CELL]}…"


def _parquet(frame: pd.DataFrame) -> bytes:
    file = io.BytesIO()
    frame.to_parquet(file, index=False)
    return file.getvalue()
