"""Fault 5: a cache folder that is missing, read-only, no folder at all, or that vanishes."""

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cache import Store, StoreUnavailable
from tests.cache.rows import capture, filled, resid, run, tables


def test_a_missing_folder_is_made(tmp_path: Path) -> None:
    path = tmp_path / "not" / "yet" / "store.duckdb"
    with Store.open(path) as store:
        assert store.info()["runs"] == 0
    assert path.exists()


def test_a_file_in_place_of_the_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreUnavailable, match="folder cannot be made") as caught:
        Store.open(tmp_path / "file" / "store.duckdb")
    assert "--store :memory:" in str(caught.value)


@pytest.mark.skipif(sys.platform != "linux", reason="/sys is Linux")
def test_a_folder_nobody_may_write_to_is_named() -> None:
    with pytest.raises(StoreUnavailable, match=r"The store /sys/store\.duckdb cannot be used \([a-z ]+\)"):
        Store.open("/sys/store.duckdb")


@contextmanager
def nobody() -> Iterator[None]:
    """Without root's rights, which make every file writable."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A temporary folder that others may enter."""
    folder = Path(tempfile.mkdtemp(dir="/tmp"))
    folder.chmod(0o755)
    yield folder
    folder.chmod(0o755)
    shutil.rmtree(folder)


def test_a_read_only_store_is_named_and_left_alone(open_folder: Path) -> None:
    path = open_folder / "store.duckdb"
    filled(path)
    before = path.read_bytes()
    path.chmod(0o444)
    open_folder.chmod(0o555)
    with nobody(), pytest.raises(StoreUnavailable, match="permission denied"):
        Store.open(path)
    assert path.read_bytes() == before
    assert list(open_folder.iterdir()) == [path]


def test_a_read_only_folder_gets_no_store(open_folder: Path) -> None:
    open_folder.chmod(0o555)
    with nobody(), pytest.raises(StoreUnavailable):
        Store.open(open_folder / "store.duckdb")
    assert list(open_folder.iterdir()) == []


def test_results_are_not_acknowledged_after_the_folder_vanished(tmp_path: Path) -> None:
    path = tmp_path / "cache" / "store.duckdb"
    store = Store.open(path)
    store.write_run(run("r0"), tables(), resid(), capture())
    shutil.rmtree(path.parent)
    for name in ("r1", "r2"):
        with pytest.raises(StoreUnavailable, match="moved or deleted"):
            store.write_run(run(name), tables(), {})
    store.close()
    assert not path.parent.exists()
    with Store.open(path) as again:
        assert again.info()["runs"] == 0
