"""The app behind its console script, as a person starts it, for browser tests and screenshots."""

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from playwright.sync_api import Page

from probes.model.catalog import EMBEDDED

__all__ = ["CHROMIUM_ARGUMENTS", "furnish", "idle", "start_app"]

REPO = Path(__file__).parents[1]
CHROMIUM_ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]


def furnish(home: Path, embedded_folder: Path) -> Path:
    """Make ``home`` an EIGENSCOPE_HOME with the embedded model, its mean bank and an empty store."""
    (home / "models").mkdir(parents=True)
    (home / "models" / EMBEDDED).symlink_to(embedded_folder)
    banks = embedded_folder.parents[1] / "banks"
    if banks.is_dir():
        shutil.copytree(banks, home / "banks")
    return home


def start_app(home: Path, *arguments: str) -> tuple[subprocess.Popen[bytes], str]:
    """``streamlit run app/main.py`` on a free port; the process and its address, once it answers."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    script = Path(sys.executable).parent / "streamlit"
    with (home / "log").open("wb") as log:
        process = subprocess.Popen(
            [str(script), "run", "app/main.py", "--server.headless", "true", "--server.port", str(port), *arguments],
            cwd=REPO,
            env={**os.environ, "EIGENSCOPE_HOME": str(home), "HF_HUB_OFFLINE": "1", "PYTHONPATH": ""},
            stdout=log,
            stderr=log,
        )
    address = f"http://127.0.0.1:{port}"
    for _ in range(240):
        try:
            urllib.request.urlopen(f"{address}/_stcore/health", timeout=1).close()
            return process, address
        except OSError:
            time.sleep(0.25)
    process.kill()
    raise TimeoutError((home / "log").read_text())


def idle(page: Page) -> None:
    """Wait until Streamlit has nothing left to draw, three looks in a row."""
    quiet = 0
    while quiet < 3:
        page.wait_for_timeout(700)
        busy = page.locator("[data-testid=stStatusWidget], [data-testid=stProgress], [data-testid=stSpinner]").count()
        quiet = 0 if busy else quiet + 1
