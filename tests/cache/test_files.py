import os
from pathlib import Path

import pytest

from cache import Store, StoreDamaged, StoreLocked, StoreUnavailable, move_aside
from cache.files import HEADER_BYTES, Claim, create_whole, identity, look_at, wal_of
from cache.opening import _check_length
from tests.cache.rows import filled


def test_a_missing_file_is_new(tmp_path: Path) -> None:
    assert look_at(tmp_path / "store.duckdb") is False
    assert identity(tmp_path / "store.duckdb") is None


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"", "empty"), (bytes(20000), "zeros"), (b"not a database\n" * 2000, "no DuckDB database")],
)
def test_what_no_database_begins_with_is_damaged(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "store.duckdb"
    path.write_bytes(content)
    with pytest.raises(StoreDamaged, match=said):
        look_at(path)
    assert path.read_bytes() == content


def test_a_header_cut_short_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "store.duckdb"
    filled(path, n_runs=0)
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(StoreDamaged, match="cut short"):
        look_at(path)


def test_a_log_without_its_file_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "store.duckdb"
    wal_of(path).write_bytes(b"entries")
    with pytest.raises(StoreDamaged, match="log"):
        look_at(path)


def test_a_folder_is_no_store(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable):
        look_at(tmp_path)


def test_a_file_appears_only_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "store.duckdb"

    def build(draft: Path) -> None:
        draft.write_bytes(b"half")
        raise RuntimeError("killed here")

    with pytest.raises(RuntimeError):
        create_whole(path, build)
    assert list(tmp_path.iterdir()) == []


def test_whoever_was_faster_keeps_the_name(tmp_path: Path) -> None:
    path = tmp_path / "store.duckdb"

    def build(draft: Path) -> None:
        draft.write_bytes(b"mine")
        path.write_bytes(b"theirs")

    create_whole(path, build)
    assert path.read_bytes() == b"theirs"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_is_claimed_once_in_a_process_by_any_name(tmp_path: Path) -> None:
    path = tmp_path / "store.duckdb"
    claim = Claim(path)
    with pytest.raises(StoreLocked) as caught:
        Claim(tmp_path / ".." / tmp_path.name / "store.duckdb")
    assert caught.value.pid == os.getpid()
    claim.release()
    del claim
    again = Claim(path)
    again.release()


def test_moving_aside_keeps_file_and_log_and_gives_the_name_back(tmp_path: Path) -> None:
    path = tmp_path / "store.duckdb"
    asides = set()
    for content in (b"one", b"two"):
        path.write_bytes(content)
        wal_of(path).write_bytes(content + b" log")
        aside = move_aside(path)
        assert aside.read_bytes() == content
        assert wal_of(aside).read_bytes() == content + b" log"
        assert not path.exists()
        asides.add(aside)
    assert len(asides) == 2
    Store.open(path).close()


def test_a_store_in_use_is_not_moved(tmp_path: Path) -> None:
    path = tmp_path / "store.duckdb"
    with Store.open(path), pytest.raises(StoreLocked):
        move_aside(path)
    assert path.exists()


def test_what_is_not_there_cannot_be_moved(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match="no such file"):
        move_aside(tmp_path / "store.duckdb")


def test_a_free_block_that_was_never_written_is_no_damage(tmp_path: Path) -> None:
    """As DuckDB counts after a kill: five blocks, of which the last is free and not in the file."""
    path = tmp_path / "store.duckdb"
    path.write_bytes(b"x" * (HEADER_BYTES + 32768 * 4))
    _check_length(path, 32768, 5, 1)
    with pytest.raises(StoreDamaged, match="cut short"):
        _check_length(path, 32768, 5, 0)
