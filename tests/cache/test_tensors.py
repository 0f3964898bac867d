from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
import torch

from cache.connection import Database, Transaction
from cache.migrations import migrate
from cache.tensors import (
    CHUNK_BYTES,
    DTYPES,
    Mismatch,
    drop,
    encode,
    evict,
    find,
    insert,
    keys,
    load,
    now,
    sweep,
    touch,
)


@pytest.fixture
def database() -> Iterator[Database]:
    yield from made(None)


@pytest.fixture
def on_disk(tmp_path: Path) -> Iterator[Database]:
    yield from made(tmp_path / "store.duckdb")


def made(path: Path | None) -> Iterator[Database]:
    made = Database(path)
    made.write(lambda transaction: migrate(transaction.connection, None))
    yield made
    made.close()


def put(database: Database, values: dict[tuple[str, str], torch.Tensor]) -> None:
    encoded = [encode(owner, name, value) for (owner, name), value in values.items()]
    database.write(lambda transaction: insert(transaction, encoded, now()))


def get(database: Database, owner: str, name: str) -> torch.Tensor:
    with database.reading() as cursor:
        return load(cursor, find(cursor, owner)[name], check=True)


def run(database: Database, sql: str) -> list[tuple[object, ...]]:
    return database.write(lambda transaction: transaction.connection.execute(sql).fetchall())


def test_every_dtype_and_shape_comes_back_to_the_bit(database: Database) -> None:
    shapes = [(), (0,), (1,), (3, 0, 2), (2, 3, 5)]
    values = {
        ("c", f"{name}{shape}"): torch.randint(0, 2, shape).to(DTYPES[name]) for name in DTYPES for shape in shapes
    }
    put(database, values)
    for (owner, name), value in values.items():
        back = get(database, owner, name)
        assert (back.dtype, back.shape) == (value.dtype, value.shape), name
        assert torch.equal(back, value), name


def test_nan_and_infinity_are_only_bits() -> None:
    value = torch.tensor([float("nan"), float("inf"), -0.0])
    assert encode("c", "x", value).data.tobytes() == value.numpy().tobytes()


