"""Fault: kill -9 in the middle of a sweep. What was finished is there, and only the rest runs again."""

import signal
import subprocess
import sys
from pathlib import Path

from cache import Store

REPO = Path(__file__).parents[2]


def begin(path: Path) -> subprocess.Popen[str]:
    program = [sys.executable, "-m", "tests.faults.sweeping", str(path)]
    return subprocess.Popen(program, cwd=REPO, stdout=subprocess.PIPE, text=True)


def test_a_killed_sweep_loses_nothing_that_was_finished_and_runs_the_rest(tmp_path: Path) -> None:
    path = tmp_path / "store.duckdb"
    said: list[str] = []
    for enough in (3, 14):  # within the first batch, and in a later one
        with begin(path) as process:
            assert process.stdout is not None
            told = [process.stdout.readline().strip() for _ in range(enough)]
            process.send_signal(signal.SIGKILL)
            told += [line.strip() for line in process.stdout]
        assert "done" not in told
        assert not set(told) & set(said), "what was stored was computed again"
        said += told
        with Store.open(path) as store:
            stored = set(store.runs()["run_id"])
            assert set(said) <= stored
            assert len(stored) - len(said) <= 1, "at most one was stored and not yet said"
            assert all((store.table(run, "token_metrics")["metric"] == "nll").sum() > 100 for run in stored)
            assert store.verify() == ()
        said = sorted(stored)
    with begin(path) as process:
        assert process.stdout is not None
        told = process.stdout.read().split()
    assert told[-1] == "done"
    assert not set(told) & set(said)
    assert len(told) - 1 + len(said) == 40
