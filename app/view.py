"""What every panel is drawn from: one stored run, the selection in it, and the answers beside it. No streamlit."""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pandas as pd
import plotly.graph_objects as go
from torch import Tensor

from app.selection import Bounds, Selection
from app.services import Services
from app.text import visible
from probes.lens import positions_of
from probes.model.loaded import ModelFacts
from probes.request import ProbeCall, RunRequest, capture_id, run_id
from probes.runner import RunInfo, RunResult

__all__ = ["SIGHT", "Gap", "View", "run_bounds"]

SIGHT = 256  # tokens that a panel draws of a longer text
_NO_LAYER = -1


class Gap(Exception):
    """Why a run cannot show something, in one sentence of Markdown."""


@dataclass(frozen=True)
class View:
    """One run at one selection. Made anew for every redraw; tables and figures behind it are shared by all sessions.

    ``answers`` are runs (ids) that are looked through first when a panel asks for one more answer: those that an item of
    a session was drawn from, whatever versions made them.
    """

    services: Services
    result: RunResult
    selection: Selection
    answers: tuple[str, ...] = ()

    @property
    def info(self) -> RunInfo:
        return self.result.info

    @property
    def facts(self) -> ModelFacts:
        return self.result.facts

    @property
    def loaded(self) -> bool:
        """Whether the model is in memory, so that a further question takes no load."""
        return self.services.shelf.loaded(self.info.model) is not None

    def find(self, *calls: ProbeCall) -> RunResult | None:
        """The stored answer to one more question about this run's capture, or None."""
        return self.find_request(self.info.request.with_probes(*calls))

    def find_request(self, request: RunRequest) -> RunResult | None:
        """The stored answer to a request on this run's model, or None; made on the spot where the services compute."""
        asked = request.as_json()
        for known in self.answers:
            result = self.services.open(known)
            if result is not None and result.info.request.as_json() == asked:
                return result
        return self.services.answer(self.id_of(request), request)

    def id_of(self, request: RunRequest) -> str:
        """Where the answer to a request on this run's model is, or will be."""
        mine = self.info.request
        same = request.token_ids == mine.token_ids and request.edits == mine.edits
        capture = self.info.capture_id if same else capture_id(self.facts, request.token_ids, request.edits)
        return run_id(capture, request)

    def answer(self, *calls: ProbeCall) -> RunResult:
        """As :meth:`find`. Raises Gap if the answer is not there."""
        found = self.find(*calls)
        if found is None:
            raise Gap(f"This was not asked of the run yet ({', '.join(call.name for call in calls)}).")
        return found

    def kept(self, name: str) -> Tensor | None:
        """A tensor of the run or its capture; None once the store has dropped it to stay within its budget."""
        try:
            return self.result.tensor(name)
        except KeyError:
            return None

    def beside(self, result: RunResult) -> "View":
        """The same selection in another answer about the same text."""
        return View(self.services, result, self.selection, self.answers)

    def sight(self, limit: int = SIGHT) -> tuple[int, tuple[str, ...]]:
        """The position of the first token in sight and the raw tokens from there: all, or ``limit`` of a longer text.

        They begin where the selection says, or are the stretch with the selected token: stretches follow each other from
        position 0 on, so that a step to the next token seldom moves the figure.
        """
        count, chosen = len(self.tokens), self.selection
        first = chosen.position // limit * limit if chosen.first is None else chosen.first
        first = min(max(first, 0), max(count - limit, 0))
        return first, self.tokens[first : first + limit]

    @cached_property
    def tokens(self) -> tuple[str, ...]:
        """The raw text of each position, in order; every surface escapes it itself."""
        rows: tuple[str, ...] = self.memo("tokens", lambda: tuple(self.result.tokens.sort_values("pos")["text"]))
        return rows

    def token(self, position: int) -> str:
        """The token at a position as people see it."""
        return visible(self.tokens[position])

    def table(self, name: str) -> pd.DataFrame:
        """The rows of this run in a result table; empty if no probe of the run wrote it. Do not change it."""
        frame: pd.DataFrame = self.memo(("table", name), lambda: self.result.table(name))
        return frame

    def has(self, name: str) -> bool:
        """Whether the run holds rows of that table."""
        return not self.table(name).empty

    @property
    def token_ids(self) -> tuple[int, ...]:
        ids: tuple[int, ...] = self.memo("ids", lambda: tuple(self.result.tokens.sort_values("pos")["token_id"]))
        return ids

    @property
    def special(self) -> tuple[int, ...]:
        """Positions of special tokens (BOS, chat markers); empty if the run did not look."""

        def positions() -> tuple[int, ...]:
            try:
                flags = self.result.tensor("special")
            except KeyError:
                return ()
            return tuple(flags.nonzero().flatten().tolist())

        found: tuple[int, ...] = self.memo("special", positions)
        return found

    def decode(self, token_ids: Sequence[int]) -> tuple[str, ...]:
        """The raw text of each of any token ids of the model."""
        return self.services.decode(self.info.model, token_ids, self.facts.tokenizer)

    def at(self, rows: pd.DataFrame) -> pd.DataFrame:
        """The rows (of a table with ``layer`` and ``pos``) at the selected point and position."""
        if rows.empty:
            return rows
        return rows[(rows["layer"] == self.selection.point) & (rows["pos"] == self.selection.position)]

    def value(self, metric: str, *, layered: bool = True) -> float | None:
        """The token metric at the selection: None if the run does not have it there, NaN if it is undefined there."""

        def by_place() -> dict[tuple[int, int], float]:
            rows = self.metric("token_metrics", metric)
            if rows.empty:
                return {}
            places = zip(rows["layer"].fillna(_NO_LAYER).astype(int), rows["pos"].astype(int), strict=True)
            return dict(zip(places, rows["value"].astype(float), strict=True))

        known: dict[tuple[int, int], float] = self.memo(("by place", metric), by_place)
        return known.get((self.selection.point if layered else _NO_LAYER, self.selection.position))

    def metric(self, table: str, name: str) -> pd.DataFrame:
        """The rows of one metric in a long table."""

        def rows() -> pd.DataFrame:
            frame = self.table(table)
            return frame if frame.empty else frame[frame["metric"] == name]

        found: pd.DataFrame = self.memo(("metric", table, name), rows)
        return found

    def figure(self, name: str, build: Callable[[], go.Figure], *params: Hashable) -> go.Figure:
        """The figure ``name`` of this run with these parameters, built once for all sessions; never change it."""
        figure: go.Figure = self.memo(("figure", name, params), build)
        return figure

    def memo(self, what: Hashable, build: Callable[[], Any]) -> Any:
        """Something of this run, built once for all sessions; never change it."""
        return self.services.memo.get((self.info.run_id, what), build)


def run_bounds(result: RunResult) -> Bounds:
    """The limits of a selection in a run, which opens at a position that the lens reads unasked.

    A run does not know how wide its SAE is: pages clamp latents by their own.
    """
    facts, n_tokens = result.facts, result.info.n_tokens
    read = positions_of("sample", n_tokens)
    middle = int(read[len(read) // 2])
    return Bounds(facts.n_layers, n_tokens - 1, facts.n_heads - 1, facts.d_model - 1, (1 << 20) - 1, middle)
