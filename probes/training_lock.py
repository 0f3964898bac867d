"""The lock of a training's folder: one process at a time works in it."""

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path

from probes.errors import BadRequest

__all__ = ["is_locked", "locked"]

_LOCK = "lock"


@contextlib.contextmanager
def locked(folder: Path, name: str) -> Iterator[None]:
    """Hold a training; the system lets go of it however the process ends. Raises BadRequest if another holds it."""
    with (folder / _LOCK).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise BadRequest(f"The training {name!r} is running already.") from None
        yield


def is_locked(folder: Path) -> bool:
    """Whether a process holds the training in this folder."""
    if not (folder / _LOCK).is_file():
        return False
    with (folder / _LOCK).open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return True
    return False
