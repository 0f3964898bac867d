"""Fault 35: SIGTERM lets what is being written finish, flushes and ends the process within five seconds."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import torch

from cache import Store
from cache.files import wal_of
from tests.cache.rows import resid

REPO = Path(__file__).parents[2]
PROGRAM = """
import signal, sys
from cache import Store
from tests.cache.rows import capture, resid, run, tables

signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
with Store.open(sys.argv[1]) as store:
    store.put_tensors(resid(1, owner="old"))
    store.put_tensors(resid(1, owner="new"))
    store.tensor("old", "resid.0")
    for index in range(10_000):
        store.write_run(run(f"r{index}", "c"), tables(index), {}, capture("c"))
        sys.stdout.write(f"{index}\\n")
        sys.stdout.flush()
"""


def test_a_terminated_process_loses_nothing_it_acknowledged(tmp_path: Path) -> None:
    path = tmp_path / "store.duckdb"
    program = [sys.executable, "-c", PROGRAM, str(path)]
    with subprocess.Popen(program, cwd=REPO, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(3)]
        began = time.perf_counter()
        process.send_signal(signal.SIGTERM)
        lines += process.stdout.readlines()
        assert process.wait(timeout=30) == 0
        assert time.perf_counter() - began < 5.0
    acknowledged = {f"r{line.strip()}" for line in lines if line.strip()}
    assert len(acknowledged) >= 3
    assert not wal_of(path).exists()
    with Store.open(path) as store:
        assert acknowledged <= set(store.runs()["run_id"])
        assert torch.equal(store.tensor("old", "resid.0"), resid(1, owner="old")["old", "resid.0"])
        store.prune(4000)  # what was read last was written down on the way out
        assert store.has_tensors("old", ["resid.0"])
        assert not store.has_tensors("new", ["resid.0"])
