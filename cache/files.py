"""The store as a file: what can be seen without DuckDB, making a new one whole, and moving a damaged one aside."""

import os
import threading
import uuid
import weakref
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import duckdb

from cache.errors import StoreDamaged, StoreFull, StoreLocked, StoreUnavailable, from_duckdb

__all__ = ["HEADER_BYTES", "Claim", "create_whole", "identity", "look_at", "make_folder", "move_aside", "wal_of"]

HEADER_BYTES = 3 * 4096
_MAGIC = b"DUCK"
_MAGIC_AT = 8
_open: weakref.WeakValueDictionary[Path, "Claim"] = weakref.WeakValueDictionary()
_open_lock = threading.Lock()


class Claim:
    """A note that this process has a file open, for as long as it lives or until ``release()``.

    DuckDB's lock only holds against other processes. Raises StoreLocked if the file is claimed already.
    """

    def __init__(self, path: Path) -> None:
        self._path = path.resolve()
        with _open_lock:
            if self._path in _open:
                raise StoreLocked(path, os.getpid())
            _open[self._path] = self

    def release(self) -> None:
        """Take the note back."""
        with _open_lock:
            _open.pop(self._path, None)


def wal_of(path: Path) -> Path:
    """DuckDB's write-ahead log beside a database file."""
    return path.with_name(path.name + ".wal")


def identity(path: Path) -> tuple[int, int] | None:
    """Device and inode of a file; None if it is not there."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def make_folder(path: Path) -> None:
    """Make the folder a store lies in. Raises StoreUnavailable."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreUnavailable(path, f"its folder cannot be made: {error.strerror}") from error


def look_at(path: Path) -> bool:
    """Whether there is a file that looks like a DuckDB database; False if there is none.

    Must not be called while this process has the store open: closing any handle of a file drops the process's locks
    on it. Raises StoreDamaged for what no DuckDB database begins with, StoreUnavailable if it cannot be read.
    """
    try:
        with path.open("rb") as file:
            head = file.read(HEADER_BYTES)
    except FileNotFoundError:
        if wal_of(path).exists():
            raise StoreDamaged(path, "its log is there but the file itself is missing") from None
        return False
    except OSError as error:
        raise StoreUnavailable(path, error.strerror or type(error).__name__) from error
    if not head:
        raise StoreDamaged(path, "it is empty")
    if not head.strip(b"\0"):
        raise StoreDamaged(path, "it begins with nothing but zeros")
    if head[_MAGIC_AT : _MAGIC_AT + len(_MAGIC)] != _MAGIC:
        raise StoreDamaged(path, "it is no DuckDB database")
    if len(head) < HEADER_BYTES:
        raise StoreDamaged(path, "it is cut short")
    return True


def create_whole(path: Path, build: Callable[[Path], None]) -> None:
    """Let ``build`` make a file under another name, then give it its own: nobody ever sees half a store.

    If somebody else was faster, theirs stays; if two are equally fast, the loser is told at its first write.
    Raises what ``build`` raises, StoreUnavailable if the folder refuses.
    """
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        build(draft)
        if not path.exists():
            draft.rename(path)
    except OSError as error:
        raise StoreUnavailable(path, error.strerror or type(error).__name__) from error
    except (StoreUnavailable, StoreFull) as error:
        raise type(error)(path, error.why) from error  # by the name people know
    finally:
        draft.unlink(missing_ok=True)
        wal_of(draft).unlink(missing_ok=True)


def move_aside(path: Path | str) -> Path:
    """Rename a store (and its log) to ``<name>.damaged-<date>`` in the same folder and give the new path; lose nothing.

    Raises StoreLocked if it is in use, StoreUnavailable if it is not there or cannot be renamed.
    """
    path = Path(path).expanduser().absolute()
    if not path.exists() and not wal_of(path).exists():
        raise StoreUnavailable(path, "there is no such file")
    _refuse_if_used(path)
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    aside = path.with_name(f"{path.name}.damaged-{stamp}")
    count = 1
    while aside.exists() or wal_of(aside).exists():
        count += 1
        aside = path.with_name(f"{path.name}.damaged-{stamp}-{count}")
    try:
        for old, new in ((path, aside), (wal_of(path), wal_of(aside))):
            if old.exists():
                old.rename(new)
    except OSError as error:
        raise StoreUnavailable(path, error.strerror or type(error).__name__) from error
    return aside


def _refuse_if_used(path: Path) -> None:
    """DuckDB asks for the lock before it reads anything, so that it tells even for a damaged file."""
    with _open_lock:
        if path.resolve() in _open:
            raise StoreLocked(path, os.getpid())
    if not path.is_file():
        return
    try:
        duckdb.connect(str(path), read_only=True).close()
    except duckdb.Error as error:
        known = from_duckdb(error, path)
        if isinstance(known, StoreLocked):
            raise known from error
