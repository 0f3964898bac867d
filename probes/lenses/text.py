"""Text a tuned lens learns from where no own is given: excerpts of the corpus of the shipped SAE."""

import random
from collections.abc import Sequence

from probes.saes.corpus import Document
from probes.saes.index_text import corpus_text
from probes.saes.own_request import Text

__all__ = ["EXCERPT", "corpus_excerpts", "excerpts"]

EXCERPT = 6_000
"""Characters of a document that are used: about 12 chunks. A whole book would outweigh every article."""


def corpus_excerpts(seed: int) -> tuple[Text, ...]:
    """An excerpt of every document of the corpus, which is fetched if it is not there. Raises OSError if it cannot be had."""
    return excerpts(corpus_text().documents, seed)


def excerpts(documents: Sequence[Document], seed: int) -> tuple[Text, ...]:
    """One stretch of each document with running text, from a place drawn at random, beginning with a whole line."""
    draw = random.Random(seed)
    found = []
    for number, document in enumerate(documents):
        if not document.text:
            continue
        first = draw.randrange(max(1, len(document.text) - EXCERPT))
        first = document.text.find("\n", first) + 1 if first else 0
        piece = document.text[first : first + EXCERPT]
        found.append(Text(f"{document.source} {number}: {document.name}", piece))
    return tuple(found)
