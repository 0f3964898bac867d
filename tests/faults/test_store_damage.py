"""Faults 2 and 3: truncated, flipped, zeroed, empty and text store files; a flipped bit in each of 20 tensors."""

import random
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
import torch

from cache import Store, StoreDamaged, TensorAbsent, move_aside
from cache.files import wal_of
from tests.cache.rows import filled, resid, tables

TENSORS = 20


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The bytes of a closed store with two runs and twenty tensors."""
    path = tmp_path_factory.mktemp("sound") / "store.duckdb"
    filled(path, n_tensors=TENSORS, n_values=5000)
    assert not wal_of(path).exists()
    return path.read_bytes()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.duckdb"


def ruined(sound: bytes) -> Iterator[tuple[str, bytes]]:
    yield "empty", b""
    yield "text", b"dear store,\n" * 1000
    yield "short text", b"dear store"
    yield "zeros", bytes(len(sound))
    yield "zeroed header", bytes(12288) + sound[12288:]
    yield "noise", random.Random(0).randbytes(50000)
    for length in (1, 4095, 12287, 12288, 20000, len(sound) // 2, len(sound) - 4096, len(sound) - 1):
        yield f"cut to {length} bytes", sound[:length]
    for offset in (9, 40, 4097, 8200):
        yield f"a bit of the header flipped at {offset}", flipped(sound, offset, 3)


def flipped(content: bytes, offset: int, bit: int) -> bytes:
    changed = bytearray(content)
    changed[offset] ^= 1 << bit
    return bytes(changed)


def test_a_ruined_file_is_named_left_alone_and_moved_aside(path: Path, sound: bytes) -> None:
    for what, content in ruined(sound):
        path.write_bytes(content)
        with pytest.raises(StoreDamaged) as caught:
            Store.open(path)
        assert str(path) in str(caught.value), what
        assert "move it aside" in str(caught.value), what
        assert path.read_bytes() == content, what
        assert move_aside(path).read_bytes() == content, what
    with Store.open(path) as store:
        assert store.info()["runs"] == 0


def test_a_flipped_bit_anywhere_is_named_or_changes_nothing(path: Path, sound: bytes) -> None:
    """30 bits anywhere in the file: what is read is right, or the damage is named; never wrong, never something else."""
    dice = random.Random(5)
    named = 0
    for _ in range(30):
        offset = dice.randrange(len(sound))
        path.write_bytes(flipped(sound, offset, dice.randrange(8)))
        try:
            with Store.open(path) as store:
                named += read_all(store)
        except StoreDamaged:
            named += 1
    assert named >= 15


def read_all(store: Store) -> int:
    """Compare everything with what was written; returns how many tensors were told to be damaged."""
    for index in (0, 1):
        for name, frame in tables(index).items():
            pd.testing.assert_frame_equal(store.table(f"r{index}", name), frame, check_exact=True)
    lost = 0
    for (owner, name), value in resid(TENSORS, 5000).items():
        try:
            assert torch.equal(store.tensor(owner, name), value)
        except TensorAbsent as absent:
            lost += absent.reason == "damaged"
    return lost


def test_a_flipped_bit_in_each_of_20_tensors_is_found_dropped_and_told(path: Path, sound: bytes) -> None:
    values = resid(TENSORS, 5000)
    content = sound
    for value in values.values():
        middle = value.numpy().tobytes()[8000:8064]
        assert content.count(middle) == 1
        content = flipped(content, content.index(middle) + 7, 6)
    path.write_bytes(content)
    with Store.open(path) as store:
        for owner, name in values:
            with pytest.raises(TensorAbsent) as caught:
                store.tensor(owner, name)
            assert caught.value.reason == "damaged"
            assert name in str(caught.value)
        assert store.info()["tensors"] == 0
        store.put_tensors(values)
    with Store.open(path) as store:
        assert store.verify() == ()
        for (owner, name), value in values.items():
            assert torch.equal(store.tensor(owner, name), value)


def test_verify_tells_the_flipped_one_of_20(path: Path, sound: bytes) -> None:
    """A block of the file is 32 KB, a tensor here 20 KB: what shares the block goes with it."""
    values = resid(TENSORS, 5000)
    middle = values["c0", "resid.7"].numpy().tobytes()[:64]
    path.write_bytes(flipped(sound, sound.index(middle), 0))
    with Store.open(path) as store:
        damaged = store.verify()
        assert ("c0", "resid.7") in damaged
        assert set(damaged) <= {("c0", f"resid.{index}") for index in (6, 7, 8)}
        assert store.info()["tensors"] == TENSORS - len(damaged)


def test_a_log_of_garbage_beside_a_sound_store_loses_nothing(path: Path, sound: bytes) -> None:
    path.write_bytes(sound)
    wal_of(path).write_bytes(b"garbage" * 1000)
    with Store.open(path) as store:
        assert read_all(store) == 0
        store.put_tensors({("c9", "x"): torch.ones(3)})
    with Store.open(path) as store:
        assert torch.equal(store.tensor("c9", "x"), torch.ones(3))
