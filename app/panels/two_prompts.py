"""Panels of what two prompts answer: the logit difference of two tokens, and what patching A into B restores."""

import pandas as pd

from app.figures.patching import difference_lines, patch_map
from app.panels.pairs import other_run
from app.panels.panel import CELL, POINT, Drawn, Option, panel
from app.text import markdown, visible
from app.view import Gap, View
from probes.errors import BadRequest
from probes.patching import LIMIT
from probes.request import ProbeCall

__all__ = ["answers", "difference_call", "incomparable", "patching_call", "unpatchable"]

_TOKENS = {"b": Option(str), "target": Option(int), "versus": Option(int)}
_TITLE = "Logit difference at the last token"
_UNREAD = "The lens of one run did not read its last token, so there are no answers to begin with."


def difference_call(target: int, versus: int) -> ProbeCall:
    """The question whose answer holds the logit difference of two tokens along the points of a run."""
    return ProbeCall("patching", {"target": target, "versus": versus})


def patching_call(a: View, target: int, versus: int) -> ProbeCall:
    """The question put to B whose answer holds what each state of A restores."""
    return ProbeCall("patching", {"target": target, "versus": versus, "source": a.info.run_id})


def incomparable(a: View, b: View) -> str | None:
    """Why two tokens cannot be weighed in both runs, or None."""
    try:
        shared = _same_words(a, b)
    except (BadRequest, OSError) as problem:
        return f"Whether the two models share a vocabulary is not known: {markdown(str(problem))}"
    if not shared:
        return "The two models do not share a vocabulary."
    return "A and B are the same run: there is no difference." if a.info.run_id == b.info.run_id else None


def unpatchable(a: View, b: View) -> str | None:
    """Why the states of A cannot be put into B, or None."""
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


def answers(a: View, b: View) -> tuple[int, int] | None:
    """A's answer, and B's; where they agree, the runner-up of A. None where a lens did not read the last token."""
    tops = [_top(view) for view in (a, b)]
    if not tops[0] or not tops[1]:
        return None
    first = tops[0][0]
    others = [token for token in (*tops[1], *tops[0]) if token != first]
    return (first, others[0]) if others else None


@panel("compare-logits", "compare", _TITLE, "Which answer wins, where is it decided, and which state carries it?",
       ("interventions", "Patching"), options=_TOKENS)  # fmt: skip
def logits(view: View, b: str = "", target: int | None = None, versus: int | None = None) -> Drawn:
    other = _beside(view, b)
    chosen = _chosen(view, other, target, versus)
    title = f"{_TITLE}: " + " − ".join(f"“{markdown(visible(piece))}”" for piece in view.decode(chosen))
    depth = view.facts.n_layers
    if other.facts.n_layers != depth:
        return Drawn(None, title, note="Models of different depth have no common points.")
    found = [one.answer(difference_call(*chosen)) for one in (view, other)]
    rows = [_metric(result.table("layer_metrics"), "logit_diff") for result in found]
    key = tuple(result.info.run_id for result in found)
    return Drawn(
        view.figure("compare-logits", lambda: difference_lines(rows[0], rows[1], depth), key),
        title,
        csv=pd.concat([table.assign(run=name) for table, name in zip(rows, "AB", strict=True)], ignore_index=True),
        place=POINT,
    )


@panel("compare-patching", "compare", "Patching A into B", "Which state of A brings A's answer back?",
       ("interventions", "Patching"), options=_TOKENS)  # fmt: skip
def patching(view: View, b: str = "", target: int | None = None, versus: int | None = None) -> Drawn:
    other = _beside(view, b)
    chosen = _chosen(view, other, target, versus)
    reason = unpatchable(view, other)
    if reason is not None:
        raise Gap(reason)
    found = other.answer(patching_call(view, *chosen))
    layers, cells = found.table("layer_metrics"), found.table("token_metrics")
    source, own = (float(_metric(layers, f"logit_diff_{name}")["value"].iloc[0]) for name in ("source", "own"))
    if source == own:
        raise Gap("Both runs have the same logit difference: nothing to restore.")
    return Drawn(
        view.figure(
            "compare-patching",
            lambda: patch_map(cells, source, own, other.tokens, other.facts.n_layers),
            found.info.run_id,
        ),
        note=f"Unpatched, the logit difference is {source:.2f} in A and {own:.2f} in B.",
        csv=cells,
        place=CELL,
    )


def _beside(view: View, b: str) -> View:
    """B as a view of its own; its tokens and answers are read, its selection is not."""
    return view.beside(other_run(view, b))


def _chosen(a: View, b: View, target: int | None, versus: int | None) -> tuple[int, int]:
    """The two tokens: those given, or what A and B would answer. Raises Gap where two runs have no such tokens."""
    reason = incomparable(a, b)
    if reason is not None:
        raise Gap(reason)
    for name, token in (("target", target), ("versus", versus)):
        if token is not None and token >= a.facts.d_vocab:
            raise BadRequest(f"{name} must be a token id from 0 to {a.facts.d_vocab - 1}, not {token}.")
    if target is None or versus is None:
        defaults = answers(a, b)
        if defaults is None:
            raise Gap(_UNREAD)
        target, versus = (defaults[0] if target is None else target), (defaults[1] if versus is None else versus)
    if target == versus:
        raise Gap("Give two different tokens.")
    return target, versus


def _metric(table: pd.DataFrame, name: str) -> pd.DataFrame:
    return table[table["metric"] == name]


def _same_words(a: View, b: View) -> bool:
    """Whether a token id means the same in both models; a chat template may differ."""
    if a.facts.tokenizer == b.facts.tokenizer:
        return a.facts.d_vocab == b.facts.d_vocab
    words = [view.services.tokenizer(view.info.model).get_vocab() for view in (a, b)]
    return bool(words[0] == words[1]) and a.facts.d_vocab == b.facts.d_vocab


def _top(view: View) -> list[int]:
    rows = view.table("lens_topk")
    if rows.empty:
        return []
    last = (rows["layer"] == view.facts.n_layers) & (rows["pos"] == len(view.tokens) - 1) & (rows["variant"] == "raw")
    found: list[int] = rows[last].sort_values("rank")["token_id"].astype(int).tolist()
    return found
