"""What two prompts answer: the logit difference of two tokens, what patching A into B restores, and how both go on."""

from typing import Any

import numpy as np
import streamlit as st

from app.components.explore import extra
from app.components.panel import show
from app.methods import section
from app.panels.two_prompts import answers, difference_call, incomparable, patching_call, unpatchable
from app.text import markdown, printable, visible
from app.view import View
from probes.request import ProbeCall
from probes.runner import RunResult

__all__ = ["WRITTEN", "answer_panels", "prose", "written"]

WRITTEN = 40  # tokens of a continuation


def answer_panels(a: View, b: View) -> None:
    """Logit difference, patching and continuations of two runs; each says why where it cannot be made."""
    _difference(a, b)
    _continuations(a, b)


def _difference(a: View, b: View) -> None:
    asked: dict[str, Any] = {"b": b.info.run_id}
    begun = None if incomparable(a, b) is not None else answers(a, b)
    if begun is None:
        show(a, "compare-logits", **asked)
        return
    chosen = _tokens(a, b, begun)
    if chosen is None:
        return
    asked |= {"target": chosen[0], "versus": chosen[1]}
    if a.facts.n_layers == b.facts.n_layers:
        reads = [
            extra(view, difference_call(*chosen), label=f"Read the difference in {name}", auto=view.loaded)
            for name, view in (("A", a), ("B", b))
        ]
        if reads[0] is None or reads[1] is None:
            return
    show(a, "compare-logits", **asked)
    if unpatchable(a, b) is None:
        label = f"Patch every point and position ({len(b.tokens)} tokens)"
        if extra(b, patching_call(a, *chosen), label=label) is None:
            return
    show(a, "compare-patching", **asked)


def _tokens(a: View, b: View, answers: tuple[int, int]) -> tuple[int, int] | None:
    """The two tokens as a person chose them, at first ``answers``; None while they are not two tokens."""
    texts = [visible(piece) for piece in a.decode(answers)]
    with st.container(horizontal=True, vertical_alignment="bottom", key="compare-tokens"):
        typed = [
            st.text_input(
                label, text, key=f"compare-token-{n}-{a.info.run_id}-{b.info.run_id}", max_chars=100, width=220
            )
            for n, (label, text) in enumerate(zip(("Logit of the token", "minus that of"), texts, strict=True))
        ]
    ids = []
    for text, shown, answer in zip(typed, texts, answers, strict=True):
        found = [answer] if text == shown else _ids(a, text)
        if len(found) != 1:
            st.warning(
                f"“{markdown(visible(text))}” is {len(found)} tokens: give one, with its leading space, or ·, where it has one."
            )
            return None
        ids.append(int(found[0]))
    if ids[0] == ids[1]:
        st.warning("Give two different tokens.")
        return None
    return ids[0], ids[1]


def _ids(view: View, text: str) -> list[int]:
    """The tokens of a text as it is shown or as it is typed: a leading · is a space, a special token goes by its name."""
    tokenizer = view.services.tokenizer(view.info.model)
    if text in tokenizer.all_special_tokens:
        return [int(tokenizer.convert_tokens_to_ids(text))]
    spaced = " " + text[1:] if text.startswith("·") else text
    found: list[int] = tokenizer(spaced, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    return found


def _continuations(a: View, b: View) -> None:
    st.markdown("**Continuations** :small[:gray[What would each write next?]]")
    call = ProbeCall("continuation", {"tokens": WRITTEN})
    sides = (("A", a),) if a.info.run_id == b.info.run_id else (("A", a), ("B", b))
    for column, (name, view) in zip(st.columns(len(sides)), sides, strict=True):
        with column:
            read = extra(view, call, label=f"Let {name} go on for {WRITTEN} tokens")
            if read is not None:
                written(name, view, read)
    with st.expander("How to read it / when not to trust it"):
        st.markdown(section("interventions", "Continuations"))


def written(name: str, view: View, read: RunResult) -> None:
    """Draw a continuation that ``read`` holds, and how sure the model was of it."""
    rows = read.table("layer_metrics")
    loss = -float(rows.loc[rows["metric"] == "continuation_logprob", "value"].iloc[0])
    st.caption(f"{name}: mean surprise of what it writes {loss:.2f} nats a token")
    ids = read.tensor("continuation").numpy().astype(np.int64).tolist()
    st.markdown(markdown("".join(prose(piece) for piece in view.decode(ids))))


def prose(piece: str) -> str:
    """A token with its spaces as spaces, so that lines break between words."""
    before, after = len(piece) - len(piece.lstrip(" ")), len(piece) - len(piece.rstrip(" "))
    core = piece.strip(" ")
    return " " * before + visible(core) + " " * after if core else printable(piece)
