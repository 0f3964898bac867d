from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pandas as pd
import pytest
import torch

from cache import RunAbsent, Store, StoreClosed, StoreDamaged, TensorAbsent
from tests.cache.rows import capture, filled, resid, run, tables


@pytest.fixture(params=["file", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    with Store.open(":memory:" if request.param == "memory" else tmp_path / "store.duckdb") as made:
        yield made


def sql(store: Store, statement: str) -> list[tuple[object, ...]]:
    return store._database.write(lambda transaction: transaction.connection.execute(statement).fetchall())


def test_a_run_comes_back_as_it_was_written(store: Store) -> None:
    assert store.write_run(run(), tables(), resid(), capture()) is True
    back = store.run("r0")
    assert back is not None
    assert back["request"] == {"a": [1, 2.5], "b": 2}
    assert back["notes"] == ["one remark"]
    assert isinstance(back["created"], datetime)
    assert back["capture"]["facts"] == {"name": "tiny", "n_layers": 2}
    assert {key: back[key] for key in ("model", "seconds", "peak_bytes")} == {
        "model": "tiny", "seconds": 0.25, "peak_bytes": 1 << 33,
    }  # fmt: skip
    for name, frame in tables().items():
        pd.testing.assert_frame_equal(store.table("r0", name), frame, check_exact=True)
    for (owner, name), value in resid().items():
        assert torch.equal(store.tensor(owner, name), value)


def test_tables_nobody_wrote_are_empty_with_their_columns(store: Store) -> None:
    store.write_run(run(), {}, {}, capture())
    frame = store.table("r0", "head_metrics")
    assert list(frame.columns) == ["layer", "head", "metric", "value", "n_used", "status"]
    assert len(frame) == 0
    assert frame["layer"].dtype == "int64"


def test_runs_are_kept_apart_and_share_their_capture(store: Store) -> None:
    store.write_run(run("r0"), tables(0), {}, capture())
    store.write_run(run("r1"), tables(1), {})
    for index in (0, 1):
        expected = tables(index)["layer_metrics"]
        pd.testing.assert_frame_equal(store.table(f"r{index}", "layer_metrics"), expected, check_exact=True)
        assert len(store.table(f"r{index}", "tokens")) == 3
    assert store.info()["captures"] == 1


def test_what_is_stored_is_never_changed(store: Store) -> None:
    store.write_run(run(), tables(0), resid(), capture())
    assert store.write_run({**run(), "mask": "no_bos"}, tables(1), resid(), {**capture(), "dtype": "float16"}) is False
    back = store.run("r0")
    assert back is not None
    assert (back["mask"], back["capture"]["dtype"]) == ("all", "float32")
    assert len(store.table("r0", "spectra")) == 4
    assert len(store.table("r0", "tokens")) == 3


def test_nothing_of_a_failed_write_stays(store: Store) -> None:
    with pytest.raises(ValueError, match="capture that is not stored"):
        store.write_run(run(), tables(), resid())
    assert store.run("r0") is None
    assert store.info()["tensors"] == 0
    assert sql(store, "SELECT count(*) FROM layer_metrics") == [(0,)]


def test_unknown_runs_tables_and_tensors_are_named(store: Store) -> None:
    store.write_run(run(), tables(), {}, capture())
    assert store.run("nobody") is None
    with pytest.raises(RunAbsent, match="nobody"):
        store.table("nobody", "spectra")
    with pytest.raises(ValueError, match="no table 'sessions'"):
        store.table("r0", "sessions")
    with pytest.raises(ValueError, match="no table 'runs'"):
        store.write_run(run("r1"), {"runs": pd.DataFrame()}, {})
    with pytest.raises(TensorAbsent) as caught:
        store.tensor("c0", "resid.0")
    assert caught.value.reason == "missing"


def test_runs_are_listed_newest_first(store: Store) -> None:
    for index, year in enumerate((2025, 2027, 2026)):
        store.write_run({**run(f"r{index}"), "created": datetime(year, 1, 1)}, {}, {}, capture())
    assert store.runs()["run_id"].tolist() == ["r1", "r2", "r0"]


def test_weight_spectra_belong_to_the_weights_and_are_stored_once(store: Store) -> None:
    frame = pd.DataFrame(
        {"block": [0, 0, None], "matrix": ["q", "q", "unembed"], "k": [1, 2, 1], "singular_value": 2.0}
    )
    more = pd.DataFrame({"block": [0, 1], "matrix": ["q", "q"], "k": [1, 1], "singular_value": [9.0, 3.0]})
    store.write_run(run("r0"), {"weight_spectra": frame}, {}, capture())
    store.write_run(run("r1"), {"weight_spectra": more}, {})
    assert store.has_weight_spectra("weights-1", 0, "q")
    assert store.has_weight_spectra("weights-1", None, "unembed")
    assert not store.has_weight_spectra("weights-1", None, "q")
    assert not store.has_weight_spectra("weights-2", 0, "q")
    kept = store.table("r0", "weight_spectra")
    assert sorted(kept["singular_value"]) == [2.0, 2.0, 2.0, 3.0]


def test_a_tensor_of_the_same_name_is_replaced(store: Store) -> None:
    store.put_tensors({("c0", "x"): torch.zeros(3)})
    store.put_tensors({("c0", "x"): torch.zeros(3)})
    store.put_tensors({("c0", "x"): torch.ones(2, 2)})
    assert torch.equal(store.tensor("c0", "x"), torch.ones(2, 2))
    assert store.info()["tensor_bytes"] == 16
    assert sql(store, "SELECT count(*) FROM chunks") == [(1,)]


def test_has_tensors_wants_all_of_them(store: Store) -> None:
    store.put_tensors(resid(3))
    assert store.has_tensors("c0", ["resid.0", "resid.2"])
    assert not store.has_tensors("c0", ["resid.0", "resid.3"])
    assert not store.has_tensors("c1", ["resid.0"])


def test_what_was_read_last_stays_longest(tmp_path: Path) -> None:
    path = tmp_path / "store.duckdb"
    with Store.open(path, byte_budget=12000) as store:
        for owner in "abc":
            store.put_tensors(resid(1, owner=owner))
        store.tensor("a", "resid.0")
    with Store.open(path, byte_budget=12000) as store:
        store.put_tensors(resid(1, owner="d"))
        left = [owner for owner in "abcd" if store.has_tensors(owner, ["resid.0"])]
    assert left == ["a", "c", "d"]


def test_what_is_being_written_is_kept_even_beyond_the_budget() -> None:
    with Store.open(":memory:", byte_budget=5000) as store:
        store.put_tensors(resid(1, owner="a"))
        store.put_tensors(resid(3, owner="b"))
        assert store.info()["tensor_bytes"] == 12000
        assert not store.has_tensors("a", ["resid.0"])
        store.put_tensors({("b", "late"): torch.zeros(10)})
        assert store.has_tensors("b", ["resid.0", "resid.1", "resid.2", "late"])


def test_pruning_drops_tensors_and_leaves_runs(store: Store) -> None:
    store.write_run(run(), tables(), resid(), capture())
    store.put_tensors(resid(1, owner="c1"))
    assert store.prune(4000) == 12000
    assert store.has_tensors("c1", ["resid.0"])
    assert store.prune(0) == 4000
    assert store.info()["tensors"] == 0
    assert len(store.table("r0", "spectra")) == 4


def test_a_damaged_tensor_is_dropped_told_and_written_again(store: Store) -> None:
    store.put_tensors(resid(2))
    sql(store, "UPDATE chunks SET data = repeat('x', 4000)::BLOB WHERE tensor_id = (SELECT min(tensor_id) FROM chunks)")
    with pytest.raises(TensorAbsent, match="damaged and was dropped") as caught:
        store.tensor("c0", "resid.0")
    assert (caught.value.owner_id, caught.value.name, caught.value.reason) == ("c0", "resid.0", "damaged")
    assert not store.has_tensors("c0", ["resid.0"])
    assert store.has_tensors("c0", ["resid.1"])
    store.put_tensors(resid(2))
    assert torch.equal(store.tensor("c0", "resid.0"), resid(2)["c0", "resid.0"])


def test_a_checksum_is_compared_on_first_read_and_on_verify(store: Store) -> None:
    store.put_tensors(resid(2))
    store.tensor("c0", "resid.0")
    sql(store, "UPDATE chunks SET data = repeat('x', 4000)::BLOB")
    store.tensor("c0", "resid.0")
    assert store.verify() == (("c0", "resid.0"), ("c0", "resid.1"))
    assert store.verify() == ()
    assert store.info()["tensors"] == 0


def test_info_counts(store: Store) -> None:
    store.write_run(run(), tables(), resid(), capture())
    info = store.info()
    assert {key: info[key] for key in ("runs", "captures", "tensors", "tensor_bytes", "schema", "duckdb")} == {
        "runs": 1, "captures": 1, "tensors": 3, "tensor_bytes": 12000, "schema": "5", "duckdb": "2.0.0",
    }  # fmt: skip


def test_a_closed_store_says_so(tmp_path: Path) -> None:
    filled(tmp_path / "store.duckdb")
    with Store.open(tmp_path / "store.duckdb") as store:
        store.tensor("c0", "resid.0")
    store.close()
    with pytest.raises(StoreClosed):
        store.run("r0")
    with pytest.raises(StoreClosed):
        store.put_tensors(resid())


def test_a_store_opens_again_with_everything(tmp_path: Path) -> None:
    path = tmp_path / "store.duckdb"
    filled(path)
    with Store.open(str(path)) as store:
        assert sorted(store.runs()["run_id"]) == ["r0", "r1"]
        assert torch.equal(store.tensor("c0", "resid.1"), resid()["c0", "resid.1"])
        assert store.verify() == ()


def test_memory_stores_share_nothing() -> None:
    with Store.open(":memory:") as one, Store.open(":memory:") as other:
        one.put_tensors(resid())
        assert not other.has_tensors("c0", ["resid.0"])


def test_a_negative_budget_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 0"):
        Store.open(":memory:", byte_budget=-1)


def test_a_failed_opening_holds_nothing(tmp_path: Path) -> None:
    path = tmp_path / "store.duckdb"
    path.write_bytes(b"")
    with pytest.raises(StoreDamaged):
        Store.open(path)
    path.unlink()
    Store.open(path).close()


def test_runs_of_whole_pages_are_found_among_many_small_ones(store: Store) -> None:
    def asked(run_id: str, *probes: str) -> dict[str, object]:
        return {**run(run_id), "request": {"probes": [{"name": name, "params": {}} for name in probes]}}

    store.write_run(asked("whole", "lens", "sinks"), {}, {}, capture())
    for index in range(30):
        store.write_run(asked(f"small{index}", "lens"), {}, {})
    store.write_run(asked("newest", "sinks", "lens"), {}, {})
    found = store.runs_of(["sinks", "lens"], 10)
    assert found["run_id"].tolist() == ["newest", "whole"]
    assert list(found.columns) == ["run_id", "model", "n_tokens", "mask"]
    assert store.runs_of(["sinks", "lens"], 1)["run_id"].tolist() == ["newest"]
    assert store.runs_of(["nothing"], 10).empty
    assert len(store.runs_of(["lens"], 40, also=["sinks"])) == 32
