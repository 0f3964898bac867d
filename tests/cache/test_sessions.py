import hashlib
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from cache import Item, SessionAbsent, Store, StoreError
from cache.session_rules import MAX_ITEMS

ITEMS = (
    Item("lens", {"k": 5, "positions": [0, 2]}, {"point": 1, "position": None}, "the first", "r0"),
    Item("spectra", {}, {}, "", None),
)


@pytest.fixture(params=["file", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    with Store.open(":memory:" if request.param == "memory" else tmp_path / "store.duckdb") as made:
        yield made


@pytest.fixture(scope="module")
def searched() -> Iterator[Store]:
    with Store.open(":memory:") as store:
        store.create_session("Émile 100%")
        notes, _ = store.create_session("notes")
        store.save_session(notes.session_id, notes="alpha\nBeta")
        captions, _ = store.create_session("captions")
        store.save_session(captions.session_id, items=[Item("lens", {}, {}, "x"), Item("lens", {}, {}, "Gamma_1")])
        yield store


def sql(store: Store, statement: str) -> list[tuple[Any, ...]]:
    return store.writing(lambda transaction: transaction.connection.execute(statement).fetchall())


def test_a_session_is_found_by_its_id_its_share_id_and_its_key(store: Store) -> None:
    session, key = store.create_session("Sinks")
    store.create_session("another")
    assert (session.title, session.notes, session.n_items) == ("Sinks", "", 0)
    assert session.created == session.updated
    assert store.session(session.session_id) == session
    assert store.session_shared(session.share_id) == session
    assert store.session_edited(key) == session


def test_ids_are_random_told_apart_and_open_nothing_else(store: Store) -> None:
    made = [store.create_session("x") for _ in range(20)]
    secrets = {secret for session, key in made for secret in (session.session_id, session.share_id, key)}
    assert len(secrets) == 60
    assert all(len(secret) == 32 and int(secret, 16) >= 0 for secret in secrets)
    session, key = made[0]
    assert store.session(key) is None
    assert store.session(session.share_id) is None
    assert store.session_shared(session.session_id) is None
    assert store.session_shared(key) is None
    assert store.session_edited(session.session_id) is None
    assert store.session_edited(session.share_id) is None
    assert store.session_edited("") is None


def test_of_the_key_only_its_hash_is_stored(store: Store) -> None:
    _, key = store.create_session("x")
    [(kept,)] = sql(store, "SELECT edit_key_hash FROM sessions")
    assert kept == hashlib.blake2b(key.encode(), digest_size=32).hexdigest()
    assert key not in str(sql(store, "SELECT * FROM sessions"))
    assert store.session_edited(kept) is None


def test_what_is_saved_comes_back_and_what_is_not_given_stays(store: Store) -> None:
    session, _ = store.create_session("x")
    store.save_session(session.session_id, title="y", notes="n", items=ITEMS)
    assert store.session_items(session.session_id) == ITEMS
    store.save_session(session.session_id, notes="m")
    store.save_session(session.session_id, title="")
    store.save_session(session.session_id, items=ITEMS[::-1])
    back = store.session(session.session_id)
    assert back is not None
    assert (back.title, back.notes, back.n_items, back.share_id) == ("", "m", 2, session.share_id)
    assert back.created == session.created
    assert back.updated > session.updated
    assert store.session_items(session.session_id) == ITEMS[::-1]
    store.save_session(session.session_id, items=())
    assert store.session_items(session.session_id) == ()


def test_items_are_appended_in_order_and_kept_apart(store: Store) -> None:
    session, _ = store.create_session("x")
    other, _ = store.create_session("y")
    for index in range(12):
        store.add_item(session.session_id, Item("lens", {"k": index}, {}))
    assert [item.params["k"] for item in store.session_items(session.session_id)] == list(range(12))
    assert store.session_items(other.session_id) == ()
    again = store.session(session.session_id)
    assert again is not None
    assert again.n_items == 12
    assert again.updated > session.updated


def test_sessions_are_listed_and_the_last_changed_comes_first(store: Store) -> None:
    made = [store.create_session(title)[0] for title in "abc"]
    store.save_session(made[0].session_id, notes="changed")
    assert [session.title for session in store.sessions()] == ["a", "c", "b"]


@pytest.mark.parametrize(
    ("search", "found"),
    [
        ("", {"Émile 100%", "notes", "captions"}),
        ("émile", {"Émile 100%"}),
        ("100%", {"Émile 100%"}),
        ("%", {"Émile 100%"}),
        ("_", {"captions"}),
        ("BETA", {"notes"}),
        ("gamma_1", {"captions"}),
        ("gammax1", set()),
        ("*", set()),
    ],
)
def test_search_is_literal_and_looks_at_titles_notes_and_captions(
    searched: Store, search: str, found: set[str]
) -> None:
    assert {session.title for session in searched.sessions(search)} == found


def test_a_copy_has_ids_of_its_own_and_the_same_items(store: Store) -> None:
    session, key = store.create_session("t" * 200)
    store.save_session(session.session_id, notes="n", items=ITEMS)
    copy, copy_key = store.duplicate_session(session.session_id)
    assert copy.title == "t" * 193 + " (copy)"
    assert (copy.notes, copy.n_items) == ("n", 2)
    assert store.session_items(copy.session_id) == ITEMS
    ids = {session.session_id, session.share_id, key, copy.session_id, copy.share_id, copy_key}
    assert len(ids) == 6
    store.save_session(copy.session_id, items=())
    assert store.session_items(session.session_id) == ITEMS
    assert store.session_edited(copy_key) == store.session(copy.session_id)


def test_a_deleted_session_is_gone_until_it_is_restored(store: Store) -> None:
    session, key = store.create_session("x")
    store.save_session(session.session_id, items=ITEMS)
    before = store.session(session.session_id)
    store.delete_session(session.session_id)
    assert store.session(session.session_id) is None
    assert store.session_shared(session.share_id) is None
    assert store.session_edited(key) is None
    assert store.sessions() == store.sessions("first") == ()
    assert store.session_deleted(session.share_id)
    for refused in (
        lambda: store.session_items(session.session_id),
        lambda: store.save_session(session.session_id, title="y"),
        lambda: store.add_item(session.session_id, ITEMS[0]),
        lambda: store.duplicate_session(session.session_id),
        lambda: store.delete_session(session.session_id),
    ):
        with pytest.raises(SessionAbsent):
            refused()
    store.restore_session(session.session_id)
    assert store.session_edited(key) == before
    assert store.session_items(session.session_id) == ITEMS
    assert not store.session_deleted(session.share_id)


def test_an_unknown_session_is_not_a_deleted_one(store: Store) -> None:
    assert not store.session_deleted("nobody")
    assert store.session("nobody") is None
    with pytest.raises(SessionAbsent, match="holds no session 'nobody'") as caught:
        store.restore_session("nobody")
    assert isinstance(caught.value, StoreError)
    assert isinstance(caught.value, KeyError)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"title": "x" * 201}, "The title has 201 characters; at most 200 are taken."),
        ({"notes": "x" * 100_001}, "The notes has 100,001 characters; at most 100,000 are taken."),
        (
            {"items": [Item("lens", {}, {}, "x" * 10_001)]},
            "The caption of item 1 has 10,001 characters; at most 10,000",
        ),
        ({"items": [ITEMS[0], Item("v" * 129, {}, {})]}, "The view of item 2 has 129 characters; at most 128"),
        ({"items": [Item("lens", {}, {}, "", "r" * 129)]}, "The run id of item 1 has 129"),
        ({"items": [Item("lens", {"a": "x" * 10**6}, {})]}, "The params of item 1 takes 1,000,008 bytes as JSON"),
        ({"items": [Item("lens", {}, {"a": "x" * 10**6})]}, "The selection of item 1 takes 1,000,008 bytes as JSON"),
        ({"items": [Item("lens", {"a": float("nan")}, {})]}, r"cannot be kept as JSON: \$\.a is nan"),
        ({"items": [Item("lens", {"a": object()}, {})]}, "has no canonical JSON"),
        ({"items": [ITEMS[1]] * 501}, "at most 500 items, not 501"),
    ],
)
def test_each_limit_is_one_sentence_and_changes_nothing(searched: Store, change: dict[str, Any], said: str) -> None:
    store = searched
    session, _ = store.create_session("x")
    store.save_session(session.session_id, items=ITEMS)
    before = store.session(session.session_id)
    with pytest.raises(ValueError, match=said) as caught:
        store.save_session(session.session_id, **{"title": "new", "notes": "new", **change})
    assert str(caught.value).endswith(".")
    assert "\n" not in str(caught.value)
    assert store.session(session.session_id) == before
    assert store.session_items(session.session_id) == ITEMS
    store.delete_session(session.session_id)


