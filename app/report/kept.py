"""The browser that is kept between pictures: started when it is needed, ended when it has had nothing to do."""

import atexit
import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from app.report import drawer
from app.report.chromium import HINT, PictureError, end, find_chromium

__all__ = ["Kept"]

_IDLE = 60.0  # seconds a browser is kept without use
_SCRIPT = Path(drawer.__file__)


class _Browser:
    """A process of :mod:`app.report.drawer` and its Chromium, with a temporary folder of their own."""

    def __init__(self) -> None:
        chromium = find_chromium()
        self._folder = tempfile.mkdtemp(prefix="eigenscope-")
        self._channel, theirs = socket.socketpair()
        with theirs:
            # -P: the names of this folder must not stand in for those of the standard library.
            self._process = subprocess.Popen(
                [sys.executable, "-P", str(_SCRIPT), str(theirs.fileno()), chromium],
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env={**os.environ, "TMPDIR": self._folder, "CHROME_CONFIG_HOME": self._folder},
                start_new_session=True,
            )

    def ask(self, task: bytes, until: float) -> bytes:
        """The file a task asks for. Raises TimeoutError at ``until``, PictureError where there is no file."""
        try:
            self._channel.settimeout(_left(until))
            drawer.send(self._channel, task)
            self._channel.settimeout(_left(until))
            answer = drawer.receive(self._channel)
        except TimeoutError:
            raise
        except OSError:
            answer = None
        if answer is None:
            raise PictureError(f"Chromium could not be started or ended by itself, so nothing was drawn: {HINT}.")
        if not answer.startswith(b"+"):
            reason = " ".join(answer[1:].decode(errors="replace").split())
            raise PictureError(f"This could not be drawn: {reason[:200]}")
        return answer[1:]

    def close(self, patience: float) -> None:
        """Let it end by itself for ``patience`` seconds, then kill it with all that it started."""
        self._channel.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(patience)
        end(self._process)
        for _ in range(3):
            shutil.rmtree(self._folder, ignore_errors=True)
            if not os.path.exists(self._folder):
                return
            time.sleep(0.2)  # a Chromium whose parent died still writes while it ends by itself


class Kept:
    """One browser for all threads, which take turns. What is not there ``within`` so many seconds is given up."""

    def __init__(self, within: float) -> None:
        self._within = within
        self._turn = threading.Lock()
        self._browser: _Browser | None = None
        self._idle: threading.Timer | None = None
        atexit.register(self.close)

    def draw(self, task: bytes, within: float = 0.0) -> bytes:
        """The file that a task of :mod:`app.report.drawer` asks for. Raises PictureError where there is none in time, which
        is longer for a task that may take ``within``."""
        patience = max(self._within, within)
        until = time.monotonic() + patience
        late = f"Chromium drew nothing within {patience:.0f} s; if this happens again, {HINT}."
        if not self._turn.acquire(timeout=patience):
            raise PictureError(late)
        try:
            return self._drawn(task, until)
        except TimeoutError:
            self._end(0.0)
            raise PictureError(late) from None
        except BaseException:  # an answer that nobody waits for must not become that of the next task
            self._end(0.0)
            raise
        finally:
            self._watch()
            self._turn.release()

    def close(self) -> None:
        """End the browser, if there is one; what is being drawn is given up."""
        mine = self._turn.acquire(timeout=1)
        self._end(3.0 if mine else 0.0)
        if mine:
            self._turn.release()

    def _drawn(self, task: bytes, until: float) -> bytes:
        if self._browser is not None:
            try:
                return self._browser.ask(task, until)
            except PictureError:  # it may have died since it was last used
                self._end(0.0)
        self._browser = _Browser()
        return self._browser.ask(task, until)

    def _end(self, patience: float) -> None:
        if self._browser is not None:
            self._browser.close(patience)
            self._browser = None

    def _watch(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
        self._idle = None
        if self._browser is not None:
            self._idle = threading.Timer(_IDLE, self.close)
            self._idle.daemon = True
            self._idle.start()


def _left(until: float) -> float:
    """Seconds until then. Raises TimeoutError if there are none."""
    left = until - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left
