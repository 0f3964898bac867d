"""A session as a document: each item drawn again from stored runs, with what was asked, and of what. No streamlit."""

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from app.figures.theme import cursor
from app.items import SQL, Kept, item_view, options
from app.panels import registry
from app.panels.panel import Drawn, Panel
from app.report.words import plain
from app.selection import Selection
from app.services import Services
from app.text import markdown, visible
from app.view import View
from cache import StoreError, canonical_json
from probes.errors import BadRequest
from probes.request import library_versions
from probes.runner import RunInfo

__all__ = ["Document", "Entry", "Run", "entry", "make_document"]


@dataclass(frozen=True)
class Entry:
    """An item as it is printed. ``title``, ``question``, ``note``, ``how`` and ``gap`` are Markdown, the rest is raw text.

    ``fig`` is a copy with the cursor in it; where there is neither it nor a ``table``, ``gap`` says why. ``settings``
    are what it is of, in words; ``request`` is the canonical JSON of its run; ``params`` are its options.
    """

    title: str
    question: str
    note: str | None
    how: str
    fig: go.Figure | None
    table: pd.DataFrame | None
    caption: str
    settings: Mapping[str, str]
    request: str
    key: str
    params: Mapping[str, Any]
    selection: Selection
    run_id: str | None
    gap: str | None

    @property
    def shown(self) -> go.Figure | pd.DataFrame | str:
        """The figure, the table, or why there is neither."""
        if self.fig is not None:
            return self.fig
        return self.table if self.table is not None else plain(self.gap or "")


@dataclass(frozen=True)
class Run:
    """Where the numbers of a run come from. ``tokens`` are its raw text, ``request`` is canonical JSON."""

    run_id: str
    model: str
    fingerprint: str
    weights: str
    device: str
    dtype: str
    mask: str
    n_tokens: int
    versions: Mapping[str, str]
    seeds: Mapping[str, int]
    notes: tuple[str, ...]
    created: datetime | None
    request: str
    tokens: tuple[str, ...]


@dataclass(frozen=True)
class Document:
    """What a report says, whatever it is printed as. ``notes`` is the Markdown of a person. ``runs`` are those the entries
    show, then those they were drawn from beside; ``made_with`` are the versions that drew it."""

    title: str
    notes: str
    entries: tuple[Entry, ...]
    runs: tuple[Run, ...]
    made_with: Mapping[str, str]


def make_document(session_title: str, notes: str, items: Iterable[Kept], services: Services) -> Document:
    """Draw every item again. What cannot be drawn says why in its place; only the store itself can fail.

    Raises StoreError where the store cannot be read.
    """
    kept = tuple(items)
    entries = tuple(entry(services, item) for item in kept)
    shown = [item.run_id for item in kept if item.run_id]
    beside = [run for item in kept for run in _runs(item)]
    runs = (_run(services, one) for one in dict.fromkeys([*shown, *beside]))
    made_with = {**library_versions(), "plotly": version("plotly")}
    return Document(session_title, notes, entries, tuple(run for run in runs if run is not None), made_with)


def entry(services: Services, item: Kept) -> Entry:
    """An item drawn again, or with the reason why it cannot be."""
    if item.view == SQL:
        return _query(item)
    given = options(item)
    try:
        found = registry.panel(item.view)
    except BadRequest as problem:
        return _missing(item, f"{markdown(str(problem))} It may have been kept by a later version.")
    view = None
    try:
        view = item_view(services, item)
        if view is None:
            what = (
                "no run" if item.run_id is None else f"the run {markdown(item.run_id[:16])}, which is not stored here"
            )
            return _missing(item, f"This item shows {what}.", found)
        drawn = found.draw(view, given)
        fig = None if drawn.fig is None else _marked(drawn, view.selection)
    except (BadRequest, StoreError) as problem:
        return _missing(item, markdown(str(problem)), found, view)
    except Exception as problem:  # one item of many, perhaps out of a file of unknown origin: the others still stand
        told = f"This could not be drawn from what is stored ({markdown(type(problem).__name__)})."
        return _missing(item, told, found, view)
    there = fig is not None
    return Entry(
        title=drawn.title, question=drawn.question, note=_said(drawn) if there else None,
        how=found.how_to_read if there else "", fig=fig, table=None, caption=item.caption,
        settings=_settings(view, {**found.defaults, **given}), request=view.info.request.as_json(), key=item.view,
        params=given, selection=view.selection, run_id=item.run_id,
        gap=None if there else drawn.note or "There is nothing to be shown here.",
    )  # fmt: skip


