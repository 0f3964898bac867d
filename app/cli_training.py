"""What the commands that train have in common: their text files, and Ctrl-C leaving a training to be resumed."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from probes.errors import BadRequest
from probes.progress import Progress

__all__ = ["interruptible", "read_bytes"]


def read_bytes(path: Path) -> bytes:
    """The content of a file. Raises BadRequest where it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadRequest(f"The file {path} cannot be read: {(error.strerror or str(error)).lower()}.") from None


@contextmanager
def interruptible(shown: Progress) -> Iterator[Progress]:
    """The progress, cancelled by Ctrl-C or SIGTERM between two steps; a second Ctrl-C ends the process where it is."""
    stop = threading.Event()

    def stopping(number: int, frame: FrameType | None) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    before = {number: signal.signal(number, stopping) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield Progress(shown.step, stop.is_set)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
