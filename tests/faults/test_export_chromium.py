"""34: Chromium absent, hanging or dying: one sentence within 30 s (a report: 60 s), and no process left behind."""

import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import plotly.graph_objects as go
import psutil
import pytest

from app.report import kept, pdf, pictures
from app.report.chromium import PictureError
from app.report.document import Document
from app.report.pdf import pdf_report
from app.report.pictures import picture

FIGURE = go.Figure().add_bar(x=[1, 2], y=[3, 4])
EMPTY = Document("nothing", "", (), (), {})


@pytest.fixture(autouse=True)
def no_browser_kept() -> Iterator[None]:
    pictures.close()
    pdf.close()
    yield
    pictures.close()
    pdf.close()


def ours() -> set[int]:
    """Our own child processes, ended or not."""
    return {process.pid for process in psutil.Process().children(recursive=True)}


def left_over(marker: str, before: set[int]) -> list[int]:
    """Processes that have the marker in their command line, and children of ours that are new."""
    found = psutil.process_iter(["cmdline"])
    named = [process.pid for process in found if marker in " ".join(process.info["cmdline"] or [])]
    return [*named, *(ours() - before)]


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A place where what is called chromium is whatever a test writes there."""
    script = tmp_path / "chromium"
    script.write_text("#!/bin/sh\nexit 1\n")
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    return script


def test_absent_is_said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    for make in (lambda: picture(FIGURE, "png"), lambda: pdf_report(EMPTY)):
        with pytest.raises(PictureError, match=r"which was not found: .*apt-get install chromium.*\.$"):
            make()


def test_a_hanging_one_is_given_up_within_30_s(fake: Path) -> None:
    fake.write_text("#!/bin/sh\ntrap '' TERM INT HUP\nsleep 1000\nsleep 1000\n")
    before, started = ours(), time.monotonic()
    with pytest.raises(PictureError, match=r"drew nothing within 25 s; .*apt-get install chromium"):
        picture(FIGURE, "svg")
    assert time.monotonic() - started < 30
    assert left_over(str(fake), before) == []


def test_a_hanging_one_is_given_up_when_it_prints_too(fake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pdf, "_KEPT", kept.Kept(within=3.0))  # 55 s as it is shipped
    fake.write_text("#!/bin/sh\nsleep 1000\n")
    before = ours()
    with pytest.raises(PictureError, match="drew nothing within 3 s"):
        pdf_report(EMPTY)
    assert left_over(str(fake), before) == []


def test_one_that_ends_at_once_is_said(fake: Path) -> None:
    before = ours()
    with pytest.raises(PictureError, match=r"could not be started.*apt-get install chromium"):
        picture(FIGURE, "svg")
    assert left_over(str(fake), before) == []


def test_a_stopped_one_is_killed_and_the_next_picture_is_drawn(chromium: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "_KEPT", kept.Kept(within=12.0))  # 25 s as it is shipped
    before = ours()
    picture(FIGURE, "svg")
    for pid in ours() - before:
        if "python" not in psutil.Process(pid).name():
            psutil.Process(pid).suspend()
    with pytest.raises(PictureError, match="within 12 s"):
        picture(FIGURE, "svg")
    assert ours() - before == set()
    assert picture(FIGURE, "svg").startswith(b"<svg ")


def test_what_is_kept_ends_when_nothing_is_drawn(chromium: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "_IDLE", 0.5)
    before = ours()
    picture(FIGURE, "svg")
    assert ours() - before
    for _ in range(100):
        if ours() <= before:
            break
        time.sleep(0.1)
    assert ours() <= before
