"""What two prompts answer: the logit difference of two tokens, what patching A into B restores, and how both go on."""

import numpy as np
import streamlit as st

from app.components.explore import extra
from app.components.panel import panel
from app.components.view import View
from app.figures.patching import difference_lines, patch_map
from app.methods import section
from app.state import select
from app.text import markdown, printable, visible
from probes.patching import LIMIT
from probes.request import ProbeCall
from probes.runner import RunResult

__all__ = ["WRITTEN", "answer_panels", "written"]

WRITTEN = 40  # tokens of a continuation


def answer_panels(a: View, b: View) -> None:
    """Logit difference, patching and continuations of two runs; each says why where it cannot be made."""
    _difference(a, b)
    _continuations(a, b)


def _difference(a: View, b: View) -> None:
    title, question = (
        "Logit difference at the last token",
        "Which answer wins, where is it decided, and which state carries it?",
    )
    if not _same_words(a, b):
        panel("compare-logits", title, question, None, note="The two models do not share a vocabulary.")
        return
    if a.info.run_id == b.info.run_id:
        panel("compare-logits", title, question, None, note="A and B are the same run: there is no difference.")
        return
    chosen = _tokens(a, b)
    if chosen is None:
        return
    target, versus = chosen
    call = {"target": target, "versus": versus}
    reads = [
        extra(view, ProbeCall("patching", call), label=f"Read the difference in {name}", auto=view.loaded)
        for name, view in (("A", a), ("B", b))
    ]
    if reads[0] is None or reads[1] is None:
        return
    names = " − ".join(f"“{markdown(visible(piece))}”" for piece in a.decode(chosen))
    rows = [r.table("layer_metrics")[lambda f: f["metric"] == "logit_diff"] for r in reads if r is not None]
    same_depth = a.facts.n_layers == b.facts.n_layers
    panel(
        "compare-logits",
        f"{title}: {names}",
        question,
        difference_lines(rows[0], rows[1], a.facts.n_layers) if same_depth else None,
        note=None if same_depth else "Models of different depth have no common points.",
        how=section("interventions", "Patching"),
        csv=rows[1],
        on_click=lambda click: select(point=round(float(click.x))),
        x=a.selection.point,
    )
    _patching(a, b, target, versus)


def _patching(a: View, b: View, target: int, versus: int) -> None:
    title, question = "Patching A into B", "Which state of A brings A's answer back?"
    reason = _cannot_patch(a, b)
    if reason is not None:
        panel("compare-patching", title, question, None, note=reason)
        return
    call = ProbeCall("patching", {"target": target, "versus": versus, "source": a.info.run_id})
    read = extra(b, call, label=f"Patch every point and position ({len(b.tokens)} tokens)")
    if read is None:
        return
    layers, cells = read.table("layer_metrics"), read.table("token_metrics")
    ends = {
        name: float(layers.loc[layers["metric"] == f"logit_diff_{name}", "value"].iloc[0]) for name in ("source", "own")
    }
    if ends["source"] == ends["own"]:
        panel(
            "compare-patching",
            title,
            question,
            None,
            note="Both runs have the same logit difference: nothing to restore.",
        )
        return
    panel(
        "compare-patching",
        title,
        question,
        patch_map(cells, ends["source"], ends["own"], b.tokens, b.facts.n_layers),
        note=f"Unpatched, the logit difference is {ends['source']:.2f} in A and {ends['own']:.2f} in B.",
        how=section("interventions", "Patching"),
        csv=cells,
        on_click=lambda click: select(point=round(float(click.y)), position=round(float(click.x))),
        x=a.selection.position,
        y=a.selection.point,
    )


def _cannot_patch(a: View, b: View) -> str | None:
    if a.facts.fingerprint != b.facts.fingerprint:
        return "Patching needs two runs of one model."
    if len(a.tokens) != len(b.tokens) or len(b.tokens) > LIMIT:
        return (
            f"Patching needs two prompts of the same length, at most {LIMIT} tokens; A has {len(a.tokens)} and B "
            f"{len(b.tokens)}."
        )
    if a.token_ids == b.token_ids and a.info.request.edits == b.info.request.edits:
        return "A and B are the same prompt: there is nothing to patch."
    return None


def _tokens(a: View, b: View) -> tuple[int, int] | None:
    """The two tokens as a person chose them, at first what A and B would answer; None while they are not two tokens."""
    answers = _defaults(a, b)
    if answers is None:
        note = "The lens of one run did not read its last token, so there are no answers to begin with."
        panel("compare-logits", "Logit difference at the last token", "Which answer wins?", None, note=note)
        return None
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


def _same_words(a: View, b: View) -> bool:
    """Whether a token id means the same in both models; a chat template may differ."""
    if a.facts.tokenizer == b.facts.tokenizer:
        return a.facts.d_vocab == b.facts.d_vocab
    words = [view.services.tokenizer(view.info.model).get_vocab() for view in (a, b)]
    return bool(words[0] == words[1]) and a.facts.d_vocab == b.facts.d_vocab


def _defaults(a: View, b: View) -> tuple[int, int] | None:
    """A's answer, and B's; where they agree, the runner-up of A. None where a lens did not read the last token."""
    tops = [_top(view) for view in (a, b)]
    if not tops[0] or not tops[1]:
        return None
    first = tops[0][0]
    others = [token for token in (*tops[1], *tops[0]) if token != first]
    return (first, others[0]) if others else None


def _top(view: View) -> list[int]:
    rows = view.table("lens_topk")
    if rows.empty:
        return []
    last = (rows["layer"] == view.facts.n_layers) & (rows["pos"] == len(view.tokens) - 1) & (rows["variant"] == "raw")
    found: list[int] = rows[last].sort_values("rank")["token_id"].astype(int).tolist()
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
    st.markdown(markdown("".join(_prose(piece) for piece in view.decode(ids))))


def _prose(piece: str) -> str:
    """A token with its spaces as spaces, so that lines break between words."""
    before, after = len(piece) - len(piece.lstrip(" ")), len(piece) - len(piece.rstrip(" "))
    core = piece.strip(" ")
    return " " * before + visible(core) + " " * after if core else printable(piece)
