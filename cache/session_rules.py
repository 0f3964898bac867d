"""What a session and its items are, and what the store takes of them: each limit is told in one sentence."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from cache.keys import canonical_json
from cache.strict_json import nesting

__all__ = [
    "MAX_CAPTION",
    "MAX_ITEMS",
    "MAX_NAME",
    "MAX_NOTES",
    "MAX_TITLE",
    "Item",
    "Session",
    "check_item",
    "check_texts",
    "storable",
]

MAX_TITLE = 200
MAX_NOTES = 100_000
MAX_CAPTION = 10_000
MAX_NAME = 128
MAX_JSON = 1_000_000
MAX_DEPTH = 32
MAX_ITEMS = 500


@dataclass(frozen=True)
class Session:
    """What a session says of itself. ``share_id`` opens it for reading; the key that changes it is stored nowhere."""

    session_id: str
    title: str
    notes: str
    share_id: str
    created: datetime
    updated: datetime
    n_items: int


@dataclass(frozen=True)
class Item:
    """One view in a session: its name, what it was asked and shown with, words about it, and the run it shows if any."""

    view: str
    params: Mapping[str, Any]
    selection: Mapping[str, Any]
    caption: str = ""
    run_id: str | None = None


def storable(text: str) -> bool:
    """Whether a text can be written as UTF-8; one with half a character in it is in no store."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def check_texts(title: str | None = None, notes: str | None = None) -> None:
    """Raises ValueError for a title or notes that are too long or no valid Unicode."""
    _check_text("The title", title or "", MAX_TITLE)
    _check_text("The notes", notes or "", MAX_NOTES)


def check_item(item: Item, place: int) -> tuple[str, str, str, str, str | None]:
    """An item as the columns of its row. Raises ValueError, naming its place, for what does not fit."""
    where = f"of item {place + 1}"
    _check_text(f"The view {where}", item.view, MAX_NAME)
    _check_text(f"The caption {where}", item.caption, MAX_CAPTION)
    _check_text(f"The run id {where}", item.run_id or "", MAX_NAME)
    params, selection = (
        _json(f"The {what} {where}", value) for what, value in (("params", item.params), ("selection", item.selection))
    )
    return item.view, params, selection, item.caption, item.run_id


def _check_text(what: str, text: str, limit: int) -> None:
    if len(text) > limit:
        raise ValueError(f"{what} has {len(text):,} characters; at most {limit:,} are taken.")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{what} is not valid Unicode: a lone surrogate stands at character {error.start}.") from None


def _json(what: str, value: Mapping[str, Any]) -> str:
    try:
        text = canonical_json(value)
    except ValueError as error:
        raise ValueError(f"{what} cannot be kept as JSON: {error}.") from None
    if len(text) > MAX_JSON:
        raise ValueError(f"{what} takes {len(text):,} bytes as JSON; at most {MAX_JSON:,} are taken.")
    depth = nesting(text.encode("ascii"))
    if depth > MAX_DEPTH:
        raise ValueError(f"{what} is nested {depth} deep; at most {MAX_DEPTH} levels are taken.")
    return text
