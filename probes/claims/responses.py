"""Responses to the prompts of a set: those the set brings, or what the model writes next, greedily."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from probes.claims.bench import PROBES, Bench, Item
from probes.errors import BadRequest
from probes.model.tokenise import text_ids
from probes.request import ProbeCall, RunRequest

__all__ = ["TOKENS", "Response", "answers_it", "responses"]

TOKENS = 48
_WORD = re.compile(r"\w+")


@dataclass(frozen=True, slots=True)
class Response:
    """What was answered to a prompt: ids without those of the prompt, and the text; ``brought`` by the set, or written
    by the model."""

    item: Item
    prompt_ids: tuple[int, ...]
    response_ids: tuple[int, ...]
    text: str
    brought: bool


def responses(bench: Bench, items: Sequence[Item]) -> list[Response]:
    """A response to each prompt, at most 48 tokens where the model has to write it; what is stored is read."""
    model = bench.loaded()
    found = []
    for place, item in enumerate(items):
        bench.told(place, len(items), "responses to")
        ids = tuple(int(token) for token in bench.capture(item).token_ids)
        if item.prompt.response is not None:
            own = text_ids(model, item.prompt.response, bos=False)
            found.append(Response(item, ids, own, item.prompt.response, True))
            continue
        asked = RunRequest(bench.model, ids, PROBES).with_probes(ProbeCall("continuation", {"tokens": TOKENS}))
        try:
            run = bench.runner.run(asked)
        except BadRequest:  # prompt and response outgrow the context
            continue
        written = tuple(int(token) for token in run.tensor("continuation"))
        text = model.tokenizer.decode(written, skip_special_tokens=True)
        found.append(Response(item, ids, written, text, False))
    return found


def answers_it(text: str, answer: str) -> bool:
    """Whether the first line of a response that says anything holds the answer as words of its own, in any case."""
    line = next((line for line in text.splitlines() if line.strip()), "")
    said, wanted = (_WORD.findall(one.casefold()) for one in (line, answer))
    return any(said[at : at + len(wanted)] == wanted for at in range(len(said))) if wanted else False
