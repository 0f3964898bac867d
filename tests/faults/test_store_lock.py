"""Fault 6: a second process on the store is refused in a sentence that names the first."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cache import Store, StoreLocked, move_aside
from tests.cache.rows import filled, resid

# DuckDB alone, because it starts ten times as fast as the package.
HOLD = """
import duckdb, sys
connection = duckdb.connect(sys.argv[1])
sys.stdout.write("held\\n")
sys.stdout.flush()
sys.stdin.read()
connection.close()
"""


@pytest.fixture
def held(tmp_path: Path) -> Iterator[tuple[Path, int]]:
    """A store another process has open, and the pid of that process."""
    path = tmp_path / "store.duckdb"
    filled(path)
    program = [sys.executable, "-c", HOLD, str(path)]
    with subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        yield path, holder.pid
        holder.communicate("", timeout=20)


def test_a_second_process_is_told_who_holds_the_store(held: tuple[Path, int]) -> None:
    path, pid = held
    before = path.read_bytes()
    with pytest.raises(StoreLocked) as caught:
        Store.open(path)
    assert caught.value.pid == pid
    for part in (str(path), str(pid), "--store FILE", "--store :memory:"):
        assert part in str(caught.value)
    assert path.read_bytes() == before


def test_a_store_held_elsewhere_is_not_moved_aside(held: tuple[Path, int]) -> None:
    path, pid = held
    with pytest.raises(StoreLocked) as caught:
        move_aside(path)
    assert caught.value.pid == pid
    assert path.exists()


def test_another_process_is_refused_while_this_one_works(tmp_path: Path) -> None:
    path = tmp_path / "store.duckdb"
    with Store.open(path) as store:
        store.put_tensors(resid())
        with pytest.raises(StoreLocked) as caught:
            Store.open(path)  # the second opening must not let go of the first one's lock
        assert caught.value.pid == os.getpid()
        told = subprocess.run(
            [sys.executable, "-c", HOLD, str(path)], input="", capture_output=True, text=True, check=False
        )
        assert told.returncode != 0
        assert "Could not set lock" in told.stderr
        store.put_tensors(resid(owner="c1"))


def test_a_closed_store_is_free_for_others(tmp_path: Path) -> None:
    path = tmp_path / "store.duckdb"
    with Store.open(path) as store:
        store.put_tensors(resid())
        store.tensor("c0", "resid.0")
    told = subprocess.run(
        [sys.executable, "-c", HOLD, str(path)], input="", capture_output=True, text=True, check=False
    )
    assert told.returncode == 0, told.stderr
    Store.open(path).close()
