"""Fault 1: kill -9 while results are written. 20 times here; the long form runs 100."""

import json
import statistics
import subprocess
import sys
from pathlib import Path

REPO = Path(__file__).parents[2]
ROUNDS = 20


def test_nothing_acknowledged_is_lost_when_the_writer_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "store.duckdb"
    program = [sys.executable, "-m", "tests.faults.killing", str(path), str(ROUNDS), "7"]
    told = subprocess.run(program, cwd=REPO, capture_output=True, text=True, timeout=300, check=True)
    found = json.loads(told.stdout)
    reports = found["reports"]
    assert len(reports) == ROUNDS
    assert found["acknowledged"] > 0
    assert [report["lost"] for report in reports] == [[]] * ROUNDS
    assert [report["halves"] for report in reports] == [[]] * ROUNDS
    assert [report["damaged"] for report in reports] == [[]] * ROUNDS
    assert reports[-1]["held"] >= found["acknowledged"]
    assert statistics.median(report["seconds"] for report in reports) < 2.0
