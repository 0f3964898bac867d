"""Which position of one text stands against which of another, and which point of one model against which of another."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import cached_property
from numbers import Integral

import pandas as pd

__all__ = ["Alignment", "by_position", "by_token", "from_rows", "layer_map"]


@dataclass(frozen=True)
class Alignment:
    """Pairs of positions (A, B), each position in at most one pair; kept in the order of A.

    They need not rise together: a shuffled text is aligned token by token. Raises ValueError for a pair that is no two
    whole numbers from 0 on, and for a position that stands in two pairs.
    """

    pairs: tuple[tuple[int, int], ...]

    def __post_init__(self) -> None:
        for pair in self.pairs:
            for side, position in zip("AB", pair, strict=True):
                if type(position) is not int or position < 0:
                    raise ValueError(f"a position of {side} must be a whole number from 0 on, not {position!r}")
        for index, side in enumerate("AB"):
            seen: set[int] = set()
            for pair in self.pairs:
                if pair[index] in seen:
                    raise ValueError(f"position {pair[index]} of {side} stands in two pairs; it may stand in one")
                seen.add(pair[index])
        object.__setattr__(self, "pairs", tuple(sorted(self.pairs)))

    def within(self, n_a: int, n_b: int) -> "Alignment":
        """The alignment itself. Raises ValueError, naming the range, for a position beyond texts of these lengths."""
        for index, (side, count) in enumerate((("A", n_a), ("B", n_b))):
            for pair in self.pairs:
                if pair[index] >= count:
                    allowed = f"it must be from 0 to {count - 1}" if count else "that text has no tokens"
                    raise ValueError(f"{side} has no position {pair[index]}; {allowed}")
        return self

    @cached_property
    def to_b(self) -> dict[int, int]:
        """Position of B for each aligned position of A."""
        return dict(self.pairs)

    @cached_property
    def to_a(self) -> dict[int, int]:
        """Position of A for each aligned position of B."""
        return {b: a for a, b in self.pairs}

    def __len__(self) -> int:
        return len(self.pairs)


def from_rows(rows: Iterable[tuple[object, object]], n_a: int, n_b: int) -> Alignment:
    """The alignment a table of positions says, as a person edits it: rows without either position are left out.

    Raises ValueError, naming the row from 1, for a missing position or one that is no whole number, and as
    :class:`Alignment` and :meth:`Alignment.within` do.
    """
    pairs = []
    for number, row in enumerate(rows, start=1):
        if all(_missing(value) for value in row):
            continue
        for side, value, count in zip("AB", row, (n_a, n_b), strict=True):
            if not _whole(value):
                said = "lacks the position" if _missing(value) else f"says {value!r}, no whole number, as the position"
                raise ValueError(f"row {number} {said} of {side}; it must be from 0 to {count - 1}")
        pairs.append((int(row[0]), int(row[1])))  # type: ignore[call-overload]
    return Alignment(tuple(pairs)).within(n_a, n_b)


def by_position(n_a: int, n_b: int) -> Alignment:
    """The same position in both, as far as the shorter text goes. Raises ValueError for a negative length."""
    for side, count in (("A", n_a), ("B", n_b)):
        if count < 0:
            raise ValueError(f"the length of {side} must be 0 or more, not {count}")
    return Alignment(tuple((position, position) for position in range(min(n_a, n_b))))


def by_token(tokens_a: Sequence[str], tokens_b: Sequence[str]) -> Alignment:
    """Equal token texts in the same order, the longest common stretches first (``difflib``).

    Texts are compared, not ids, so two tokenizers can be.
    """
    matcher = SequenceMatcher(None, list(tokens_a), list(tokens_b), autojunk=False)
    blocks = matcher.get_matching_blocks()
    return Alignment(tuple((block.a + i, block.b + i) for block in blocks for i in range(block.size)))


def layer_map(n_layers_a: int, n_layers_b: int) -> tuple[int, ...]:
    """For each point 0..L of A the nearest point of B by fraction of depth; between two equally near, the lower.

    Raises ValueError for a model without layers.
    """
    for side, count in (("A", n_layers_a), ("B", n_layers_b)):
        if count < 1:
            raise ValueError(f"{side} must have at least 1 layer, not {count}")
    # ceil(point * L_b / L_a - 1 / 2), in whole numbers
    return tuple(-((n_layers_a - 2 * point * n_layers_b) // (2 * n_layers_a)) for point in range(n_layers_a + 1))


def _missing(value: object) -> bool:
    return value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value))


def _whole(value: object) -> bool:
    if isinstance(value, float):
        return value.is_integer()
    return isinstance(value, Integral) and not isinstance(value, bool)
