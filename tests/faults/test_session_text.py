"""Faults 20, 21 and 24 in sessions: hostile text is refused in a sentence or comes back literally, never half of it."""

from collections.abc import Callable

import pytest

from cache import Item, SessionAbsent, Store
from tests.faults.test_store_injection import CORPUS

LITERAL = (
    *CORPUS,
    "NUL \0 in the middle",
    "\0",
    "<script>alert(1)</script>",
    "=HYPERLINK(1)",
    "‮evil‬",
    "👩‍👩‍👧‍👦" * 10,
    "é" * 100,
    "\r\n\t\x1b[31m",
    "\ufeff\uffff\U0010ffff",
    "100%_",
    '{"$": [',
)
HALVES = ("\ud800", "a\udc80b", "\udfff\ud800")


def test_text_comes_back_literally_everywhere() -> None:
    with Store.open(":memory:") as store:
        other, _ = store.create_session("bystander")
        for text in LITERAL:
            session, key = store.create_session(text)
            item = Item(text, {text: [text, {text: 1}]}, {"x": text}, text, text)
            store.save_session(session.session_id, notes=text, items=[item])
            back = store.session_edited(key)
            assert back is not None
            assert (back.title, back.notes) == (text, text)
            assert store.session_items(session.session_id) == (item,)
            assert session.session_id in {found.session_id for found in store.sessions(text)}
            copy, _ = store.duplicate_session(session.session_id)
            assert store.session_items(copy.session_id) == (item,)
        assert len(store.sessions()) == 2 * len(LITERAL) + 1
        assert store.session(other.session_id) == other


def test_hostile_ids_are_only_absent() -> None:
    with Store.open(":memory:") as store:
        session, _ = store.create_session("x")
        for text in (*LITERAL, *HALVES):
            assert store.session(text) is store.session_shared(text) is store.session_edited(text) is None
            assert not store.session_deleted(text)
            assert store.vocabulary(text) == {}
            for refused in absent(store, text):
                with pytest.raises(SessionAbsent) as caught:
                    refused()
                str(caught.value).encode()
        assert store.sessions() == (session,)


def absent(store: Store, text: str) -> tuple[Callable[[], object], ...]:
    return (
        lambda: store.session_items(text),
        lambda: store.save_session(text, title="y"),
        lambda: store.add_item(text, Item("lens", {}, {})),
        lambda: store.duplicate_session(text),
        lambda: store.delete_session(text),
        lambda: store.restore_session(text),
    )


@pytest.mark.parametrize("text", HALVES)
def test_half_a_character_is_refused_in_a_sentence_and_nothing_is_written(text: str) -> None:
    with Store.open(":memory:") as store:
        with pytest.raises(ValueError, match="The title is not valid Unicode"):
            store.create_session(text)
        assert store.sessions() == store.sessions(text) == ()
        session, _ = store.create_session("x")
        good = Item("lens", {}, {})
        for what, change in (
            ("title", {"title": text}),
            ("notes", {"notes": text}),
            ("view", {"items": [good, Item(text, {}, {})]}),
            ("caption", {"items": [good, Item("lens", {}, {}, text)]}),
            ("run id", {"items": [good, Item("lens", {}, {}, "", text)]}),
        ):
            with pytest.raises(ValueError, match=rf"The {what}.* is not valid Unicode.*at character \d+\.") as caught:
                store.save_session(session.session_id, **{"title": "new", **change})
            str(caught.value).encode()
        assert store.sessions() == (session,)
        assert store.session_items(session.session_id) == ()


def test_half_a_character_in_parameters_is_kept_as_json_keeps_it() -> None:
    with Store.open(":memory:") as store:
        session, _ = store.create_session("x")
        item = Item("lens", {"a\ud800": ["\udc80"]}, {"b": "\udfff"})
        store.add_item(session.session_id, item)
        assert store.session_items(session.session_id) == (item,)


def test_deep_and_endless_parameters_are_refused() -> None:
    deep: list[object] = []
    for _ in range(10_000):
        deep = [deep]
    endless: dict[str, object] = {}
    endless["again"] = endless
    shallow: list[object] = []
    for _ in range(40):
        shallow = [shallow]
    with Store.open(":memory:") as store:
        session, _ = store.create_session("x")
        for value, said in (
            (deep, "too deeply"),
            (endless, "contains itself"),
            (shallow, "nested 42 deep; at most 32"),
        ):
            with pytest.raises(ValueError, match=said):
                store.add_item(session.session_id, Item("lens", {"a": value}, {}))
        assert store.session_items(session.session_id) == ()


def test_an_item_that_fails_in_the_middle_leaves_the_session_as_it_was() -> None:
    items = [Item("lens", {"k": index}, {}) for index in range(5)]
    with Store.open(":memory:") as store:
        session, _ = store.create_session("x")
        store.save_session(session.session_id, items=items)
        before = store.session(session.session_id)
        with pytest.raises(ValueError, match="item 4"):
            store.save_session(session.session_id, title="new", items=[*items[:3], Item("lens", {"k": b""}, {})])
        assert store.session(session.session_id) == before
        assert store.session_items(session.session_id) == tuple(items)
