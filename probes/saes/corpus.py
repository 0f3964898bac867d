"""The text the shipped SAE is trained on: four source packages pinned by sha256, fetched by name, not committed.

Encyclopaedia articles (gensim's test data, CC BY-SA 3.0), English books and proceedings of the Canterbury corpus
(brotli's test data, public domain), manuals (Django's documentation, BSD-3) and short conversations (chatterbot-corpus,
BSD-3). Held-out documents are whole ones, never parts of a document that is trained on.
"""

import bz2
import io
import re
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import yaml

from probes.saes.wikitext import articles

__all__ = ["Document", "documents", "fetch_corpus"]

Source = Literal["wikipedia", "books", "manuals", "conversations"]

_REQUIREMENTS = Path(__file__).with_name("corpus-requirements.txt")
_ENWIKI = "gensim/test/test_data/enwiki-latest-pages-articles1.xml-p000000010p000030302-shortened.bz2"
_BOOKS = re.compile(r"tests/testdata/(alice29|asyoulik|lcet10|plrabn12)\.txt$")
_HELD_OUT_BOOK = "asyoulik.txt"
_MANUALS = re.compile(r"docs/(intro|topics|howto|faq|internals)/.*\.txt$")
_CONVERSATIONS = re.compile(r"chatterbot_corpus/data/english/.*\.yml$")
_HELD_OUT_EVERY = 12
_MIN_CHARACTERS = 2_000


@dataclass(frozen=True, slots=True)
class Document:
    """One document: running ``text``, or ``conversations`` of alternating user and assistant turns."""

    source: Source
    name: str
    text: str
    conversations: tuple[tuple[str, ...], ...]
    held_out: bool


def fetch_corpus(folder: Path) -> None:
    """Download the four source packages into ``folder``; those already there are checked and kept.

    Raises:
        RuntimeError: a package cannot be had or has another sha256; pip's last line says which.
    """
    folder.mkdir(parents=True, exist_ok=True)
    flags = ["--no-deps", "--no-binary=:all:", "--no-build-isolation", "--require-hashes", "--quiet"]
    command = [sys.executable, "-m", "pip", "download", *flags, "-r", str(_REQUIREMENTS), "-d", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or ["pip gave no reason"])[-1]
        raise RuntimeError(f"the corpus could not be fetched: {reason}")


def documents(folder: Path) -> Iterator[Document]:
    """All documents of the packages in ``folder``, source by source, each in the order of its package.

    Every twelfth article, manual page and topic of conversation is held out whole, and one of the four books.
    """
    with bz2.open(_member(folder / "gensim-4.4.0.tar.gz", _ENWIKI)) as dump:
        yield from _texts("wikipedia", articles(dump))
    for name, text in _members(folder / "brotli-1.2.1.tar.gz", _BOOKS):
        yield Document("books", name, text, (), held_out=name == _HELD_OUT_BOOK)
    yield from _texts("manuals", _members(folder / "django-5.2.19.tar.gz", _MANUALS))
    topics = _members(folder / "chatterbot_corpus-1.3.3.tar.gz", _CONVERSATIONS)
    for number, (name, text) in enumerate(topics):
        turns = tuple(tuple(str(turn) for turn in turns) for turns in yaml.safe_load(text)["conversations"])
        yield Document("conversations", name, "", turns, _held_out(number))


def _texts(source: Source, named: Iterator[tuple[str, str]]) -> Iterator[Document]:
    long_enough = ((name, text) for name, text in named if len(text) >= _MIN_CHARACTERS)
    for number, (name, text) in enumerate(long_enough):
        yield Document(source, name, text, (), _held_out(number))


def _held_out(number: int) -> bool:
    return number % _HELD_OUT_EVERY == _HELD_OUT_EVERY // 2


def _members(package: Path, wanted: re.Pattern[str]) -> Iterator[tuple[str, str]]:
    """Name and text of the files of a source package whose path ends as ``wanted``, sorted by path."""
    with tarfile.open(package) as archive:
        for path in sorted(name for name in archive.getnames() if wanted.search(name)):
            file = archive.extractfile(path)
            if file is not None:
                yield Path(path).name, file.read().decode("utf-8", errors="replace").replace("\r\n", "\n")


def _member(package: Path, path: str) -> io.BytesIO:
    with tarfile.open(package) as archive:
        file = archive.extractfile(next(name for name in archive.getnames() if name.endswith(path)))
        if file is None:
            raise RuntimeError(f"{path} of {package.name} is no file")
        return io.BytesIO(file.read())
