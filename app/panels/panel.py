"""What a panel is: a declared question, its options, and a function from a view of a run to a drawn figure."""

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Concatenate, Literal, ParamSpec

import pandas as pd
import plotly.graph_objects as go

from app.methods import section
from app.view import Gap, View
from probes.errors import BadRequest

__all__ = [
    "BLOCK_HEAD", "CELL", "POINT", "POSITION", "Click", "Drawn", "Marks", "Option", "Panel", "Part", "Pick", "Place", "panel",
]  # fmt: skip

P = ParamSpec("P")
Part = Literal["point", "position", "block", "head", "dimension", "latent"]
_KEY = re.compile(r"[a-z][a-z0-9-]*")


@dataclass(frozen=True, slots=True)
class Click:
    """What was clicked: data coordinates, the ``customdata`` of the point or cell, and the number of its trace."""

    x: Any
    y: Any
    customdata: Any = None
    curve: int = 0


Pick = Callable[[Click], Mapping[str, int | None]]
"""What a click selects: parts of the selection by name; nothing where it hit nothing that can be selected."""


@dataclass(frozen=True, slots=True)
class Place:
    """What the axes of a figure stand for, so that cursor, pins and hover find the same place in every panel.

    A part the axes do not show is None. ``rows`` are what the rows along y stand for, where they are not numbers.
    """

    x: Part | None = None
    y: Part | None = None
    rows: Sequence[int] | None = None

    def at(self, selection: Any) -> tuple[float | None, float | None]:
        """Where a selection stands, in data coordinates; None along an axis that does not show it."""
        return _along(self.x, selection, None), _along(self.y, selection, self.rows)

    def pick(self, click: Click) -> Mapping[str, int | None]:
        """What a click selects."""
        chosen: dict[str, int | None] = {}
        for part, value, rows in ((self.x, click.x, None), (self.y, click.y, self.rows)):
            if part is None or not isinstance(value, int | float):
                continue
            number = round(value)
            if rows is not None:
                if 0 <= number < len(rows):
                    chosen[part] = rows[number]
            elif part == "block":
                chosen["point"] = number + 1
            else:
                chosen[part] = number
        return chosen


POINT, POSITION = Place("point"), Place("position")
CELL = Place("position", "point")
BLOCK_HEAD = Place("head", "block")


@dataclass(frozen=True, slots=True)
class Marks:
    """Where something stands that the axes do not say: positions -> data coordinates, for planes and scatters."""

    x: Callable[[Any], float | None]
    y: Callable[[Any], float | None]

    def at(self, selection: Any) -> tuple[float | None, float | None]:
        return self.x(selection), self.y(selection)


@dataclass(frozen=True)
class Drawn:
    """A panel as it is now. ``title``, ``question`` and ``note`` are Markdown: text of models goes through
    ``app.text.markdown``. ``fig`` None is a gap, and ``note`` its reason. ``csv`` may be a function, called on export.

    ``place`` says what its axes are, ``pick`` what a click selects where that is more than the axes say. ``aside`` is what
    the page says in its own way (Markdown): a session and a report print it.
    """

    fig: go.Figure | None
    title: str = ""
    question: str = ""
    note: str | None = None
    csv: pd.DataFrame | Callable[[], pd.DataFrame] | None = None
    place: Place | Marks | None = None
    pick: Pick | None = None
    aside: str | None = None

    def table(self) -> pd.DataFrame | None:
        """The numbers behind the figure, as a table; None where it has none."""
        return self.csv() if callable(self.csv) else self.csv

    def picked(self, click: Click) -> Mapping[str, int | None]:
        """What a click selects."""
        if self.pick is not None:
            return self.pick(click)
        return self.place.pick(click) if isinstance(self.place, Place) else {}

    @property
    def clickable(self) -> bool:
        return self.pick is not None or isinstance(self.place, Place)


