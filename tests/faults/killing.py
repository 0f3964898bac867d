"""Kill a process that writes runs, again and again, and say what was acknowledged, what is there and how long opening took.

A program of its own: it loads everything once and forks, so that a round costs a fraction of a second. It never opens
the store itself; children do.
"""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow.dataset  # noqa: F401  what DuckDB would load at the first write of every child

from cache import Store
from tests.cache.rows import capture, resid, run, tables


def child(work: Any, *args: Any) -> tuple[int, int]:
    """Fork; the child runs ``work`` with the writing end of a pipe. Returns its pid and the reading end."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid:
        os.close(writer)
        return pid, reader
    os.close(reader)
    try:
        work(writer, *args)
        os._exit(0)
    except BaseException as error:
        os.write(writer, f"failed {error!r}\n".encode())
        os._exit(1)


def write(pipe: int, path: Path, start: int) -> None:
    """Write runs until killed; a number goes into the pipe only after its run was acknowledged."""
    with Store.open(path) as store:
        os.write(pipe, b"open\n")
        for index in range(start, start + 100_000):
            owner = f"c{index}"
            values = resid(3, 20_000 if index % 3 else 600_000, seed=index, owner=owner)
            store.write_run(run(f"r{index}", owner), tables(index), values, capture(owner))
            os.write(pipe, f"{index}\n".encode())


def check(pipe: int, path: Path, acknowledged: list[int]) -> None:
    """Open, and compare everything acknowledged so far with what was written."""
    began = time.perf_counter()
    with Store.open(path) as store:
        seconds = time.perf_counter() - began
        held = set(store.runs()["run_id"])
        lost = [index for index in acknowledged if f"r{index}" not in held]
        halves = [
            index
            for index in (int(name[1:]) for name in held)
            if len(store.table(f"r{index}", "spectra")) != 4
            or len(store.table(f"r{index}", "tokens")) != 3
            or not store.has_tensors(f"c{index}", ["resid.0", "resid.1", "resid.2"])
        ]
        damaged = store.verify() if len(acknowledged) % 5 == 0 else ()
    found = {"seconds": seconds, "lost": lost, "halves": halves, "damaged": damaged, "held": len(held)}
    os.write(pipe, json.dumps(found).encode())


def drain(pipe: int) -> str:
    with os.fdopen(pipe) as reading:
        return reading.read()


def main(path: Path, rounds: int, seed: int) -> None:
    dice = random.Random(seed)
    acknowledged: list[int] = []
    reports = []
    for _ in range(rounds):
        pid, pipe = child(write, path, max(acknowledged, default=-1) + 1000)
        with os.fdopen(pipe, buffering=1) as told:
            began = time.perf_counter()
            lines = [told.readline() for _ in range(1 + dice.randint(0, 3))]
            # somewhere within the next write, however slow the machine is just now
            time.sleep(dice.uniform(0, (time.perf_counter() - began) / len(lines)))
            os.kill(pid, signal.SIGKILL)
            lines += told.readlines()
        os.waitpid(pid, 0)
        acknowledged += [int(line) for line in lines[1:]]
        pid, pipe = child(check, path, acknowledged)
        reports.append(json.loads(drain(pipe)))
        os.waitpid(pid, 0)
    sys.stdout.write(json.dumps({"acknowledged": len(acknowledged), "reports": reports}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
