"""Fault 4: no room left. A tmpfs of 24 MB where one can be mounted, a limit on the size of files everywhere else."""

import json
import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import pytest
import torch

from cache import Store, StoreFull
from cache.connection import Database
from tests.cache.rows import capture, resid, run, tables

REPO = Path(__file__).parents[2]
VALUES = 500_000


def fill(path: Path) -> dict[str, object]:
    """Write runs of 2 MB until the store says it is full, then show what still works. Returns what was seen.

    A second thread reads all the while: it may be told that the store is full, never anything else.
    """
    acknowledged = []
    sentence = ""
    surprises: list[str] = []
    over = threading.Event()

    def look() -> None:
        while not over.wait(0.01):
            try:
                store.run("r0")
            except StoreFull:
                pass
            except BaseException as error:
                surprises.append(repr(error))

    with Store.open(path) as store:
        looker = threading.Thread(target=look)
        looker.start()
        for index in range(100):
            owner = f"c{index}"
            try:
                store.write_run(run(f"r{index}", owner), tables(index), resid(1, VALUES, index, owner), capture(owner))
            except StoreFull as full:
                sentence = str(full)
                break
            acknowledged.append(index)
        first = store.tensor("c0", "resid.0")
        pd.testing.assert_frame_equal(store.table("r0", "spectra"), tables(0)["spectra"], check_exact=True)
        store.prune(VALUES * 8)
        store.put_tensors({("late", "x"): torch.ones(100)})
        over.set()
        looker.join()
    with Store.open(path) as store:
        return {
            "acknowledged": len(acknowledged),
            "kept": sorted(store.runs()["run_id"]) == sorted(f"r{index}" for index in acknowledged),
            "sentence": sentence,
            "first": torch.equal(first, resid(1, VALUES, 0, "c0")["c0", "resid.0"]),
            "late": torch.equal(store.tensor("late", "x"), torch.ones(100)),
            "damaged": store.verify(),
            "surprises": surprises,
        }


def assert_survived(found: dict[str, object], path: Path) -> None:
    assert isinstance(found["acknowledged"], int)
    assert 3 <= found["acknowledged"] < 20
    assert str(path) in str(found["sentence"])
    assert "no room left" in str(found["sentence"])
    assert {key: found[key] for key in ("kept", "first", "late")} == {"kept": True, "first": True, "late": True}
    assert not found["damaged"]
    assert found["surprises"] == []


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode:
        refuse = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
        refuse("a tmpfs cannot be mounted here; the limit on file sizes stands in for it")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.skipif(
    os.environ.get("CI") != "true" and (sys.platform != "linux" or os.geteuid() != 0),
    reason="needs the right to mount a tmpfs",
)
def test_a_full_disk_loses_nothing_and_is_survived(tmp_path: Path) -> None:
    with small_disk(tmp_path) as folder:
        path = folder / "store.duckdb"
        assert_survived(fill(path), path)


def test_a_file_that_may_not_grow_loses_nothing_and_is_survived(tmp_path: Path) -> None:
    path = tmp_path / "store.duckdb"
    program = [sys.executable, "-m", "tests.faults.test_store_full", str(path)]
    told = subprocess.run(program, cwd=REPO, capture_output=True, text=True, timeout=120, check=True)
    assert_survived(json.loads(told.stdout), path)


def test_a_file_that_vanished_is_not_made_anew_after_a_fatal_error(tmp_path: Path) -> None:
    database = Database(tmp_path / "x.duckdb")
    (tmp_path / "x.duckdb").unlink()
    database._reopen(tmp_path / "x.duckdb")
    assert not (tmp_path / "x.duckdb").exists()
    database.close()


if __name__ == "__main__":
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20 << 20, 20 << 20))
    sys.stdout.write(json.dumps(fill(Path(sys.argv[1]))))