@dataclass(frozen=True, slots=True)
class Option:
    """A choice a panel leaves: the values it may have, and the key of the widget that makes it on its page."""

    values: Sequence[Any] | type
    widget: str | None = None

    def check(self, name: str, value: Any) -> Any:
        """The value, as it is meant. Raises BadRequest for one that is not allowed."""
        if not isinstance(self.values, type):
            if value in self.values:
                return value
            raise BadRequest(f"{name} must be one of {', '.join(map(str, self.values))}, not {str(value)[:64]!r}.")
        if self.values is int and isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 31:
            return value
        if self.values is not int and type(value) is self.values:
            return value
        allowed = {bool: "true or false", int: "a whole number from 0", str: "text", list: "a list", dict: "an object"}
        raise BadRequest(f"{name} must be {allowed.get(self.values, self.values.__name__)}, not {str(value)[:64]!r}.")


@dataclass(frozen=True)
class Panel:
    """A panel by its key: its page, its words, its options, and how it is drawn."""

    key: str
    page: str
    title: str
    question: str
    how: tuple[tuple[str, str], ...]
    options: Mapping[str, Option]
    build: Callable[..., Drawn]
    defaults: Mapping[str, Any] = field(default_factory=dict)

    def draw(self, view: View, params: Mapping[str, Any] | None = None) -> Drawn:
        """The panel of a run at a selection; a gap with its reason where the run cannot show it.

        Raises BadRequest for an option it does not have, or a value it does not allow.
        """
        given = self.checked(params or {})
        try:
            drawn = self.build(view, **given)
        except Gap as gap:
            drawn = Drawn(None, note=str(gap))
        return replace(drawn, title=drawn.title or self.title, question=drawn.question or self.question)

    def checked(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Options that may be given. Raises BadRequest as :meth:`draw` does."""
        for name in params:
            if name not in self.options:
                known = ", ".join(self.options) or "none"
                raise BadRequest(f"The panel {self.key} has no option {name[:64]!r}; it has {known}.")
        return {name: self.options[name].check(name, value) for name, value in params.items()}

    @property
    def how_to_read(self) -> str:
        """What docs/methods says of it."""
        return "\n\n".join(section(page, heading) for page, heading in self.how)


REGISTRY: dict[str, Panel] = {}


def panel(
    key: str,
    page: str,
    title: str,
    question: str,
    *how: tuple[str, str],
    options: Mapping[str, Option] | None = None,
) -> Callable[[Callable[Concatenate[View, P], Drawn]], Callable[Concatenate[View, P], Drawn]]:
    """Register a function as the panel ``key`` of ``page``; ``how`` are sections of docs/methods.

    The function takes a view and its options as keywords with defaults. Raises ValueError for a key that is not lower-case
    letters, digits and hyphens, or that is taken, and for options that are not those of the function.
    """
    if not _KEY.fullmatch(key):
        raise ValueError(f"a panel's key must be lower-case letters, digits and hyphens, not {key!r}")
    if key in REGISTRY:
        raise ValueError(f"there is a panel {key!r} already")

    def register(build: Callable[Concatenate[View, P], Drawn]) -> Callable[Concatenate[View, P], Drawn]:
        given = list(inspect.signature(build).parameters.values())[1:]
        if {one.name for one in given} != set(options or {}):
            raise ValueError(
                f"the panel {key!r} takes {[one.name for one in given]} but declares {list(options or {})}"
            )
        defaults = {one.name: one.default for one in given}
        REGISTRY[key] = Panel(key, page, title, question, how, options or {}, build, defaults)
        return build

    return register


def _along(part: Part | None, selection: Any, rows: Sequence[int] | None) -> float | None:
    if part is None:
        return None
    if part == "block":
        return float(selection.point - 1) if selection.point else None
    value = getattr(selection, part)
    if value is None or rows is None:
        return None if value is None else float(value)
    return float(list(rows).index(value)) if value in rows else None
