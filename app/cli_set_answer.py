"""``run --prompt-set --generate``: a response to every prompt of a set, and the shift from prompt to response over prompts."""

from typing import Any

import pandas as pd

from app.cli_json import as_json
from app.cli_set_run import refusals, written
from app.cli_sets import set_entry
from app.text import json_rows
from probes.model.shelf import Shelf
from probes.progress import Progress
from probes.respond import Generation
from probes.responses import Response, Responses, responses, shift_over
from probes.runner import Runner
from probes.set_sweep import SetAsk

__all__ = ["answer_set"]


def answer_set(
    runner: Runner, shelf: Shelf, asked: SetAsk, how: Generation, *, out: str, progress: Progress
) -> list[str]:
    """Write ``{"prompt_set": {...}, "responses": [...], "shift": {...}, "shift_raw": {...}, "refused": [...]}``.

    ``shift`` has ``overall`` (class of the mean over points), ``exploratory`` (fewer than 20 prompts) and ``table`` by point;
    ``shift_raw`` is of raw states without position 0 and special tokens. Returns a line of each prompt that was refused.
    Raises what :func:`responses` does, and the first refusal where all are refused.
    """
    found = responses(runner, shelf, asked, how, progress)
    if not found.found:
        raise next(iter(found.refused.values()))
    document = {
        "prompt_set": set_entry(asked.prompts) | {"chat": asked.chat, "bos": asked.bos},
        "responses": [_entry(one) for one in found.found],
        "shift": _shift(found, raw=False),
        "shift_raw": _shift(found, raw=True),
        "refused": [
            {"id": asked.prompts.prompts[place].id, "reason": str(problem)} for place, problem in found.refused.items()
        ],
    }
    with written(out) as write:
        write(as_json(document) + "\n")
    return refusals(asked, found.refused)


def _entry(one: Response) -> dict[str, Any]:
    known = ("run_id", "text", "start", "answer_at", "right", "n_before_answer")
    entry: dict[str, Any] = {"id": one.prompt.id, "group": one.prompt.group, "answer": one.prompt.answer}
    entry |= {name: getattr(one, name) for name in known}
    entry |= {name: _number(getattr(one, name)) for name in ("logprob", "entropy")}
    return entry | {
        name: [_number(value) for value in getattr(one, name)] for name in ("alpha", "prompt_alpha", "response_alpha")
    }


def _shift(found: Responses, *, raw: bool) -> dict[str, Any]:
    shift = shift_over(found, raw=raw)
    overall = {name: _number(shift.comparison.overall[name]) for name in ("n", "difference", "low", "high", "sd", "p")}
    return {
        "overall": overall | {"class": shift.overall},
        "exploratory": shift.exploratory,
        "table": json_rows(shift.table),
    }


def _number(value: Any) -> float | None:
    return None if pd.isna(value) else float(value)
