import io
import json
import zipfile
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pandas as pd
import pytest
import torch

from cache import RunAbsent, SessionAbsent, Store
from cache.bundle_format import MEMBERS, BundleRefused
from tests.cache.bundles import (
    ITEMS,
    RUNS,
    TENSORS,
    export,
    imported,
    members_of,
    shared,
)
from tests.cache.rows import resid, run, tables


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


def test_a_bundle_is_a_plain_zip_without_a_trace_of_its_writing(bundle: bytes) -> None:
    with zipfile.ZipFile(io.BytesIO(bundle)) as archive:
        names = archive.namelist()
        assert names == sorted(names)
        assert set(names) < set(MEMBERS)
        for entry in archive.infolist():
            assert (entry.date_time, entry.compress_type) == ((1980, 1, 1, 0, 0, 0), zipfile.ZIP_STORED)
            assert (entry.create_system, entry.external_attr, entry.extra, entry.comment) == (
                3,
                0o100644 << 16,
                b"",
                b"",
            )
    manifest = json.loads(members_of(bundle)["manifest.json"])
    assert manifest["format"] == 1
    assert manifest["session"]["title"] == "Sinks é"
    assert [item["run_id"] for item in manifest["items"]] == ["r0", None, "r1"]
    assert manifest["runs"]["r0"]["versions"] == {"torch": "2.13.0", "duckdb": "2.0.0"}
    assert set(manifest["runs"]["r0"]) == {
        "model", "fingerprint", "weights", "device", "dtype", "versions", "request",
    }  # fmt: skip
    assert set(manifest["members"]) == set(names) - {"manifest.json"}


def test_no_secret_and_no_residual_state_is_in_it(store: Store) -> None:
    session_id = shared(store)
    session = store.session(session_id)
    assert session is not None
    [(kept,)] = store.writing(lambda t: t.connection.execute("SELECT edit_key_hash FROM sessions").fetchall())
    found = export(store, session_id)
    assert session.share_id.encode() not in found
    assert kept.encode() not in found
    assert resid()["c0", "resid.0"].numpy().tobytes()[:64] not in found
    for name in ("resid.0", "resid", "resid_post.3"):
        with pytest.raises(ValueError, match="is a residual state, and a bundle holds none"):
            export(store, session_id, tensors=[*TENSORS, ("c0", name)])


def test_everything_arrives(bundle: bytes, other: Store) -> None:
    came = imported(other, bundle)
    assert came.runs_new == RUNS
    assert came.runs_known == ()
    assert came.aliased == {}
    session = came.session
    assert (session.title, session.notes, session.n_items) == ("Sinks é", "# notes\n\0", 3)
    assert came.edit_key is not None
    assert other.session_edited(came.edit_key) == session == other.session(session.session_id)
    assert other.session_items(session.session_id) == ITEMS
    for name, frame in tables(0).items():
        pd.testing.assert_frame_equal(
            other.table("r0", name).sort_values(list(frame.columns), ignore_index=True),
            frame.sort_values(list(frame.columns), ignore_index=True),
            check_exact=True,
        )
    assert len(other.table("r0", "events")) == 2
    stored = other.run("r1")
    assert stored is not None
    assert stored["created"] == datetime(2026, 5, 1, 12)
    assert stored["capture"]["facts"] == {"é": "\ud800"}
    assert other.run("r0")["tensors"] == ["bands"]  # type: ignore[index]
    assert torch.equal(other.tensor("c0", "column_sum"), torch.arange(6.0).reshape(2, 3))
    assert other.tensor("r0", "bands").shape == (0, 2)
    assert other.tensor("r0", "half").dtype == torch.bfloat16
    assert not other.has_tensors("c0", ["resid.0"])
    assert other.vocabulary("bytes") == {70: " a", 3: "b\\udc80", 71: "'; --\0"}
    assert other.verify() == ()


def test_export_import_export_is_identical(store: Store, tmp_path: Path) -> None:
    """Fault 28, through an empty store on disk, opened again, and twice more."""
    found = export(store, shared(store))
    assert export(store, store.sessions()[0].session_id, runs=RUNS[::-1], tensors=TENSORS[::-1]) == found
    with Store.open(tmp_path / "store.duckdb") as second:
        came = imported(second, found)
    with Store.open(tmp_path / "store.duckdb") as second, Store.open(":memory:") as third:
        again = export(second, came.session.session_id, vocabulary={"bytes": second.vocabulary("bytes")})
        assert again == found
        assert export(third, imported(third, again).session.session_id) == found


def test_a_session_of_words_alone_is_a_bundle_too(store: Store, other: Store) -> None:
    session, _ = store.create_session("")
    found = export(store, session.session_id, [], [], {})
    assert list(members_of(found)) == ["manifest.json"]
    came = imported(other, found)
    assert came.session.title == ""
    assert export(other, came.session.session_id, [], [], {}) == found


def test_what_cannot_be_handed_on_is_told(store: Store) -> None:
    session_id = shared(store)
    with pytest.raises(SessionAbsent):
        export(store, "nobody")
    for nobody in ("nobody", "\ud800"):
        with pytest.raises(RunAbsent):
            export(store, session_id, [*RUNS, nobody])
    with pytest.raises(BundleRefused, match="Item 3 shows the run 'r1', which is not among those to carry"):
        export(store, session_id, ["r0"], [])
    with pytest.raises(BundleRefused, match="'x' is of 'c9', which is not among the runs to carry"):
        export(store, session_id, tensors=[("c9", "x")])
    with pytest.raises(BundleRefused, match="vocabulary of 'words' belongs to none"):
        export(store, session_id, vocabulary={"words": {1: "x"}})
    with pytest.raises(BundleRefused, match="token id -1 of 'bytes' must be from 0"):
        export(store, session_id, vocabulary={"bytes": {-1: "x"}})
    store.write_run(run("a/b"), {}, {})
    with pytest.raises(BundleRefused, match="run id 'a/b' does not fit into a bundle"):
        export(store, session_id, [*RUNS, "a/b"])


def test_too_much_is_refused_before_it_is_read(store: Store) -> None:
    session_id = shared(store)
    store.put_tensors({("c0", "big"): torch.zeros((65 << 20) // 4)})
    with pytest.raises(BundleRefused, match=r"'tensors\.safetensors' of the bundle has 68,\d+,\d+ bytes") as caught:
        export(store, session_id, tensors=[("c0", "big")])
    assert str(caught.value).endswith("a member may have at most 67,108,864.")
