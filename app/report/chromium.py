"""The one browser that pictures and printed reports need: where it is, and how what was started for it is ended."""

import contextlib
import shutil
import subprocess

import psutil

__all__ = ["HINT", "PictureError", "end", "find_chromium"]

HINT = "install Debian's Chromium (apt-get install chromium) or put chromium or google-chrome on the PATH"
_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


class PictureError(Exception):
    """Why there is no picture or printed report, in one sentence."""


def find_chromium() -> str:
    """The path of a Chromium or Chrome. Raises PictureError if there is none."""
    for name in _NAMES:
        found = shutil.which(name)
        if found is not None:
            return found
    raise PictureError(f"Pictures and PDFs are drawn by Chromium, which was not found: {HINT}.")


def end(process: subprocess.Popen[bytes]) -> None:
    """Kill a process with all that it started, and wait until they are gone."""
    try:
        started = psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        started = []
    for child in reversed(started):  # the last first, so that each is reaped by the one that started it
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()
    psutil.wait_procs(started, timeout=2)
    process.kill()
    process.wait()
