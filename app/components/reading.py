"""Small things that pages ask of the open run: its block and head in sight, a stretch of tokens, a kept tensor."""

from collections.abc import Mapping

import streamlit as st
from torch import Tensor

from app.components.view import View

__all__ = ["around", "block_of", "choice", "head_of", "kept"]


def block_of(view: View) -> int:
    """The block whose output the selected point is; block 0 for the embeddings."""
    return max(view.selection.point - 1, 0)


def head_of(view: View) -> tuple[int, str]:
    """The selected head, or the one of the block that looks most at position 0, and a word on why it is this one."""
    if view.selection.head is not None:
        return view.selection.head, ""
    scores = view.metric("head_metrics", "sink_score")
    here = scores[scores["layer"] == block_of(view)].set_index("head")["value"].dropna()
    return (0, "") if here.empty else (int(here.idxmax()), ", largest sink score")


def around(view: View, limit: int) -> tuple[int, tuple[str, ...]]:
    """The raw tokens in sight and the position of the first: all of them, or ``limit`` around the selected one."""
    count = len(view.tokens)
    if count <= limit:
        return 0, view.tokens
    first = min(max(view.selection.position - limit // 2, 0), count - limit)
    return first, view.tokens[first : first + limit]


def kept(view: View, name: str) -> Tensor | None:
    """A tensor of the run or its capture; None once the store has dropped it to stay within its budget."""
    try:
        return view.result.tensor(name)
    except KeyError:
        return None


def choice(label: str, options: Mapping[str, str], key: str) -> str:
    """One of ``options`` (value -> what people read), as buttons; the first to begin with."""
    chosen = st.segmented_control(
        label,
        list(options),
        default=next(iter(options)),
        format_func=options.__getitem__,
        key=key,
        label_visibility="collapsed",
        required=True,
    )
    return str(chosen)
