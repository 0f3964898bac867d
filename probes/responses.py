"""Responses to every prompt of a set: what each one says, whether it is right, and the spectra of its states.

Each response is generated once and stored, so a sweep that was stopped goes on where it was. Prompts of one length are
continued together, and the joint passes over prompt and response are swept in batches, as any prompts are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from jaxtyping import Float64

from analysis.answer_rule import is_right
from analysis.response_shift import ResponseShift, response_shift
from probes.errors import BadRequest
from probes.model.loaded import LoadedModel
from probes.model.shelf import Shelf
from probes.progress import Progress
from probes.prompts.sets import Prompt
from probes.respond import Generation, response_request
from probes.runner import Runner
from probes.set_sweep import SetAsk
from probes.sweep import sweep
from probes.writing import write_all

if TYPE_CHECKING:
    from probes.request import RunRequest

__all__ = ["Response", "Responses", "responses", "shift_over"]


@dataclass(frozen=True, eq=False)
class Response:
    """What the model answered to one prompt. ``run_id`` is the run of prompt and response together, ``token_ids`` and ``text``
    are the response's.

    ``start`` is the position of its first token, ``answer_at`` of the first token of the answer it states (the end of the text
    where it marks none): features are of the tokens before it, or they would read the answer. ``right`` is None where the
    prompt has no answer. ``logprob`` (mean, nats), ``entropy`` (mean, nats) and ``alpha`` [points] are of the tokens before
    ``answer_at``; NaN where those are too few. ``prompt_alpha`` and ``response_alpha`` [points] are at equal n, whole response;
    ``raw_...`` the same of raw states without position 0 and special tokens.
    """

    prompt: Prompt
    run_id: str
    token_ids: tuple[int, ...]
    text: str
    start: int
    answer_at: int
    right: bool | None
    logprob: float
    entropy: float
    alpha: Float64[np.ndarray, " points"]
    prompt_alpha: Float64[np.ndarray, " points"]
    response_alpha: Float64[np.ndarray, " points"]
    raw_prompt_alpha: Float64[np.ndarray, " points"]
    raw_response_alpha: Float64[np.ndarray, " points"]

    @property
    def n_before_answer(self) -> int:
        return self.answer_at - self.start


@dataclass(frozen=True)
class Responses:
    """Responses in the order of the set, and by the place of a prompt why it has none."""

    found: tuple[Response, ...]
    refused: Mapping[int, Exception]


def responses(runner: Runner, shelf: Shelf, asked: SetAsk, how: Generation, progress: Progress) -> Responses:
    """Generate and capture a response to every prompt of a set.

    ``asked.like`` says model, mask and further probes of the joint runs; the probe ``response`` is added. A prompt that
    cannot be answered is refused by itself. Raises ModelRefused, a store error, and Cancelled saying how much is stored.
    """
    like, prompts = asked.like, asked.prompts.prompts
    model = shelf.get(like.model, like.dtype, like.device, progress.part(0.0, 0.05))
    asks: dict[int, RunRequest] = {}
    refused: dict[int, Exception] = {}
    for place, prompt in enumerate(prompts):
        try:
            asks[place] = asked.request(prompt, model)
        except BadRequest as problem:
            refused[place] = problem
    written, unwritten = write_all(runner, model, asks, how, progress.part(0.05, 0.7))
    refused |= unwritten
    joint = {place: response_request(asks[place], tokens, how) for place, tokens in sorted(written.items())}
    places = list(joint)
    swept = sweep(runner, [joint[place] for place in places], progress.part(0.7, 0.98))
    refused |= {places[index]: problem for index, problem in swept.refused.items()}
    found = [
        _read(runner, model, prompts[place], run_id, joint[place])
        for place, run_id in zip(places, swept.run_ids, strict=True)
        if run_id is not None
    ]
    return Responses(tuple(found), dict(sorted(refused.items())))


def shift_over(found: Responses, *, raw: bool = False, seed: int = 0) -> ResponseShift:
    """The shift from prompt to response tested over prompts; ``raw`` of raw states without position 0 and specials.

    Prompts whose side is too short for any spectrum are left out (the shift's ``n`` says how many are in). Raises
    BadRequest where none is left.
    """
    before, after = ("raw_prompt_alpha", "raw_response_alpha") if raw else ("prompt_alpha", "response_alpha")
    if not found.found:
        raise BadRequest("No prompt of the set has a response to compare.")
    sides = [np.stack([getattr(one, name) for one in found.found]) for name in (before, after)]
    long_enough = np.logical_and.reduce([np.isfinite(side).any(axis=1) for side in sides])
    if not long_enough.any():
        raise BadRequest("No prompt of the set has a response that is long enough to compare.")
    return response_shift(sides[0][long_enough], sides[1][long_enough], seed=seed)


def _read(runner: Runner, model: LoadedModel, prompt: Prompt, run_id: str, request: RunRequest) -> Response:
    result = runner.open(run_id)
    assert result is not None
    rows = result.table("layer_metrics")
    alone = rows[rows["layer"].isna()].set_index("metric")["value"]
    start = int(alone["response_start"])
    written = request.token_ids[start:]
    text: str = model.tokenizer.decode(written, skip_special_tokens=False, clean_up_tokenization_spaces=False)

    def by_point(metric: str) -> Float64[np.ndarray, " points"]:
        values: pd.Series = rows[rows["metric"] == metric].set_index("layer")["value"]
        found: Float64[np.ndarray, " points"] = values.reindex(range(result.facts.n_layers + 1)).to_numpy(
            dtype=np.float64
        )
        return found

    return Response(
        prompt=prompt,
        run_id=run_id,
        token_ids=written,
        text=text,
        start=start,
        answer_at=int(alone["response_answer"]),
        right=None if prompt.answer is None else is_right(text, prompt.answer),
        logprob=float(alone["response_logprob"]),
        entropy=float(alone["response_entropy"]),
        alpha=by_point("alpha_response"),
        prompt_alpha=by_point("alpha_prompt"),
        response_alpha=by_point("alpha_response_matched"),
        raw_prompt_alpha=by_point("alpha_prompt@raw_no_bos"),
        raw_response_alpha=by_point("alpha_response_matched@raw_no_bos"),
    )
