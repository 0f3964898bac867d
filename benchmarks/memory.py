"""Peak memory of long prompts above the loaded model, each in a process of its own."""

import json
import subprocess
import sys

__all__ = ["rows"]

_MEASURE = """
import json, sys, psutil
from cache.store import Store
from probes.memory import PeakMemory
from probes.model.catalog import EMBEDDED
from probes.model.shelf import Shelf
from probes.plan import make_plan
from probes.progress import Progress
from probes.request import DEFAULT_PROBES, RunRequest
from probes.runner import Runner
from probes.model.tokenise import text_ids
from probes.prompts import examples

tokens = int(sys.argv[1])
shelf = Shelf()
model = shelf.get(EMBEDDED)
model.mean_bank(Progress())
text = " ".join(example.text for example in examples())
ids = text_ids(model, text)
ids = (ids * (tokens // len(ids) + 1))[:tokens]
request = RunRequest(EMBEDDED, ids, DEFAULT_PROBES)
plan = make_plan(request, model.facts)
with PeakMemory("cpu") as memory, Store.open(sys.argv[2]) as store:
    info = Runner(store, shelf).run(request).info
print(json.dumps({"peak": memory.bytes, "planned": plan.bytes, "seconds": info.seconds}))
"""


def rows(lengths: dict[int, str], folder: str) -> list[tuple[str, str, str]]:
    """All views but the full lens at each length, with the plan's prediction beside what was measured."""
    found = []
    for tokens, goal in lengths.items():
        command = [sys.executable, "-c", _MEASURE, str(tokens), f"{folder}/memory-{tokens}.duckdb"]
        done = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1])
        peak, planned = done["peak"] / 2**30, done["planned"] / 2**30
        says = f"{peak:.2f} GB (planned {planned:.2f}), {done['seconds']:.0f} s"
        found.append((f"P5 {tokens} tokens, all views but the full lens, peak above the model", goal, says))
    return found
