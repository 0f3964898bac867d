"""Panels of what the heads of the selected block look at: patterns, and attention against what values carry."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.values import key_ranks, value_weighted
from app.figures.attention import attention_map, head_thumbnails
from app.figures.sinks import rank_scatter
from app.panels.panel import POSITION, Click, Drawn, Option, Place, panel
from app.panels.reading import block_of, head_of
from app.panels.sinks import LOST
from app.text import markdown
from app.view import Gap, View
from probes.pattern import pool_step
from probes.request import ProbeCall

__all__ = ["pattern_call"]

_GONE = "This pattern was computed once and has been dropped to keep the store within its budget."
_OPTIONS = {"log": Option(bool, "sinks-pattern-log"), "hide": Option(bool, "sinks-pattern-hide")}


def pattern_call(view: View) -> ProbeCall:
    """The question whose answer holds the pattern of the selected block."""
    return ProbeCall("pattern", {"block": block_of(view)})


@panel("sinks-all-heads", "sinks", "All heads", "Which heads look alike, and which only at position 0? A click opens a head.",
       ("sinks", "Attention pattern"), options=_OPTIONS)  # fmt: skip
def all_heads(view: View, log: bool = True, hide: bool = False) -> Drawn:
    block, (pattern, note) = block_of(view), _pattern(view)
    step = pool_step(len(view.tokens))
    figure = view.figure(
        "sinks-all-heads", lambda: head_thumbnails(pattern, log=log, hide_first=hide, step=step), block, log, hide
    )
    return Drawn(figure, f"All heads of block {block}", note=note, csv=lambda: _all(pattern), pick=_thumbnail)


@panel("sinks-attention", "sinks", "Attention pattern", "Which query attends to which key?",
       ("sinks", "Attention pattern"), options=_OPTIONS)  # fmt: skip
def attention(view: View, log: bool = True, hide: bool = False) -> Drawn:
    block, (head, why) = block_of(view), head_of(view)
    pattern, note = _pattern(view)
    sums = view.kept("attention.column_sum")
    if sums is None:
        raise Gap(LOST)
    received, step = sums[block, head].numpy(), pool_step(len(view.tokens))
    figure = view.figure(
        "sinks-attention",
        lambda: attention_map(pattern[head], received, view.tokens, log=log, hide_first=hide, step=step),
        *(block, head, log, hide),
    )
    return Drawn(figure, f"Block {block}, head {head}{why}", note=note, place=POSITION,
                 csv=lambda: _long(pattern[head]))  # fmt: skip


@panel("sinks-values", "sinks", "Attention and values", "Does the value of a key carry what its attention promises?",
       ("sinks", "Values and VATP"), options={"first": Option(bool, "sinks-keep")})  # fmt: skip
def values(view: View, first: bool = False) -> Drawn:
    block, (head, why) = block_of(view), head_of(view)
    sums, norms, out = (view.kept(f"attention.{name}") for name in ("column_sum", "value_l1", "value_out"))
    if sums is None or norms is None or out is None:
        raise Gap(LOST)
    received = sums[block, head].double()
    keys = pd.DataFrame(
        {
            "pos": np.arange(len(received)),
            "attention_rank": key_ranks(received).numpy(),
            "vatp_rank": key_ranks(value_weighted(received, norms[block, head]), int(first)).numpy(),
            "value_l1": norms[block, head].numpy(),
            "effective": value_weighted(received, out[block, head]).numpy(),
        }
    )
    figure = view.figure("sinks-values", lambda: rank_scatter(keys, view.tokens, 1), block, head, first)
    return Drawn(figure, f"Attention and values, block {block}, head {head}{why}", csv=keys, place=Place(), pick=_dot)


def _pattern(view: View) -> tuple[NDArray[np.float32], str | None]:
    """The pattern of the selected block, and what its run remarked. Raises Gap where it is not there."""
    answer = view.answer(pattern_call(view))
    try:
        pattern = answer.tensor("pattern").numpy()
    except KeyError:
        raise Gap(_GONE) from None
    return pattern, " ".join(markdown(told) for told in answer.info.notes) or None


def _long(pattern: NDArray[np.float32]) -> pd.DataFrame:
    query, key = np.tril_indices(pattern.shape[0])
    return pd.DataFrame({"query": query, "key": key, "attention": pattern[query, key]})


def _all(pattern: NDArray[np.float32]) -> pd.DataFrame:
    return pd.concat([_long(one).assign(head=head) for head, one in enumerate(pattern)], ignore_index=True)


def _thumbnail(click: Click) -> dict[str, int | None]:
    head, _, key = click.customdata
    return {"head": int(head), "position": int(key)}


def _dot(click: Click) -> dict[str, int | None]:
    return {"position": int(click.customdata[1])} if click.customdata else {}
