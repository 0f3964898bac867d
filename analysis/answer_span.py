"""Where a response begins to state its answer: features are cut before it, or they would read the answer itself."""

import re
from collections.abc import Sequence
from typing import Final

import numpy as np

__all__ = ["ANSWER", "tokens_before_answer"]

ANSWER: Final = re.compile(r"answer\s+is|####|\\boxed", re.IGNORECASE)


def tokens_before_answer(tokens: Sequence[str]) -> int:
    """How many tokens of the response end before the first ``answer is``, ``####`` or ``\\boxed``.

    All of them where none stands. A token that the match begins in is cut off too.
    """
    found = ANSWER.search("".join(tokens))
    if found is None:
        return len(tokens)
    ends = np.cumsum([len(token) for token in tokens])
    return int(np.searchsorted(ends, found.start(), side="right"))
