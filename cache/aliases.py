"""Ids that came with a bundle and exist here with other content: the ids they have here instead, and back again."""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import replace
from itertools import count
from typing import Any, Literal

from duckdb import DuckDBPyConnection

from cache.keys import digest
from cache.session_rules import Item

__all__ = ["Kind", "originals", "record", "rewritten", "settle", "strings"]

Kind = Literal["run", "capture", "session"]


def settle(
    connection: DuckDBPyConnection, kind: Kind, original: str, content: str, holds: Callable[[str], bool | None]
) -> tuple[str, bool]:
    """The id that something of this content has or gets here, and whether it is here already.

    ``holds`` tells of an id whether the store has this very content under it, something else (False) or nothing (None).
    The id is the original one if that is free, else a digest of it and of the content.
    """
    known = connection.execute(
        "SELECT local_id FROM aliases WHERE original_id = ? AND kind = ? ORDER BY local_id", [original, kind]
    ).fetchall()
    for candidate in (original, *(local for (local,) in known)):
        held = holds(candidate)
        if held is not False:
            return candidate, held is True
    derived = (digest([kind, original, content, number]) for number in count())
    return next(local for local in derived if holds(local) is None), False


def record(connection: DuckDBPyConnection, kind: Kind, names: Mapping[str, str]) -> None:
    """Note local ids by original ones, where they differ."""
    rows = [[local, original, kind] for original, local in names.items() if local != original]
    known = set(connection.execute("SELECT local_id FROM aliases WHERE kind = ?", [kind]).fetchall())
    fresh = [row for row in rows if (row[0],) not in known]
    if fresh:
        connection.executemany("INSERT INTO aliases VALUES (?, ?, ?)", fresh)


def originals(
    connection: DuckDBPyConnection, kind: Kind, ids: Collection[str], spoken: Collection[str]
) -> dict[str, str]:
    """The original id of each id that is an alias here.

    One that would then be shared by two of them, or that the items ``spoken`` of mean as it is, stays under its own.
    """
    rows = connection.execute("SELECT local_id, original_id FROM aliases WHERE kind = ?", [kind]).fetchall()
    known = {local: original for local, original in rows if local in ids}
    claimed = [known.get(one, one) for one in ids]
    return {
        local: original for local, original in known.items() if claimed.count(original) == 1 and original not in spoken
    }


def rewritten(item: Item, names: Mapping[str, str]) -> Item:
    """An item that speaks of other ids: every string in it that is one of ``names``."""
    run_id = None if item.run_id is None else names.get(item.run_id, item.run_id)
    return replace(
        item, params=_rewritten(item.params, names), selection=_rewritten(item.selection, names), run_id=run_id
    )


def strings(item: Item) -> Iterator[str]:
    """Every string in an item's parameters and selection, and its run."""
    yield from _strings([item.params, item.selection, item.run_id])


def _rewritten(value: Any, names: Mapping[str, str]) -> Any:
    if isinstance(value, str):
        return names.get(value, value)
    if isinstance(value, Mapping):
        return {names.get(key, key): _rewritten(item, names) for key, item in value.items()}
    return [_rewritten(item, names) for item in value] if isinstance(value, list | tuple) else value


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        yield from value
        for item in value.values():
            yield from _strings(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _strings(item)
