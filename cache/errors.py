"""What can go wrong with a store, each in one sentence that says what to do about it."""

import re
from pathlib import Path
from typing import Literal

import duckdb

__all__ = [
    "RunAbsent",
    "SessionAbsent",
    "StoreClosed",
    "StoreDamaged",
    "StoreError",
    "StoreForeign",
    "StoreFull",
    "StoreLocked",
    "StoreNewer",
    "StoreUnavailable",
    "TensorAbsent",
    "from_duckdb",
]

ELSEWHERE = "or work elsewhere with --store FILE or --store :memory:"


class StoreError(Exception):
    """Anything the store refuses or cannot do."""

    def __str__(self) -> str:
        """The sentence itself; a KeyError among the bases would show its repr."""
        return str(self.args[0]) if self.args else ""


class StoreLocked(StoreError):
    """Another store object has the file open. ``pid`` is the holder's process id where the system tells it."""

    def __init__(self, path: Path, pid: int | None) -> None:
        holder = "another process" if pid is None else f"the process with pid {pid}"
        super().__init__(f"The store {path} is in use by {holder}: stop it, {ELSEWHERE}.")
        self.path = path
        self.pid = pid


class StoreDamaged(StoreError):
    """The file is no whole store. Nothing was written to it since the damage was seen."""

    def __init__(self, path: Path | str, what: str) -> None:
        super().__init__(
            f"The store {path} is damaged ({what}); it was not touched: "
            f"move it aside with cache.move_aside and start with a new one, {ELSEWHERE}."
        )
        self.path = path


class StoreForeign(StoreError):
    """A sound DuckDB database that holds something else."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"The file {path} is a DuckDB database but not a store, and was not touched: name another.")
        self.path = path


class StoreNewer(StoreError):
    """Written by a later version of the schema or of DuckDB."""

    def __init__(self, path: Path | str, found: str, known: str) -> None:
        super().__init__(
            f"The store {path} was written with {found}, this program knows {known}, and it was not touched: "
            f"update the program, {ELSEWHERE}."
        )
        self.path = path


class StoreUnavailable(StoreError):
    """The file or its folder cannot be written, or went away while the store was open."""

    def __init__(self, path: Path | str, why: str) -> None:
        super().__init__(f"The store {path} cannot be used ({why}): make its folder writable, {ELSEWHERE}.")
        self.path = path
        self.why = why


class StoreFull(StoreError):
    """The disk, a quota or the memory of an in-memory store is exhausted. What was acknowledged before is kept."""

    def __init__(self, path: Path | str, why: str) -> None:
        super().__init__(
            f"There is no room left for the store {path} ({why}); what was stored before is safe: "
            f"free some space, shrink it with `python -m app cache prune`, {ELSEWHERE}."
        )
        self.path = path
        self.why = why


class StoreClosed(StoreError):
    """Used after ``close()``."""

    def __init__(self, path: Path | str) -> None:
        super().__init__(f"The store {path} was closed.")


class RunAbsent(StoreError, KeyError):
    """No run of that id is stored."""

    def __init__(self, run_id: str) -> None:
        super().__init__(f"The store holds no run {run_id[:64]!r}.")


class SessionAbsent(StoreError, KeyError):
    """No session of that id is stored, or it was deleted."""

    def __init__(self, session_id: str) -> None:
        super().__init__(f"The store holds no session {session_id[:64]!r}.")


class TensorAbsent(StoreError, KeyError):
    """A tensor has to be computed again.

    ``reason`` is ``missing`` if it was never stored or was evicted, ``damaged`` if its bytes did not match their
    checksum: then it has been dropped, and ``detail`` says what was found.
    """

    def __init__(self, owner_id: str, name: str, reason: Literal["missing", "damaged"], detail: str = "") -> None:
        state = "not stored" if reason == "missing" else f"damaged and was dropped ({detail})"
        super().__init__(f"The tensor {name!r} of {owner_id[:64]!r} is {state}; it has to be computed again.")
        self.owner_id = owner_id
        self.name = name
        self.reason: Literal["missing", "damaged"] = reason
        self.detail = detail


_FULL = ("no space left", "file too large", "disk quota", "could not write", "out of memory", "max_temp_directory_size")
_DAMAGED = (
    "corrupt",
    "could not read enough bytes",
    "not a valid duckdb database",
    "serialization error",
    "failed to deserialize",
    "failed to load metadata",
    "internal error",
)
_UNAVAILABLE = (
    "permission denied",
    "read-only",
    "cannot open file",
    "is a directory",
    "no such file",
    "not permitted",
    "input/output error",
    "stale file handle",
)


def from_duckdb(error: duckdb.Error, path: Path | None) -> StoreError:
    """The store's own error for one of DuckDB's, read off its message; a plain StoreError if it says nothing known."""
    message = str(error)
    text = message.lower()
    where: Path | str = path if path is not None else ":memory:"
    reason = _reason(message)
    if "could not set lock" in text and path is not None:
        pid = re.search(r"PID (\d+)", message)
        return StoreLocked(path, int(pid.group(1)) if pid else None)
    if "version number" in text:
        return StoreNewer(where, "a newer DuckDB", f"DuckDB {duckdb.__version__}")
    if any(sign in text for sign in _FULL):
        return StoreFull(where, reason)
    if any(sign in text for sign in _DAMAGED):
        return StoreDamaged(where, reason)
    if any(sign in text for sign in _UNAVAILABLE):
        return StoreUnavailable(where, reason)
    return StoreError(f"The store {where} failed: {reason}")


def _reason(message: str) -> str:
    """The first line of a message, or what the system said where a file name and a system error end it."""
    line = message.strip().split("\n")[0]
    system = re.search(r'"[^"]*": ([A-Z][a-z -]+)\W*$', line)
    return system.group(1).lower() if system else line[:200]
