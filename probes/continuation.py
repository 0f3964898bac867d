"""Continuation: what the model writes next, greedily or drawn with a seed, under the edits of the run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch
from jaxtyping import Float32, Int64
from torch import Tensor
from transformers import DynamicCache

from probes.checks import require, whole
from probes.errors import BadRequest, NonFinite
from probes.model.attention import Recorder, recording
from probes.probe import Context, ProbeSpec, Result
from probes.progress import Progress

if TYPE_CHECKING:
    from probes.model.capture import Capture
    from probes.model.editing import Editing
    from probes.model.loaded import LoadedModel, ModelFacts

__all__ = ["Params", "Written", "check_room", "compatible", "cost", "generate", "run", "spec", "stops", "told"]


@dataclass(frozen=True)
class Params:
    """``tokens``: how many are written at most; an end-of-text token ends it before. ``temperature`` 0 takes the
    likeliest token; above, tokens are drawn from the distribution at that temperature with ``seed``."""

    __no_type_check__ = True  # values come from people: refused in a sentence, not by the type hook of the tests

    tokens: int = 40
    temperature: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        known = whole(self.tokens) and 1 <= self.tokens <= 512
        require(known, "continuation.tokens", "a whole number from 1 to 512", self.tokens)
        number = isinstance(self.temperature, int | float) and not isinstance(self.temperature, bool)
        require(
            number and 0 <= self.temperature <= 5, "continuation.temperature", "a number from 0 to 5", self.temperature
        )
        require(whole(self.seed) and self.seed < 2**31, "continuation.seed", "a whole number from 0", self.seed)


@dataclass(frozen=True, eq=False)
class Written:
    """The tokens of one continuation and the log-probability of each, in nats."""

    token_ids: list[int]
    log_probs: list[float]


spec = ProbeSpec(
    name="continuation",
    version=2,
    question="What does the model write next?",
    sites=frozenset({"final"}),
    reductions=frozenset(),
    tables=("layer_metrics",),
    masks=False,
)


def compatible(model: LoadedModel) -> str | None:
    return None


def cost(params: Params, facts: ModelFacts, n_tokens: int) -> int:
    """Keys and values of all tokens, and one row of logits."""
    total = n_tokens + params.tokens
    return 2 * facts.n_layers * total * facts.n_kv_heads * facts.d_head * 4 + 3 * facts.d_vocab * 4


def run(capture: Capture, params: Params, context: Context) -> Result:
    """The tensor ``continuation`` [written] of token ids, and the mean log-probability of what was written.

    Edits without positions act on what is written too, edits at ``"generated"`` positions on nothing else; edits at
    positions of the prompt act through what later tokens read of it. Raises BadRequest where prompt and continuation
    outgrow the context.
    """
    check_room(capture.model, capture.n_tokens, params)
    ids = capture.token_ids[None]
    return told(generate(capture.model, ids, params, context.progress, capture.editing)[0])


def check_room(model: LoadedModel, n_tokens: int, params: Params) -> None:
    """Raise BadRequest where a continuation of so many tokens would outgrow the context."""
    room = model.facts.context - n_tokens
    if params.tokens > room:
        raise BadRequest(
            f"continuation.tokens must be at most {room} here: the model takes {model.facts.context} tokens."
        )


def told(written: Written) -> Result:
    """What a run keeps of a continuation."""
    mean = sum(written.log_probs) / len(written.log_probs)
    frame = pd.DataFrame(
        {"metric": ["continuation_logprob"], "value": [mean], "n_used": [len(written.log_probs)], "status": ["ok"]}
    )
    frame.insert(0, "layer", pd.array([pd.NA], dtype="Int64"))
    return Result({"layer_metrics": frame}, {"continuation": torch.tensor(written.token_ids, dtype=torch.int64)})


@torch.no_grad()
def generate(
    model: LoadedModel,
    prompts: Int64[Tensor, "rows tokens"],
    params: Params,
    progress: Progress,
    editing: Editing | None = None,
) -> list[Written]:
    """Continue prompts of one length together, each as if alone up to rounding; edits belong to a single one.

    Raises NonFinite where the logits of any of them are not finite, and Cancelled.
    """
    rows, n_tokens = prompts.shape
    ends = stops(model)
    recorder = Recorder(model.sites.attention_blocks, editing=editing)
    generators = [torch.Generator().manual_seed(params.seed) for _ in range(rows)]
    written = [Written([], []) for _ in range(rows)]
    handles: list[Any] = []
    feed = prompts.to(model.device)
    past = (
        DynamicCache()
    )  # keeps every key: one that forgets what left a sliding window would move the positions of edits
    with model.lock:
        try:
            if editing is not None:
                editing.start = 0
                handles = editing.hooks(model, range(model.facts.n_layers), embeddings=True)
            with recording(recorder):
                for step in range(params.tokens):
                    open_rows = [row for row in written if not (row.token_ids and row.token_ids[-1] in ends)]
                    if not open_rows:
                        break
                    progress.step(step / params.tokens, f"token {step + 1} of the continuation")
                    logits = model.hf(input_ids=feed, past_key_values=past, use_cache=True, logits_to_keep=1)
                    scores: Tensor = logits.logits[:, -1].float().log_softmax(dim=-1)
                    if scores.isnan().any():
                        raise NonFinite(f"The logits of token {step + 1} of the continuation are not finite.")
                    chosen = [_pick(row, params.temperature, one) for row, one in zip(scores, generators, strict=True)]
                    for row, one, of_row in zip(written, chosen, scores, strict=True):
                        if row in open_rows:
                            row.token_ids.append(one)
                            row.log_probs.append(float(of_row[one]))
                    if editing is not None:
                        editing.start = n_tokens + step
                    feed = torch.tensor(chosen, device=model.device)[:, None]
        finally:
            for handle in handles:
                handle.remove()
            if editing is not None:
                editing.start = 0
    return written


def _pick(scores: Float32[Tensor, " d_vocab"], temperature: float, generator: torch.Generator) -> int:
    if temperature == 0:
        return int(scores.argmax())
    shares = (scores.double() / temperature).softmax(dim=-1).cpu()
    return int(torch.multinomial(shares, 1, generator=generator))


def stops(model: LoadedModel) -> frozenset[int]:
    """Tokens that end a text, by the model's generation settings and its tokenizer."""
    given = getattr(model.hf.generation_config, "eos_token_id", None)
    ends = given if isinstance(given, list) else [given]
    return frozenset(int(end) for end in (*ends, model.tokenizer.eos_token_id) if end is not None)
