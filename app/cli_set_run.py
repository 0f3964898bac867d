"""``run --prompt-set``: every prompt of a set run, and all runs in one document, written as they are read."""

import dataclasses
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from app.cli_sets import set_entry
from app.documents import run_document
from app.report.files import written_whole
from app.text import printable
from cache.store import Store
from probes.model.shelf import Shelf
from probes.progress import Progress
from probes.prompts.library import find_set
from probes.request import RunRequest
from probes.run import RunResult
from probes.runner import Runner
from probes.set_sweep import SetAsk, sweep_set
from probes.sweep import Swept

__all__ = ["refusals", "run_set", "set_ask", "written"]


def set_ask(store: Store, name: str, like: RunRequest, *, chat: bool, bos: bool) -> SetAsk:
    """A set by its name, asked of the model of ``like``. Raises BadRequest if there is none."""
    return SetAsk(find_set(store, name), like, chat, bos)


def run_set(runner: Runner, shelf: Shelf, asked: SetAsk, *, out: str, progress: Progress) -> list[str]:
    """Sweep a set and write ``{"prompt_set": {...}, "runs": [{"prompt": {...}, "run": {...}, ...}], "refused": [...]}``.

    Returns a line of each prompt that was refused. Raises what a sweep raises, and the first refusal where all are refused.
    """
    swept = sweep_set(runner, shelf, asked, progress)
    if len(swept.refused) == len(asked.prompts.prompts):
        raise next(iter(swept.refused.values()))
    with written(out) as write:
        _document(runner, asked, swept, write)
    return refusals(asked, swept.refused)


def refusals(asked: SetAsk, refused: Mapping[int, Exception]) -> list[str]:
    """A line of each prompt that was refused."""
    ids = [prompt.id for prompt in asked.prompts.prompts]
    return [f"refused\t{printable(ids[place])}\t{printable(str(why))}\n" for place, why in refused.items()]


def _document(runner: Runner, asked: SetAsk, swept: Swept, write: Callable[[str], object]) -> None:
    """The document piece by piece: a set's tables together may be larger than memory."""
    prompts = asked.prompts.prompts
    entry = set_entry(asked.prompts) | {"made": len(swept.made), "chat": asked.chat, "bos": asked.bos}
    write(f'{{"prompt_set": {_json(entry)}, "runs": [')
    between = ""
    for prompt, run_id in zip(prompts, swept.run_ids, strict=True):
        if run_id is not None:
            known = {"id": prompt.id, "group": prompt.group, "answer": prompt.answer, "response": prompt.response}
            write(between + _json({"prompt": known} | run_document(_answer(runner, run_id, run_id in swept.made))))
            between = ",\n"
    refused = [{"id": prompts[place].id, "reason": str(problem)} for place, problem in swept.refused.items()]
    write(f'], "refused": {_json(refused)}}}\n')


def _answer(runner: Runner, run_id: str, made: bool) -> RunResult:
    """A run of the sweep; one that it made says what making it took."""
    result, stored = runner.open(run_id), runner.store.run(run_id)
    assert result is not None
    assert stored is not None
    if not made:
        return result
    took = {name: stored[name] for name in ("forward_passes", "seconds")}
    return dataclasses.replace(result, info=dataclasses.replace(result.info, cached=False, **took))


@contextmanager
def written(out: str) -> Iterator[Callable[[str], object]]:
    """A function that writes pieces of a document, whole or not at all where ``out`` is a file."""
    if out == "-":
        yield sys.stdout.write
        return
    with written_whole(Path(out)) as file:
        yield lambda text: file.write(text.encode())


def _json(value: object) -> str:
    return json.dumps(value, allow_nan=False, ensure_ascii=False)