def _said(drawn: Drawn) -> str | None:
    return "\n\n".join(part for part in (drawn.note, drawn.aside) if part) or None


def _missing(item: Kept, reason: str, panel: Panel | None = None, view: View | None = None) -> Entry:
    given = options(item)
    return Entry(
        title=markdown(item.view) if panel is None else panel.title, question="" if panel is None else panel.question,
        note=None, how="", fig=None, table=None, caption=item.caption,
        settings={} if view is None else _settings(view, given),
        request="" if view is None else view.info.request.as_json(),
        key=item.view, params=given, selection=Selection() if view is None else view.selection, run_id=item.run_id,
        gap=reason,
    )  # fmt: skip


def _query(item: Kept) -> Entry:
    """The result of a query as it was when it was kept."""
    gap = table = None
    try:
        table = pd.DataFrame(item.params.get("rows", []), columns=item.params.get("columns", []))
    except (ValueError, TypeError, AssertionError):
        gap = "The table of this query is not whole."
    count = "" if table is None else f"{len(table):,} rows, as they were when it was kept"
    return Entry(
        title="Query", question="", note=None, how="", fig=None, table=table, caption=item.caption,
        settings={"result": count} if count else {}, request="", key=SQL, params=item.params, selection=Selection(),
        run_id=item.run_id, gap=gap,
    )  # fmt: skip


def _marked(drawn: Drawn, selection: Selection) -> go.Figure:
    """A copy of the figure with the selection drawn into it."""
    fig = go.Figure(drawn.fig)
    return fig if drawn.place is None else cursor(fig, *drawn.place.at(selection))


def _settings(view: View, given: Mapping[str, Any]) -> dict[str, str]:
    info, chosen, count = view.info, view.selection, len(view.tokens)
    where = [f"point {chosen.point}"]
    if chosen.position < count:
        where.append(f"token {chosen.position} {visible(view.tokens[chosen.position])}")
    where += [
        f"{name} {value}" for name in ("head", "dimension", "latent") if (value := getattr(chosen, name)) is not None
    ]
    if chosen.span is not None:
        where.append(f"tokens {chosen.span[0]} to {chosen.span[1]}")
    said = {
        "model": info.model,
        "weights": info.weights,
        "run": info.run_id[:8],
        "mask": info.mask,
        "tokens": f"{info.n_tokens:,}",
        "selection": ", ".join(where),
    }
    chosen_options = ", ".join(
        f"{name} {value if isinstance(value, str) else canonical_json(value)}"
        for name, value in given.items()
        if value not in (None, "")
    )
    return said | ({"options": chosen_options} if chosen_options else {})


def _runs(item: Kept) -> tuple[str, ...]:
    """The runs an item says it was drawn from beside its own."""
    runs = item.params.get("runs", [])
    return tuple(run for run in runs if isinstance(run, str)) if isinstance(runs, list) else ()


def _run(services: Services, run_id: str) -> Run | None:
    result, stored = services.open(run_id), services.store.run(run_id)
    if result is None:
        return None
    info: RunInfo = result.info
    return Run(
        run_id=run_id, model=info.model, fingerprint=info.fingerprint, weights=info.weights, device=info.device,
        dtype=info.dtype, mask=info.mask, n_tokens=info.n_tokens, versions=info.versions, seeds=_seeds(info),
        notes=info.notes, created=None if stored is None else stored["created"], request=info.request.as_json(),
        tokens=tuple(result.tokens.sort_values("pos")["text"]),
    )  # fmt: skip


def _seeds(info: RunInfo) -> dict[str, int]:
    """What a run drew its random numbers from: every parameter called so, given or not."""
    seeds = {}
    for call in info.request.ordered():
        for name, value in dataclasses.asdict(call.full_params()).items():
            if "seed" in name:
                seeds[f"{call.name}.{name}"] = value
    return seeds
