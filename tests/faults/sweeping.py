"""Sweep 40 prompts through a tiny model into a store, and say the id of each run once it is stored."""

import sys
from pathlib import Path

from cache import Store
from probes.model.shelf import Shelf
from probes.model.tokenise import text_ids
from probes.progress import Progress
from probes.request import ProbeCall, RunRequest
from probes.run import RunInfo
from probes.runner import Runner
from probes.sweep import sweep
from tests import tiny

CALLS = (ProbeCall("tokens"), ProbeCall("sinks"), ProbeCall("massive"))


class Telling(Runner):
    def write(self, info: RunInfo, *rest: object) -> None:
        super().write(info, *rest)
        sys.stdout.write(f"{info.run_id}\n")
        sys.stdout.flush()


def main(path: Path) -> None:
    model = tiny.loaded("llama")
    shelf = Shelf()
    shelf.put(model)
    texts = [f"{tiny.TEXT} {number}" for number in range(40)]
    requests = [RunRequest(model.facts.name, text_ids(model, text), CALLS) for text in texts]
    with Store.open(path) as store:
        sweep(Telling(store, shelf), requests, Progress())
    sys.stdout.write("done\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
