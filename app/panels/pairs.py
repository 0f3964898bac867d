"""The run that stands as B beside a view's own, and how the tokens of the two are matched, as options of a panel."""

from collections.abc import Sequence
from typing import Any, Literal

from analysis.alignment import Alignment, by_position, by_token
from app.comparison import Pair, default_alignment, make_pair, token_texts
from app.panels.panel import Option
from app.view import Gap, View
from probes.checks import whole
from probes.errors import BadRequest
from probes.runner import RunResult

__all__ = ["PAIR", "Align", "align_options", "aligned_by", "other_run", "pair_of"]

Align = Literal["default", "position", "token"]
_ALIGN: tuple[Align, ...] = ("default", "position", "token")
PAIR = {"b": Option(str), "align": Option(_ALIGN, "compare-align"), "pairs": Option(list, "compare-pairs")}


def other_run(view: View, b: str) -> RunResult:
    """The run that stands as B. Raises Gap if none is named, or the store does not have it."""
    if not b:
        raise Gap("No second run was chosen.")
    found = view.services.open(b)
    if found is None:
        raise Gap("The second run is not in this store.")
    return found


def pair_of(view: View, b: str, align: Align = "default", pairs: Sequence[Any] | None = None) -> Pair:
    """The run of a view and B. ``pairs``, where given, says what stands against what, as :func:`align_options` writes it.

    Raises Gap as :func:`other_run` does, BadRequest for pairs that do not fit the two texts.
    """
    other = other_run(view, b)
    try:
        aligned = _aligned(view, other, align) if pairs is None else aligned_by(pairs, view.result.info.n_tokens)
        return make_pair(view.result, other, aligned, view.selection, view.services.memo.get, view.services.decode)
    except ValueError as problem:
        raise BadRequest(f"These pairs cannot be: {problem}.") from None


def align_options(view: View, other: RunResult, alignment: Alignment) -> dict[str, Any]:
    """An alignment as options of a panel: nothing for the default, a name, or stretches of pairs (a, b, length)."""
    for align in _ALIGN:
        if alignment == _aligned(view, other, align):
            return {} if align == "default" else {"align": align}
    stretches: list[list[int]] = []
    for a, b in alignment.pairs:
        if stretches and (a, b) == (stretches[-1][0] + stretches[-1][2], stretches[-1][1] + stretches[-1][2]):
            stretches[-1][2] += 1
        else:
            stretches.append([a, b, 1])
    return {"pairs": stretches}


def _aligned(view: View, other: RunResult, align: Align) -> Alignment:
    """The two texts by position or token, worked out once."""
    a, b = view.result, other

    def build() -> Alignment:
        if align == "position":
            return by_position(a.info.n_tokens, b.info.n_tokens)
        return by_token(token_texts(a), token_texts(b)) if align == "token" else default_alignment(a, b)[1]

    found: Alignment = view.memo(("alignment", b.info.run_id, align), build)
    return found


def aligned_by(pairs: Sequence[Any], count: int) -> Alignment:
    """The alignment of pairs (a, b) and stretches (a, b, length), at most ``count`` in all. Raises ValueError."""
    found: list[tuple[int, int]] = []
    for row in pairs:
        if not isinstance(row, list | tuple) or len(row) not in (2, 3) or not all(map(whole, row)):
            raise ValueError(
                f"a pair is two positions, and a stretch two positions and its length, not {str(row)[:64]!r}"
            )
        a, b, length = (*row, 1)[:3]
        if len(found) + length > count:
            raise ValueError(f"they are more than the {count} tokens of A")
        found += [(a + i, b + i) for i in range(length)]
    return Alignment(tuple(found))
