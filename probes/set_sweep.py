"""A prompt set asked of a model: each prompt becomes tokens, then a run with the keys of a single one."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from probes.errors import BadRequest
from probes.model.shelf import Shelf
from probes.model.tokenise import Reads, chat_ids, text_ids
from probes.progress import Progress
from probes.prompts.sets import Prompt, PromptSet
from probes.request import RunRequest
from probes.runner import Runner
from probes.sweep import Swept, sweep

__all__ = ["SetAsk", "sweep_set"]


@dataclass(frozen=True)
class SetAsk:
    """A set, how its prompts become tokens, and what is asked of each: ``like`` is a request whose tokens do not count.

    ``chat`` puts plain texts into the chat template as one message of the user; conversations are always in it.
    """

    prompts: PromptSet
    like: RunRequest
    chat: bool = False
    bos: bool = True

    def request(self, prompt: Prompt, model: Reads) -> RunRequest:
        """The request of one prompt. Raises BadRequest for one the model cannot take."""
        if prompt.text is not None and not self.chat:
            ids = text_ids(model, prompt.text, bos=self.bos)
        else:
            messages = prompt.messages or ({"role": "user", "content": prompt.shown},)
            ids = chat_ids(model, messages, bos=self.bos)
        return dataclasses.replace(self.like, token_ids=ids)


def sweep_set(runner: Runner, shelf: Shelf, asked: SetAsk, progress: Progress) -> Swept:
    """Run all prompts of a set that are not stored; places are those of the prompts. Raises what :func:`sweep` does."""
    like = asked.like
    model = shelf.get(like.model, like.dtype, like.device, progress.part(0.0, 0.1))
    requests: dict[int, RunRequest] = {}
    refused: dict[int, Exception] = {}
    for place, prompt in enumerate(asked.prompts.prompts):
        try:
            requests[place] = asked.request(prompt, model)
        except BadRequest as problem:
            refused[place] = problem
    swept = sweep(runner, list(requests.values()), progress.part(0.1, 1.0))
    places = list(requests)
    ids = dict(zip(places, swept.run_ids, strict=True))
    refused |= {places[index]: problem for index, problem in swept.refused.items()}
    return Swept(
        tuple(ids.get(place) for place in range(len(asked.prompts.prompts))), swept.made, dict(sorted(refused.items()))
    )
