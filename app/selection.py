"""What is looked at, as a frozen value: its parts, the limits a run sets, pins, and how each is written in an address."""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

__all__ = [
    "COLOURS",
    "KEYS",
    "Bounds",
    "Link",
    "Pin",
    "Selection",
    "clamp",
    "parse",
    "parse_pins",
    "write",
    "write_pins",
]

KEYS = {"point": "point", "position": "pos", "head": "head", "dimension": "dim", "latent": "latent", "first": "from"}
"""Parts of a selection that are one number -> their names in an address."""
COLOURS = {"o": "#E69F00", "g": "#009E73", "p": "#CC79A7", "b": "#0072B2"}  # of pins; red is the selection's own
_WHOLE = re.compile(r"[+-]?[0-9]{1,12}", re.ASCII)
_SPAN = re.compile(r"([0-9]{1,9})-([0-9]{1,9})", re.ASCII)
_PIN = re.compile(r"([a-z])([0-9]{1,9})\.([0-9]{1,9})((?:\.[hdl][0-9]{1,9})*)", re.ASCII)
_LETTERS = {"h": "head", "d": "dimension", "l": "latent"}


@dataclass(frozen=True, slots=True)
class Selection:
    """A point 0..L, a token position, and possibly a head, a dimension, an SAE latent, and a range of tokens.

    ``span`` is the range, first and last token; ``first`` the first token in sight of a long text (None: those around
    the selected one).
    """

    point: int = 0
    position: int = 0
    head: int | None = None
    dimension: int | None = None
    latent: int | None = None
    first: int | None = None
    span: tuple[int, int] | None = None

    def as_dict(self) -> dict[str, Any]:
        """Its parts that say something, as plain JSON."""
        said = {name: value for name, value in asdict(self).items() if value is not None}
        return said | ({} if self.span is None else {"span": list(self.span)})


@dataclass(frozen=True, slots=True)
class Bounds:
    """The largest value each part of a selection may have in the open run (inclusive); None: there is no such thing.

    ``middle`` is the position a run opens at, by default the middle one.
    """

    point: int
    position: int
    head: int | None = None
    dimension: int | None = None
    latent: int | None = None
    middle: int | None = None

    @property
    def first(self) -> int:
        return self.position

    def start(self) -> Selection:
        """The selection of a run opened afresh: a token in the middle, a little above the middle of the model."""
        middle = self.position // 2 if self.middle is None else self.middle
        return Selection(point=round(self.point * 0.6), position=middle)


@dataclass(frozen=True, slots=True)
class Pin:
    """A selection that is kept, under a colour (a key of `COLOURS`)."""

    colour: str
    selection: Selection


@dataclass(frozen=True, slots=True)
class Link:
    """What an address asks for: a model, a stored run, a mask, and the raw text of each part of the selection.

    ``pins`` is the text of the pins; ``beside`` has what only some pages know (``b``, the run that is compared, ``view``)
    and what opens one panel as it was (``panel``, ``set``).
    """

    model: str | None = None
    run: str | None = None
    mask: str | None = None
    parts: Mapping[str, str] | None = None
    beside: Mapping[str, str] = field(default_factory=dict)
    pins: str | None = None


def parse(parts: Mapping[str, str], limits: Bounds, fallback: Selection) -> tuple[Selection, tuple[str, ...]]:
    """The selection that ``parts`` (names of :class:`Selection` -> raw text) asks for, and a sentence for each bad one.

    A part that is no whole number, or outside ``limits``, keeps its value of ``fallback``. Never raises.
    """
    chosen: dict[str, Any] = {}
    problems = []
    for name, key in KEYS.items():
        text = parts.get(name)
        if text is None:
            continue
        last = getattr(limits, name)
        number = int(text) if _WHOLE.fullmatch(text) else None
        if last is not None and number is not None and 0 <= number <= last:
            chosen[name] = number
            continue
        kept = getattr(fallback, name)
        allowed = "this run has none" if last is None else f"it must be a whole number from 0 to {last}"
        instead = "nothing is selected" if kept is None else f"{kept} is shown"
        problems.append(f"The address says {key}={_short(text)!r}, but {allowed}; {instead}.")
    if "span" in parts:
        ends = _SPAN.fullmatch(parts["span"])
        span = None if ends is None else (int(ends[1]), int(ends[2]))
        if span is not None and span[0] <= span[1] <= limits.position:
            chosen["span"] = span
        else:
            allowed = f"a range must be FIRST-LAST between 0 and {limits.position}"
            problems.append(f"The address says span={_short(parts['span'])!r}, but {allowed}; no range is marked.")
    return replace(fallback, **chosen), tuple(problems)


def clamp(selection: Selection, changes: Mapping[str, Any], limits: Bounds) -> Selection:
    """``selection`` with ``changes``, each part brought within ``limits``.

    ``point`` and ``position`` given as None fall back to the start of a run. Unknown names raise ``TypeError``.
    """
    start, clamped = limits.start(), dict[str, Any]()
    for name, value in changes.items():
        if name == "span":
            ends = None if value is None else sorted(min(max(int(end), 0), limits.position) for end in value)
            clamped[name] = None if ends is None else (ends[0], ends[-1])
            continue
        if name not in KEYS:
            raise TypeError(f"a selection has no {name!r}; it has {', '.join((*KEYS, 'span'))}")
        last = getattr(limits, name)
        chosen = getattr(start, name) if value is None else int(value)
        clamped[name] = None if chosen is None or last is None else min(max(chosen, 0), last)
    return replace(selection, **clamped)


def write(selection: Selection) -> dict[str, str]:
    """A selection as the parts of an address."""
    numbers = {key: getattr(selection, name) for name, key in KEYS.items()}
    written = {key: str(value) for key, value in numbers.items() if value is not None}
    return written if selection.span is None else written | {"span": f"{selection.span[0]}-{selection.span[1]}"}


def write_pins(pins: tuple[Pin, ...]) -> str:
    """Pins as one part of an address, such as ``o18.41~g12.0.d507``."""
    written = []
    for pin in pins:
        chosen = pin.selection
        more = {letter: getattr(chosen, name) for letter, name in _LETTERS.items()}
        tail = "".join(f".{letter}{value}" for letter, value in more.items() if value is not None)
        written.append(f"{pin.colour}{chosen.point}.{chosen.position}{tail}")
    return "~".join(written)


def parse_pins(text: str, limits: Bounds) -> tuple[tuple[Pin, ...], tuple[str, ...]]:
    """The pins an address asks for, and a sentence for each that cannot be; the first of a colour counts. Never raises."""
    pins: dict[str, Pin] = {}
    problems = []
    for part in text.split("~")[: 2 * len(COLOURS)]:
        found = _PIN.fullmatch(part)
        if found is None or found[1] not in COLOURS or found[1] in pins:
            problems.append(f"The address pins {_short(part)!r}, which is no pin; it is left out.")
            continue
        named = {"point": found[2], "position": found[3]}
        named |= {_LETTERS[more[0]]: more[1:] for more in found[4].split(".") if more}
        chosen, wrong = parse(named, limits, limits.start())
        if wrong:
            problems.append(f"The address pins {_short(part)!r}, which lies outside this run; it is left out.")
        else:
            pins[found[1]] = Pin(found[1], chosen)
    return tuple(pins.values()), tuple(problems)


def _short(text: str) -> str:
    return text if len(text) <= 32 else text[:31] + "…"
