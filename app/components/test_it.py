"""TEST IT: one click takes away what is selected. What it did is drawn by :mod:`app.components.test_answer`."""

from dataclasses import dataclass

import streamlit as st

from app.components.reading import block_of
from app.components.test_answer import growing, head, whole
from app.components.view import View
from app.methods import section
from app.text import markdown
from app.trial import first_sink_block, largest_event, make_test
from probes.errors import BadRequest
from probes.trials import How, Target

__all__ = ["test_panels", "test_row"]

_TEST = "_test"  # session key: (run id, target, how) of the test that is shown
_LOOK = 1.0  # seconds between two looks at a running test


@dataclass(frozen=True, slots=True)
class _Offer:
    """A group of buttons: its name in keys, what it is about, and (button, target, how)."""

    name: str
    about: str
    buttons: tuple[tuple[str, Target, How], ...]


def test_row(view: View) -> None:
    """One line of buttons: what can be taken away at the selection. The answer is drawn by :func:`test_panels`."""
    if not view.has("token_metrics"):
        return
    with st.container(horizontal=True, gap="xxsmall", vertical_alignment="center", key="test-row"):
        st.markdown("**Test it**", width="content", help=section("interventions", "Test it"))
        for offer in _offers(view):
            with st.container(horizontal=True, gap="xxsmall", vertical_alignment="center", width="content"):
                st.markdown(f":small[:gray[{offer.about}]]", width="content")
                for label, target, how in offer.buttons:
                    st.button(
                        label,
                        key=f"test-{offer.name}-{how}",
                        on_click=_ask,
                        args=(view.info.run_id, target, how),
                        type="tertiary",
                    )


def test_panels(view: View) -> None:
    """The test that was asked of this run, as far as it has got; nothing if there is none."""
    asked = st.session_state.get(_TEST)
    if asked is None or asked[0] != view.info.run_id:
        return
    with st.container(border=True, key="test"):
        try:
            test = view.memo(("test", *asked[1:]), lambda: make_test(view.result, asked[1], asked[2]))
        except BadRequest as problem:
            st.warning(markdown(str(problem)))
            st.button("Close", key="test-close", on_click=_close, type="tertiary")
            return
        head(test, _close)
        found = test.found(view.services)
        if len(found) == len(test.trials):
            whole(view, test, found)
        else:
            st.fragment(growing, run_every=_LOOK)(view, test)


def _ask(run: str, target: Target, how: How) -> None:
    st.session_state[_TEST] = (run, target, how)


def _close() -> None:
    st.session_state.pop(_TEST, None)


def _offers(view: View) -> list[_Offer]:
    point, pos, block = view.selection.point, view.selection.position, block_of(view)
    found = []
    entry = _entry(view)
    if entry is not None:
        where = f"entry (point {entry.layer}, position {entry.position}, dimension {entry.dim})"
        found.append(_Offer("entry", where, (("to zero", entry, "zero"), ("to its mean", entry, "mean"))))
    start = view.memo("first sink block", lambda: first_sink_block(view.result))
    sink = Target("sink", block if start is None else start, position=pos)
    found.append(
        _Offer(
            "sink",
            f"attention to position {pos}, from block {sink.layer} on",
            (("mask", sink, "zero"), ("its value to the mean", sink, "mean")),
        )
    )
    here = Target("key", block, position=pos)
    found.append(_Offer("key", f"in block {block} alone", (("mask", here, "zero"),)))
    if view.selection.head is not None:
        alone = Target("key", block, position=pos, head=view.selection.head)
        found.append(_Offer("key-head", f"in head {block}.{alone.head} alone", (("mask", alone, "zero"),)))
        taken = Target("head", block, head=view.selection.head)
        found.append(
            _Offer("head", f"head {block}.{taken.head}", (("to zero", taken, "zero"), ("to its mean", taken, "mean")))
        )
    all_of_it = Target("block", block)
    found.append(
        _Offer("block", f"block {block}", (("to zero", all_of_it, "zero"), ("to its mean", all_of_it, "mean")))
    )
    if view.selection.dimension is not None:
        dim = Target("dimension", point, dim=view.selection.dimension)
        found.append(
            _Offer(
                "dimension",
                f"dimension {dim.dim} at point {point}",
                (("to zero", dim, "zero"), ("to its mean", dim, "mean")),
            )
        )
    return found


def _entry(view: View) -> Target | None:
    """The selected entry; without a selected dimension the largest massive entry of the run at its birth."""
    chosen = view.selection
    if chosen.dimension is not None:
        return Target("entry", chosen.point, position=chosen.position, dim=chosen.dimension)
    row = view.memo("largest event", lambda: largest_event(view.result))
    return None if row is None else Target("entry", int(row["birth"]), position=int(row["pos"]), dim=int(row["dim"]))