def test_what_just_fits_is_kept(store: Store) -> None:
    session, _ = store.create_session("x" * 200)
    item = Item("v" * 128, {"a": "x" * (10**6 - 8)}, {}, "c" * 10_000, "r" * 128)
    store.save_session(session.session_id, notes="n" * 100_000, items=[item])
    assert store.session_items(session.session_id) == (item,)
    store.save_session(session.session_id, items=[ITEMS[1]] * MAX_ITEMS)
    with pytest.raises(ValueError, match="at most 500 items, not 501"):
        store.add_item(session.session_id, ITEMS[0])
    assert len(store.session_items(session.session_id)) == MAX_ITEMS


def test_sessions_outlive_the_store_object_and_are_verified(tmp_path: Path) -> None:
    path = tmp_path / "store.duckdb"
    with Store.open(path) as store:
        session, key = store.create_session("x")
        store.save_session(session.session_id, items=ITEMS)
    with Store.open(path) as store:
        back = store.session_edited(key)
        assert back is not None
        assert back.updated - session.created < timedelta(minutes=5)
        assert store.session_items(back.session_id) == ITEMS
        assert store.verify() == ()


def test_saving_again_and_again_takes_no_more_room(tmp_path: Path) -> None:
    path = tmp_path / "store.duckdb"
    with Store.open(path) as store:
        session, _ = store.create_session("x")
        sizes = []
        for index in range(60):
            store.save_session(session.session_id, notes=f"note {index}" * 50, items=[ITEMS[0]] * 10)
            sizes.append(path.stat().st_size)
    assert max(sizes) <= sizes[0] + (1 << 18)
