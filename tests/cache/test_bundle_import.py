import io
from collections.abc import Iterator

import pandas as pd
import pytest
import torch

from cache import Item, Store
from cache.bundle_import import import_bundle
from cache.bundle_read import read_bundle
from tests.cache.bundles import (
    RUNS,
    VOCABULARY,
    dump,
    export,
    imported,
    local,
    shared,
    spectra,
)
from tests.cache.rows import capture, run


@pytest.fixture
def store() -> Iterator[Store]:
    with Store.open(":memory:") as made:
        yield made


@pytest.fixture
def other() -> Iterator[Store]:
    with Store.open(":memory:") as made:
        yield made


@pytest.fixture(scope="module")
def bundle() -> bytes:
    with Store.open(":memory:") as made:
        return export(made, shared(made))


def test_into_the_store_it_came_from_nothing_is_written(store: Store) -> None:
    session_id = shared(store)
    found = export(store, session_id)
    before = dump(store)
    came = imported(store, found)
    assert came.edit_key is None
    assert came.session == store.session(session_id)
    assert (came.runs_new, came.runs_known, came.aliased) == ((), RUNS, {})
    assert {**dump(store), "vocabulary": []} == {**before, "vocabulary": []}
    assert export(store, session_id) == found


def test_a_bundle_imported_twice_is_there_once(bundle: bytes, other: Store) -> None:
    first = imported(other, bundle)
    before = dump(other)
    second = imported(other, bundle)
    assert second.session == first.session
    assert second.edit_key is None
    assert second.runs_known == RUNS
    assert dump(other) == before


def test_other_content_gets_ids_of_its_own_and_is_found_again(bundle: bytes, other: Store) -> None:
    shared(other, seed=1)
    ours = {name: other.table("r0", name) for name in ("layer_metrics", "tokens", "spectra")}
    sums = other.tensor("c0", "column_sum")
    came = imported(other, bundle)
    assert set(came.aliased) == {"r0", "r1", "c0", "c1"}
    assert came.runs_new == (came.aliased["r0"], came.aliased["r1"])
    for name, frame in ours.items():
        pd.testing.assert_frame_equal(other.table("r0", name), frame, check_exact=True)
    assert torch.equal(other.tensor("c0", "column_sum"), sums)
    assert torch.equal(other.tensor(came.aliased["c0"], "column_sum"), torch.arange(6.0).reshape(2, 3))
    theirs = other.run(came.aliased["r0"])
    assert theirs is not None
    assert theirs["capture_id"] == theirs["capture"]["capture_id"] == came.aliased["c0"]
    assert len(other.table(came.aliased["r0"], "tokens")) == 3
    first, _, third = other.session_items(came.session.session_id)
    assert first.run_id == first.params["run"] == came.aliased["r0"]
    assert first.selection["runs"] == [came.aliased["r0"], came.aliased["r1"], "r0 and more"]
    assert third.params == {"a": {"capture": came.aliased["c1"]}, came.aliased["r1"]: 0.5}
    before = dump(other)
    again = imported(other, bundle)
    assert again.aliased == came.aliased
    assert again.runs_known == came.runs_new
    assert again.session == came.session
    assert dump(other) == before


def test_what_had_to_be_renamed_goes_out_as_it_came(bundle: bytes, other: Store) -> None:
    shared(other, seed=1)
    came = imported(other, bundle)
    runs, tensors = local(came)
    assert export(other, came.session.session_id, runs, tensors) == bundle


def test_local_ids_are_the_same_in_every_store(bundle: bytes, store: Store, other: Store) -> None:
    shared(store, seed=1)
    shared(other, seed=2)
    assert imported(store, bundle).aliased == imported(other, bundle).aliased


def test_a_run_points_to_its_capture_under_the_id_it_has_here(bundle: bytes, other: Store) -> None:
    other.write_run(run("elsewhere", "c0"), {}, {}, {**capture("c0"), "dtype": "float16"})
    came = imported(other, bundle)
    assert set(came.aliased) == {"c0"}
    stored = other.run("r0")
    assert stored is not None
    assert stored["capture_id"] == came.aliased["c0"]
    assert stored["capture"]["dtype"] == "float32"
    assert len(other.table("r0", "tokens")) == 3
    assert len(other.table("elsewhere", "tokens")) == 0
    runs, tensors = local(came)
    assert export(other, came.session.session_id, runs, tensors) == bundle
    assert imported(other, bundle).runs_known == RUNS


