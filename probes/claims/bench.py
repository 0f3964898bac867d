"""The bench a claim is tested on: a model, a prompt set swept through it, and the states of each prompt."""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, Float64
from torch import Tensor

from analysis.windows import alpha_windows
from probes.errors import BadRequest
from probes.model.capture import Capture
from probes.model.loaded import LoadedModel
from probes.model.shelf import Shelf
from probes.progress import Progress
from probes.prompts.sets import Prompt, PromptSet
from probes.request import DEFAULT_PROBES, ProbeCall, RunRequest
from probes.respond import Generation
from probes.responses import Response, responses
from probes.runner import Runner
from probes.set_sweep import SetAsk
from probes.sources import Sources
from probes.sweep import sweep

__all__ = ["PROBES", "WINDOW", "Bench", "Item"]

PROBES = (ProbeCall("tokens"), ProbeCall("sinks"), ProbeCall("massive"))
WINDOW = 32  # tokens of a window of the per-token alpha (core.md 1.5)
RESPONSE_TOKENS = 32


@dataclass(frozen=True, slots=True)
class Item:
    """A prompt of the set that the model took, and its run."""

    prompt: Prompt
    run_id: str


@dataclass(frozen=True)
class Bench:
    """``others`` are the models a claim about several models may use besides ``model``. ``shuffled`` is the control of
    the bench: what a claim pairs (groups, answers, losses) is permuted with ``seed`` before it is tested. ``chat`` puts
    prompts into the model's chat template.

    ``memo`` is shared by the claims of one command: several read the same states.
    """

    runner: Runner
    shelf: Shelf
    model: str
    prompts: PromptSet
    progress: Progress
    others: tuple[str, ...] = ()
    seed: int = 0
    shuffled: bool = False
    chat: bool = False
    memo: dict[Hashable, Any] = field(default_factory=dict, repr=False)

    def on(self, model: str) -> Bench:
        """The same set before another model."""
        return dataclasses.replace(self, model=model)

    def within(self, start: float, end: float) -> Bench:
        """The same, telling of its progress as a part of the whole."""
        return dataclasses.replace(self, progress=self.progress.part(start, end))

    def loaded(self) -> LoadedModel:
        """The model itself."""
        return self.shelf.get(self.model, progress=self.progress.part(0.0, 0.05))

    def items(self, *, bos: bool = True) -> list[Item]:
        """The prompts the model can take, each with a run: what is stored is not run again, be it a whole page's or a
        claim's. ``bos``: whether BOS stands first."""
        key = ("items", self.model, self.prompts.set_id, self.chat, bos)
        if key not in self.memo:
            self.memo[key] = self._swept(bos)
        found: list[Item] = self.memo[key]
        return found

    def _swept(self, bos: bool) -> list[Item]:
        model = self.loaded()
        asked = SetAsk(self.prompts, RunRequest(self.model, (0,), DEFAULT_PROBES), self.chat, bos)
        requests: dict[int, RunRequest] = {}
        for place, prompt in enumerate(self.prompts.prompts):
            with suppress(BadRequest):
                requests[place] = asked.request(prompt, model)
        whole = {place: self.runner.order(one, Progress()).run_id for place, one in requests.items()}
        known = self.runner.store.known_runs(list(whole.values()))
        left = [place for place in requests if whole[place] not in known]
        small = [requests[place].with_probes(*PROBES) for place in left]
        swept = sweep(self.runner, small, self.progress.part(0.05, 0.5))
        runs: dict[int, str | None] = {**whole, **dict(zip(left, swept.run_ids, strict=True))}
        prompts = self.prompts.prompts
        return [Item(prompts[place], run) for place in requests if (run := runs[place]) is not None]

    def capture(self, item: Item | Response) -> Capture:
        """What the pass over a prompt (or over prompt and response) left; what was dropped from the store takes another."""
        return Sources(self.runner.store, self.shelf).of_run(item.run_id)

    def resid(self, item: Item | Response) -> Float32[Tensor, "points tokens d_model"]:
        """The residual stream of a run at all points."""
        capture = self.capture(item)
        return torch.stack([capture.resid(point) for point in range(capture.model.facts.n_layers + 1)])

    def responses(self) -> tuple[Response, ...]:
        """What the model writes after each prompt, up to 32 tokens, greedily; what is stored is not written again."""
        key = ("responses", self.model, self.prompts.set_id, self.chat)
        if key not in self.memo:
            asked = SetAsk(self.prompts, RunRequest(self.model, (0,), PROBES), self.chat)
            told = self.progress.part(0.0, 0.7)
            self.memo[key] = responses(self.runner, self.shelf, asked, Generation(RESPONSE_TOKENS), told).found
        found: tuple[Response, ...] = self.memo[key]
        return found

    def alphas(self, items: Sequence[Item]) -> list[Float64[np.ndarray, "points _"]]:
        """Alpha of the 32 tokens that end at each token, by point, of each prompt (normed, all tokens)."""
        found = []
        for place, item in enumerate(items):
            key = ("alphas", item.run_id)
            if key not in self.memo:
                self.told(place, len(items), "windows of")
                resid = self.resid(item)
                keep = torch.ones(resid.shape[1], dtype=torch.bool)
                self.memo[key] = alpha_windows(resid, WINDOW, keep, normed=True)
            found.append(self.memo[key])
        return found

    def mean_losses(self, items: Sequence[Item]) -> Float64[np.ndarray, " items"]:
        """Mean loss of each prompt over its tokens but the first, nats."""
        frame = self.runner.store.losses([item.run_id for item in items]).set_index("run_id")["nll"]
        losses: Float64[np.ndarray, " items"] = frame.reindex([item.run_id for item in items]).to_numpy(
            dtype=np.float64
        )
        return losses

    def paired(self, values: list[Any]) -> list[Any]:
        """The values as they belong to the prompts; permuted where the bench is shuffled."""
        if not self.shuffled:
            return values
        order = np.random.default_rng(self.seed).permutation(len(values))
        return [values[int(place)] for place in order]

    def told(self, place: int, of: int, what: str) -> None:
        """Say how far the work after the sweep is. Raises Cancelled."""
        self.progress.step(0.5 + 0.5 * place / max(of, 1), f"{what} prompt {place + 1} of {of}")
