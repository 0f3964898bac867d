"""TEST IT: one click takes away what is selected. What it did is drawn by :mod:`app.components.test_answer`."""

from dataclasses import asdict, dataclass

import streamlit as st

from app.components.test_answer import growing, head, whole
from app.methods import section
from app.panels.reading import block_of
from app.panels.test import plan, read_target
from app.text import markdown
from app.trial import first_sink_block, largest_event
from app.view import View
from probes.errors import BadRequest
from probes.trials import How, Target

__all__ = ["test_panels", "test_row"]

_TARGET, _HOW = "test-target", "test-how"  # session keys: what is tested, as a link to a panel of it sets them
_OF = "_test-of"  # session key: the run it was asked of, its target and how
_PRESSED = "_test-pressed"  # session key: whether a person asked for its passes, or a link for what there is of it
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
    target, how = st.session_state.get(_TARGET), st.session_state.get(_HOW, "zero")
    if not target:
        return
    run, *known = st.session_state.get(_OF, (None,))
    if known != [target, how]:  # a link asks for it
        run = view.info.run_id
        st.session_state[_OF] = (run, target, how)
        st.session_state.pop(_PRESSED, None)
    if run != view.info.run_id:
        return
    with st.container(border=True, key="test"):
        try:
            wanted, runner_up = read_target(target)
            test = plan(view, wanted, how, runner_up)
        except BadRequest as problem:
            st.warning(markdown(str(problem)))
            st.button("Close", key="test-close", on_click=_close, type="tertiary")
            return
        head(test, _close)
        found = test.found(view.services)
        if len(found) == len(test.trials):
            whole(view, test, found[0][1])
        elif st.session_state.get(_PRESSED) or view.services.desk.get(test.key) is not None:
            st.fragment(growing, run_every=_LOOK)(view, test)
        else:  # following a link runs nothing
            st.button(f"Run the {len(test.trials) - len(found)} passes of this test", key="test-run", on_click=_press)


def _ask(run: str, target: Target, how: How) -> None:
    parts = {name: value for name, value in asdict(target).items() if value is not None}
    st.session_state[_TARGET], st.session_state[_HOW], st.session_state[_OF] = parts, how, (run, parts, how)
    _press()


def _press() -> None:
    st.session_state[_PRESSED] = True


def _close() -> None:
    for key in (_TARGET, _HOW, _OF, _PRESSED):
        st.session_state.pop(key, None)


def _offers(view: View) -> list[_Offer]:
    point, pos, block = view.selection.point, view.selection.position, block_of(view)
    found = []
    entry = _entry(view)
    if entry is not None:
        kind = "the selected entry" if view.selection.dimension is not None else "the largest entry of this text"
        where = f"{kind} (point {entry.layer}, position {entry.position}, dimension {entry.dim})"
        found.append(_Offer("entry", where, (("entry to zero", entry, "zero"), ("entry to its mean", entry, "mean"))))
    start = view.memo("first sink block", lambda: first_sink_block(view.result))
    sink = Target("sink", block if start is None else start, position=pos)
    found.append(
        _Offer(
            "sink",
            f"attention to position {pos}, from block {sink.layer} on",
            (("mask onwards", sink, "zero"), ("its value to the mean", sink, "mean")),
        )
    )
    here = Target("key", block, position=pos)
    found.append(_Offer("key", f"in block {block} alone", (("mask here", here, "zero"),)))
    if view.selection.head is not None:
        alone = Target("key", block, position=pos, head=view.selection.head)
        found.append(_Offer("key-head", f"in head {block}.{alone.head} alone", (("mask in the head", alone, "zero"),)))
        taken = Target("head", block, head=view.selection.head)
        found.append(
            _Offer(
                "head",
                f"head {block}.{taken.head}",
                (("head to zero", taken, "zero"), ("head to its mean", taken, "mean")),
            )
        )
    all_of_it = Target("block", block)
    found.append(
        _Offer(
            "block", f"block {block}", (("block to zero", all_of_it, "zero"), ("block to its mean", all_of_it, "mean"))
        )
    )
    if view.selection.dimension is not None:
        dim = Target("dimension", point, dim=view.selection.dimension)
        found.append(
            _Offer(
                "dimension",
                f"dimension {dim.dim} at point {point}",
                (("dimension to zero", dim, "zero"), ("dimension to its mean", dim, "mean")),
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
