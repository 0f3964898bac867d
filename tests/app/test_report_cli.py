"""`figure` and `report` on the command line, over a store with one run of a tiny model and a session."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import pytest
import typer

from app import cli_report
from app.report import pdf, pictures
from app.report.chromium import PictureError
from cache import Store
from cache.sessions import Item
from probes.errors import BadRequest
from probes.model.shelf import Shelf
from probes.model.tokenise import text_ids
from probes.progress import Progress
from probes.request import ProbeCall, RunRequest
from probes.runner import Runner
from tests import tiny
from tests.app.test_report_document import WORDS


class Place:
    """A store with a run and a session, and the commands over it."""

    def __init__(self, folder: Path, model: Path) -> None:
        self.folder, self.store, self.said = folder, folder / "store.duckdb", list[str]()
        shelf = Shelf(allow_paths=True)
        with Store.open(self.store) as store:
            ids = text_ids(shelf.get(str(model)), tiny.TEXT, bos=True)
            calls = (ProbeCall("tokens"), ProbeCall("sinks"), ProbeCall("massive"))
            self.run = Runner(store, shelf).run(RunRequest(str(model), ids, calls)).info
            session, _ = store.create_session(WORDS)
            self.session = session.session_id
            items = [Item("sinks-heads", {"set": {}, "runs": []}, {"point": 2}, WORDS, self.run.run_id)]
            items.append(Item("massive-top", {"set": {}, "runs": []}, {"point": 1}, "", self.run.run_id))
            store.save_session(self.session, notes="# Found", items=items)
        self.request = folder / "request.json"
        self.request.write_text(self.run.request.as_json())

    def call(self, *arguments: str) -> None:
        cli = typer.Typer()

        @contextmanager
        def opened(where: str | None) -> Iterator[Store]:
            with Store.open(where or self.store) as store:
                yield store

        @contextmanager
        def watched() -> Iterator[Progress]:
            yield Progress()

        cli_report.add_to(cli, opened, watched, self.said.append)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", ["app", *arguments])
            cli(standalone_mode=False)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("place")
    yield Place(folder, tiny.save(folder / "tiny-llama"))
    pictures.close()
    pdf.close()


@pytest.mark.parametrize("suffix", ["png", "svg", "pdf", "csv", "html"])
def test_a_figure_of_a_stored_run_in_every_format(place: Place, tmp_path: Path, chromium: str, suffix: str) -> None:
    out = tmp_path / f"heads.{suffix}"
    place.call(
        "figure",
        "sinks-heads",
        "--run",
        place.run.run_id,
        "--set",
        "metric=sink_ratio",
        "--point",
        "2",
        "--out",
        str(out),
    )
    starts = {"png": b"\x89PNG", "svg": b"<svg", "pdf": b"%PDF", "csv": b"layer,head,", "html": b"<!doctype html>"}
    assert out.read_bytes().startswith(starts[suffix])
    assert [file.name for file in tmp_path.iterdir()] == [out.name]
    assert out.stat().st_mode & 0o777 == 0o666 & ~umask()


def test_a_figure_of_a_request_is_made_in_memory(place: Place, tmp_path: Path) -> None:
    out = tmp_path / "received.csv"
    asked = (
        "--request",
        str(place.request),
        "--point",
        "1",
        "--position",
        "4",
        "--head",
        "2",
        "--span",
        "1-3",
        "--from",
        "0",
    )
    place.call("figure", "sinks-tokens", *asked, "--set", "log=false", "--store", ":memory:", "--out", str(out))
    table = pd.read_csv(out)
    assert list(table.columns) == ["token", "a_k", "uniform"]
    assert len(table) == place.run.n_tokens


def test_the_numbers_of_a_csv_are_those_of_the_store(place: Place, tmp_path: Path) -> None:
    out = tmp_path / "heads.csv"
    place.call("figure", "sinks-heads", "--run", place.run.run_id[:10], "--out", str(out))
    with Store.open(place.store) as store:
        stored = store.table(place.run.run_id, "head_metrics")
    assert pd.read_csv(out)["value"].to_numpy() == pytest.approx(stored["value"].to_numpy(), rel=0, abs=0, nan_ok=True)


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("--run", "RUN", "--request", "REQUEST"), "exactly one of --request and --run"),
        ((), "exactly one of --request and --run"),
        (("--run", "none"), "The store holds no run 'none'"),
        (("--run", "RUN", "--set", "metric"), "option=value"),
        (("--run", "RUN", "--set", "metric=nonsense"), "metric must be one of"),
        (("--run", "RUN", "--set", "colour=1"), "has no option 'colour'"),
        (("--run", "RUN", "--point", "99"), "--point must be from 0 to 3 in this run, not 99"),
        (("--run", "RUN", "--dim", "32"), "--dim must be from 0 to 31"),
        (("--run", "RUN", "--span", "9-2"), "--span must be FIRST-LAST"),
        (("--run", "RUN", "--theme", "red"), "--theme must be light or dark"),
        (("--request", "nowhere.json"), "cannot be read: no such file"),
        (("--request", "BROKEN"), "holds no request"),
        (("--run", "RUN", "--set-run", "b=nowhere.json"), "cannot be read"),
    ],
)
def test_what_does_not_fit_is_one_sentence_and_writes_nothing(
    place: Place, tmp_path: Path, arguments: tuple[str, ...], why: str
) -> None:
    broken = place.folder / "broken.json"
    broken.write_text('{"model": 3}')
    given = {"RUN": place.run.run_id, "REQUEST": str(place.request), "BROKEN": str(broken)}
    with pytest.raises(BadRequest, match=why):
        place.call(
            "figure", "sinks-heads", *(given.get(one, one) for one in arguments), "--out", str(tmp_path / "out.csv")
        )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", ["", "[]", "{}", "7", "[" * 100_000, '{"token_ids": [1]}', "\x00"])
def test_a_file_that_is_no_request_is_said(place: Place, tmp_path: Path, content: str) -> None:
    file = tmp_path / "request.json"
    file.write_text(content)
    with pytest.raises(BadRequest, match=r"holds no request|must|probe"):
        place.call("figure", "sinks-heads", "--request", str(file), "--out", str(tmp_path / "out.csv"))


def test_a_place_that_cannot_be_written_is_said_before_any_work(place: Place, tmp_path: Path) -> None:
    for out, why in ((tmp_path / "none" / "a.svg", "a folder that exists"), (tmp_path / "a.exe", "must end with .png")):
        with pytest.raises(BadRequest, match=why):
            place.call("figure", "sinks-heads", "--run", "never looked for", "--out", str(out))


def test_a_panel_that_has_nothing_to_show_says_why(place: Place, tmp_path: Path) -> None:
    out = tmp_path / "lens.svg"
    with pytest.raises(PictureError, match=r"^[^\\]+\.$"):
        place.call("figure", "latents-map", "--run", place.run.run_id, "--out", str(out))
    assert not out.exists()


def test_a_report_by_id_and_by_title_in_every_format(place: Place, tmp_path: Path, chromium: str) -> None:
    html, printed = tmp_path / "a.html", tmp_path / "a.pdf"
    place.call("report", place.session, "--format", "html", "--out", str(html))
    place.call("report", WORDS, "--format", "pdf", "--paper", "Letter", "--out", str(printed))
    assert html.read_bytes().count(b"<article") == 3
    assert printed.read_bytes().startswith(b"%PDF")
    book = tmp_path / "a.ipynb"
    place.call("report", place.session, "--out", str(book))
    assert json.loads(book.read_text())["nbformat"] == 4
    assert (tmp_path / "a.eigenscope").read_bytes().startswith(b"PK")
    assert f"BUNDLE = Path('{book.stem}.eigenscope')" in book.read_text()


def test_a_session_that_is_not_there_is_said(place: Place, tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match="No session has the id or title 'nothing'"):
        place.call("report", "nothing", "--out", str(tmp_path / "a.html"))
    for wrong in (("--format", "doc"), ("--paper", "A3"), ("--theme", "red")):
        with pytest.raises(BadRequest, match=f"{wrong[0]} must be"):
            place.call("report", place.session, *wrong, "--out", str(tmp_path / "a.html"))
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_there_stays_until_the_new_one_is_whole(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "heads.csv"
    out.write_text("mine")

    def full(*given: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("app.report.files.os.replace", full)
    with pytest.raises(OSError, match="No space"):
        place.call("figure", "sinks-heads", "--run", place.run.run_id, "--out", str(out))
    assert out.read_text() == "mine"
    assert [file.name for file in tmp_path.iterdir()] == ["heads.csv"]


def umask() -> int:
    import os

    mask = os.umask(0o022)
    os.umask(mask)
    return mask