@pytest.mark.parametrize("n_bytes", [CHUNK_BYTES - 4, CHUNK_BYTES, CHUNK_BYTES + 4, 70 * CHUNK_BYTES + 12])
def test_chunks_and_parts_join_without_a_seam(database: Database, n_bytes: int) -> None:
    value = torch.arange(n_bytes // 4, dtype=torch.int32)
    put(database, {("c", "before"): torch.ones(3), ("c", "x"): value, ("c", "after"): torch.zeros(2)})
    assert torch.equal(get(database, "c", "x"), value)
    assert torch.equal(get(database, "c", "before"), torch.ones(3))
    assert torch.equal(get(database, "c", "after"), torch.zeros(2))


def test_views_numpy_arrays_and_read_only_ones_are_kept() -> None:
    value = torch.arange(12.0).reshape(3, 4).T
    frozen = value.numpy().copy()
    frozen.flags.writeable = False
    digests = {encode("c", "x", kind).digest for kind in (value, value.contiguous(), value.numpy(), frozen)}
    assert len(digests) == 1


def test_encoding_copies_nothing_it_need_not() -> None:
    value = torch.zeros(4)
    assert encode("c", "x", value).data.ctypes.data == value.data_ptr()


def test_shape_and_dtype_are_part_of_the_checksum() -> None:
    values = [torch.zeros(4), torch.zeros(2, 2), torch.zeros(4, dtype=torch.int32)]
    assert len({encode("c", "x", value).digest for value in values}) == 3


@pytest.mark.parametrize("value", [torch.zeros(2, dtype=torch.complex64), np.array(["a"])])
def test_other_dtypes_are_refused(value: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="the store keeps float64"):
        encode("c", "x", value)


def test_chunks_are_stored_uncompressed(on_disk: Database) -> None:
    put(on_disk, {("c", "x"): torch.zeros(3 * CHUNK_BYTES // 4)})
    found = run(on_disk, "SELECT DISTINCT compression FROM pragma_storage_info('chunks') WHERE segment_type = 'BLOB'")
    assert found == [("Uncompressed",)]


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ("UPDATE chunks SET data = repeat('x', 1048576)::BLOB WHERE seq = 1", "checksum"),
        ("UPDATE chunks SET data = 'short'::BLOB WHERE seq = 1", "chunk 1"),
        ("UPDATE chunks SET seq = 2 - seq", "chunk 0"),
        ("DELETE FROM chunks WHERE seq = 3", "bytes are there"),
        ("DELETE FROM chunks WHERE seq = 0", "chunk 0"),
        ("DELETE FROM chunks", "0 of"),
        ("UPDATE tensors SET shape = [786434]", "checksum"),
        ("UPDATE tensors SET dtype = 'int32'", "checksum"),
    ],
)
def test_damage_of_any_kind_is_found(database: Database, damage: str, said: str) -> None:
    put(database, {("c", "x"): torch.ones(2, 393217)})
    number = find_id(database, "c", "x")
    run(database, damage)
    with pytest.raises(Mismatch, match=said) as caught:
        get(database, "c", "x")
    assert caught.value.tensor_id == number


def find_id(database: Database, owner: str, name: str) -> int:
    with database.reading() as cursor:
        return find(cursor, owner)[name].tensor_id


def test_dropping_counts_and_takes_chunks_along(database: Database) -> None:
    put(database, {("c", "x"): torch.ones(5), ("c", "y"): torch.ones(5)})
    number = find_id(database, "c", "x")
    assert database.write(lambda transaction: drop(transaction.connection, [number, 10**6])) == 1
    assert database.write(lambda transaction: drop(transaction.connection, [])) == 0
    assert run(database, "SELECT count(*) FROM chunks") == [(1,)]
    with database.reading() as cursor:
        assert keys(cursor) == [("c", "y")]


def test_chunks_of_an_interrupted_write_are_swept(on_disk: Database) -> None:
    put(on_disk, {("c", "x"): torch.ones(5)})

    def interrupted(transaction: Transaction) -> None:
        insert(transaction, [encode("d", "x", torch.zeros(40 * CHUNK_BYTES // 4))], now())
        raise RuntimeError

    with pytest.raises(RuntimeError):
        on_disk.write(interrupted)
    assert run(on_disk, "SELECT count(*) FROM chunks") == [(33,)]
    on_disk.write(lambda transaction: sweep(transaction.connection))
    assert run(on_disk, "SELECT count(*) FROM chunks") == [(1,)]
    assert torch.equal(get(on_disk, "c", "x"), torch.ones(5))


def evicted(database: Database, budget: int, keep: frozenset[str] = frozenset()) -> tuple[int, list[str]]:
    dropped = database.write(lambda transaction: evict(transaction.connection, budget, keep))
    with database.reading() as cursor:
        return dropped, sorted({owner for owner, _ in keys(cursor)})


def test_the_least_recently_used_owner_goes_first_and_whole(database: Database) -> None:
    for owner in "abcd":
        put(database, {(owner, "x"): torch.zeros(200), (owner, "y"): torch.zeros(50)})
    later = now() + timedelta(seconds=5)
    database.write(lambda transaction: touch(transaction.connection, {"a": later, "nobody": later}))
    assert evicted(database, 4000) == (0, ["a", "b", "c", "d"])
    assert evicted(database, 3999) == (1000, ["a", "c", "d"])
    assert evicted(database, 1500, frozenset("c")) == (2000, ["c"])
    assert evicted(database, 0, frozenset("c")) == (0, ["c"])
    assert evicted(database, -1) == (1000, [])


def test_space_of_dropped_tensors_is_used_again(on_disk: Database) -> None:
    assert on_disk.path is not None
    value = torch.zeros(4 * CHUNK_BYTES // 4)
    sizes = []
    for index in range(12):
        put(on_disk, {(f"c{index}", "x"): value})
        on_disk.write(lambda transaction: evict(transaction.connection, 2 * value.nbytes))
        sizes.append(on_disk.path.stat().st_size)
    assert max(sizes) < 5 * value.nbytes
    assert sizes[-1] <= sizes[4]