def test_an_equal_run_of_a_capture_that_differs_is_not_the_same_run(bundle: bytes, other: Store) -> None:
    shared(other)
    other.writing(lambda t: t.connection.execute("UPDATE tokens SET text = 'x' WHERE capture_id = 'c1'"))
    came = imported(other, bundle)
    assert set(came.aliased) >= {"r1", "c1"}
    assert "r0" not in came.aliased
    assert came.runs_known == ("r0",)
    assert other.table("r1", "tokens")["text"].tolist() == ["x"] * 3
    assert other.table(came.aliased["r1"], "tokens")["text"].tolist() != ["x"] * 3


def test_a_session_that_was_changed_since_is_left_and_the_other_comes_beside_it(store: Store) -> None:
    session_id = shared(store)
    found = export(store, session_id)
    store.save_session(session_id, title="changed")
    came = imported(store, found)
    assert came.session.session_id == came.aliased[session_id] != session_id
    assert came.edit_key is not None
    assert came.runs_known == RUNS
    assert {session.title for session in store.sessions()} == {"changed", "Sinks é"}
    assert imported(store, found).session == came.session
    assert export(store, came.session.session_id) == found


def test_a_deleted_session_is_not_brought_back(store: Store) -> None:
    session_id = shared(store)
    found = export(store, session_id)
    store.delete_session(session_id)
    came = imported(store, found)
    assert came.session.session_id != session_id
    assert store.session(session_id) is None
    assert imported(store, found).session == came.session
    assert export(store, came.session.session_id) == found


def test_what_was_evicted_comes_back_and_what_is_there_stays(store: Store) -> None:
    session_id = shared(store)
    found = export(store, session_id)
    store.prune(0)
    store.put_tensors({("c1", "column_sum"): torch.full((2,), 9.0)})
    without = export(store, session_id)
    assert len(without) < len(found)
    imported(store, found)
    assert torch.equal(store.tensor("c0", "column_sum"), torch.arange(6.0).reshape(2, 3))
    assert torch.equal(store.tensor("c1", "column_sum"), torch.full((2,), 9.0))


def test_two_runs_of_one_original_id_keep_apart_on_the_way_out(bundle: bytes, store: Store, other: Store) -> None:
    """A session that shows both our own r0 and the one imported beside it."""
    shared(other, seed=1)
    came = imported(other, bundle)
    theirs = came.aliased["r0"]
    session, _ = other.create_session("both")
    items = [Item("lens", {"run": "r0"}, {}, "", "r0"), Item("lens", {"run": theirs}, {}, "", theirs)]
    other.save_session(session.session_id, items=items)
    found = export(other, session.session_id, ["r0", theirs], [])
    arrived = imported(store, found)
    assert [item.run_id for item in store.session_items(arrived.session.session_id)] == ["r0", theirs]
    assert store.run("r0")["created"] != store.run(theirs)["created"]  # type: ignore[index]
    assert export(store, arrived.session.session_id, ["r0", theirs], []) == found


def test_only_weight_spectra_a_run_asked_for_are_handed_on(store: Store, other: Store) -> None:
    session_id = shared(store)
    found = export(store, session_id)
    store.write_run(run("more"), {"weight_spectra": spectra(1, 3)}, {})
    assert export(store, session_id) == found
    other.write_run(run("more"), {"weight_spectra": spectra(2, 4)}, {}, capture())
    came = imported(other, found)
    runs, tensors = local(came)
    assert sorted(other.table("more", "weight_spectra")["block"]) == [0, 2, 4]
    assert export(other, came.session.session_id, runs, tensors) == found


def test_texts_that_are_known_are_not_replaced(bundle: bytes, store: Store, other: Store) -> None:
    imported(other, bundle)
    imported(other, export(store, shared(store, seed=1), vocabulary={"bytes": {70: "other", 99: "new"}}))
    assert other.vocabulary("bytes") == {70: " a", 3: "b\\udc80", 71: "'; --\0", 99: "new"}
    assert other.vocabulary("unknown") == {}


def test_an_import_that_fails_leaves_nothing(bundle: bytes, other: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("stopped here")

    before = dump(other)
    monkeypatch.setattr("cache.bundle_import.record", fail)
    with pytest.raises(RuntimeError, match="stopped here"):
        imported(other, bundle)
    assert dump(other) == before
    monkeypatch.undo()
    assert imported(other, bundle).runs_new == RUNS


def test_a_bundle_read_once_may_go_into_many_stores(bundle: bytes, store: Store, other: Store) -> None:
    read = read_bundle(io.BytesIO(bundle))
    one, two = import_bundle(store, read), import_bundle(other, read)
    assert one.session.session_id == two.session.session_id
    assert one.session.share_id != two.session.share_id
    assert one.edit_key != two.edit_key
    assert dict(VOCABULARY["bytes"]).keys() == other.vocabulary("bytes").keys()
