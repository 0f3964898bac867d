"""Prompt sets as the app sweeps them, in the background, and what is known of each prompt. No streamlit."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from app.jobs import Job, Key
from app.services import Services
from app.text import printable, shortened
from probes.errors import BadRequest
from probes.model.loaded import ModelFacts
from probes.progress import Progress
from probes.prompts.sets import PromptSet
from probes.request import capture_id, run_id
from probes.set_sweep import SetAsk, sweep_set
from probes.sweep import Swept
from probes.variations import Reader

__all__ = ["Survey", "facts_of", "job_key", "start", "survey"]

_QUEUE = "sweeps"  # beside the queues of the models: a single text need not wait for a whole set
_PREVIEW = 240
_SHARED = 24  # characters in which all prompts begin alike, from which on they are left out


@dataclass(frozen=True)
class Survey:
    """What is known of the prompts of a set for a model.

    ``table`` has ``id, group, prompt, answer, tokens, perplexity, run_id, problem`` in the order of the set; ``tokens`` is
    missing where the model cannot take a prompt, and ``problem`` says why; ``perplexity`` and ``run_id`` are missing
    where it has not been run. ``begins`` is what all prompts begin with and ``prompt`` leaves out.
    """

    table: pd.DataFrame
    begins: str

    @property
    def n_runnable(self) -> int:
        return int(self.table["tokens"].notna().sum())

    @property
    def n_run(self) -> int:
        return int(self.table["run_id"].notna().sum())

    def by_group(self) -> pd.DataFrame:
        """A row a group: ``group, prompts, shortest, mean, longest, run, perplexity`` (tokens; median perplexity)."""
        rows = []
        for group, part in self.table.assign(group=self.table["group"].fillna("")).groupby("group", sort=False):
            tokens, perplexity = part["tokens"].dropna().astype(float), part["perplexity"].dropna().astype(float)
            ends = (tokens.min(), tokens.mean(), tokens.max()) if len(tokens) else (np.nan,) * 3
            median = perplexity.median() if len(perplexity) else np.nan
            rows.append((group, len(part), *ends, int(part["run_id"].notna().sum()), median))
        return pd.DataFrame(rows, columns=["group", "prompts", "shortest", "mean", "longest", "run", "perplexity"])


def start(held: Services, asked: SetAsk) -> Job:
    """Sweep a set in the background; the job in flight if there is one. ``job.result`` is a Swept."""

    def work(progress: Progress) -> Swept:
        return sweep_set(held.runner, held.shelf, asked, progress)

    return held.desk.submit(_QUEUE, job_key(asked), f"{asked.prompts.name} on {asked.like.model}", work)


def job_key(asked: SetAsk) -> Key:
    """What the desk knows a sweep by."""
    return "sweep", asked.prompts.set_id, asked.like.as_json(), asked.chat, asked.bos


def facts_of(held: Services, model: str, dtype: str = "float32") -> ModelFacts | None:
    """What is true of a model that is loaded, or that has been run; None if neither."""
    loaded = held.shelf.loaded(model)
    if loaded is not None and loaded.facts.dtype == dtype:
        return loaded.facts
    stored = held.store.facts_of(model, dtype)
    return None if stored is None else ModelFacts.from_stored(stored)


def survey(held: Services, asked: SetAsk, facts: ModelFacts) -> Survey:
    """How long each prompt is, whether it has been run and how surprising it was. Loads no weights.

    Raises BadRequest or OSError where the tokenizer cannot be read.
    """
    memo = ("survey", job_key(asked), facts.fingerprint, facts.tokenizer)
    keys: list[tuple[int | None, str | None, str | None]] = held.memo.get(memo, lambda: _keys(held, asked, facts))
    known = held.store.known_runs([run for _, run, _ in keys if run is not None])
    losses = held.store.losses(known).set_index("run_id")["nll"]
    begins = _begins(asked.prompts)
    rows = []
    for prompt, (tokens, run, problem) in zip(asked.prompts.prompts, keys, strict=True):
        stored = run if run in known else None
        perplexity = float(np.exp(losses[stored])) if stored is not None and stored in losses.index else None
        text = shortened(printable(prompt.shown[len(begins) :]), _PREVIEW)
        said = f"…{text}" if begins else text
        rows.append((prompt.id, prompt.group, said, prompt.answer, tokens, perplexity, stored, problem))
    columns = ["id", "group", "prompt", "answer", "tokens", "perplexity", "run_id", "problem"]
    table = pd.DataFrame(rows, columns=columns).astype({"tokens": "Int64", "perplexity": "Float64"})
    return Survey(table, printable(begins))


def _keys(held: Services, asked: SetAsk, facts: ModelFacts) -> list[tuple[int | None, str | None, str | None]]:
    """Of each prompt its tokens and run id, or why the model cannot take it."""
    reader = Reader(facts, held.tokenizer(asked.like.model))
    found: list[tuple[int | None, str | None, str | None]] = []
    for prompt in asked.prompts.prompts:
        try:
            request = asked.request(prompt, reader)
        except BadRequest as problem:
            found.append((None, None, str(problem)))
        else:
            key = run_id(capture_id(facts, request.token_ids, request.edits), request)
            found.append((len(request.token_ids), key, None))
    return found


def _begins(prompts: PromptSet) -> str:
    """The words all prompts begin with, if they are many."""
    shown = [prompt.shown for prompt in prompts.prompts]
    first, last = min(shown), max(shown)  # what these two begin with, all between them do
    end = next((place for place, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), 0)
    shared = first[:end]
    whole = shared[: max(shared.rfind(" "), shared.rfind("\n")) + 1]
    return whole if len(whole) >= _SHARED and len(prompts.prompts) > 1 else ""
