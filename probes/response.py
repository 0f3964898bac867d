"""Response: a text of which the model wrote the end; how its spectra there differ from those of the prompt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd
import torch
from jaxtyping import Bool, Float32, Int64
from torch import Tensor

from analysis.alpha import fit_spectrum
from analysis.answer_span import tokens_before_answer
from analysis.measured import Measured, Status, undefined
from analysis.preparation import prepare
from analysis.response_shift import text_shift
from analysis.spectrum import spectrum
from analysis.windows import MIN_WINDOW
from probes.checks import require, whole
from probes.errors import BadRequest
from probes.memory import release
from probes.probe import Context, ProbeSpec, Result

if TYPE_CHECKING:
    from probes.model.capture import Capture
    from probes.model.loaded import LoadedModel, ModelFacts

__all__ = ["Params", "compatible", "cost", "run", "spec"]

_ROWS = 64
_SIDES = {"": True, "@raw_no_bos": False}  # suffix of the metrics: whether rows are divided by their RMS

Rows = list[tuple[int | None, str, Measured]]


@dataclass(frozen=True)
class Params:
    """The response begins at the token ``start``; how it was drawn, as of continuation, is kept to be told again."""

    __no_type_check__ = True  # values come from people: refused in a sentence, not by the type hook of the tests

    start: int = 0
    temperature: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        require(whole(self.start) and self.start > 0, "response.start", "a whole number from 1", self.start)
        number = isinstance(self.temperature, int | float) and not isinstance(self.temperature, bool)
        require(number and 0 <= self.temperature <= 5, "response.temperature", "a number from 0 to 5", self.temperature)
        require(whole(self.seed) and self.seed < 2**31, "response.seed", "a whole number from 0", self.seed)


spec = ProbeSpec(
    name="response",
    version=1,
    question="Do the states of the response have another spectrum than those of the prompt?",
    sites=frozenset({"resid"}),
    reductions=frozenset({"column_sum"}),
    tables=("layer_metrics",),
)


def compatible(model: LoadedModel) -> str | None:
    return None


def cost(params: Params, facts: ModelFacts, n_tokens: int) -> int:
    """Rows of one point in float64 with the blocks of its windows, and logits of a few rows at a time."""
    shorter = min(params.start, max(1, n_tokens - params.start))
    return 4 * n_tokens * facts.d_model * 8 + 20 * 4 * shorter**2 * 8 + n_tokens**2 * 8 + 3 * _ROWS * facts.d_vocab * 4


def run(capture: Capture, params: Params, context: Context) -> Result:
    """Rows of ``layer_metrics``; a response ends where it begins to state its answer (`tokens_before_answer`), with ``@all``
    it is whole.

    By point: ``alpha_prompt`` and ``alpha_response_matched`` at the smaller side's number of tokens, whole response, their
    difference ``response_shift`` with ``_low`` and ``_high`` (95 % of the differences between stretches of this text); the
    same ``@raw_no_bos``; ``alpha_response`` and ``alpha_response@all`` at all their tokens. Without a layer: ``response_start``
    and ``response_answer`` (positions, the latter the first of the answer or the end), mean log-probability of the
    response's tokens and mean entropy of the distributions they were drawn from, in nats (``response_logprob``,
    ``response_entropy``, each also ``@all``). Raises BadRequest for a start outside the text.
    """
    n, start = capture.n_tokens, params.start
    if start >= n:
        raise BadRequest(f"response.start must be from 1 to {n - 1} here, not {start}.")
    answer = start + tokens_before_answer(capture.tokens[start:])
    rows: Rows = [
        (None, "response_start", Measured(float(start), n - start)),
        (None, "response_answer", Measured(float(answer), n - start)),
    ]
    for name, values in _scores(capture, start).items():
        rows += [(None, name, _mean(values[: answer - start])), (None, f"{name}@all", _mean(values))]
    position = torch.arange(n)
    keep = capture.mask(context.mask)
    parts = {"": (position >= start) & (position < answer), "@all": position >= start}
    masks = {"": keep, "@raw_no_bos": capture.masks.no_bos}
    last = capture.model.facts.n_layers
    for point in range(last + 1):
        context.progress.step(point / (last + 1), f"prompt and response, point {point} of {last}")
        resid = capture.resid(point)
        for suffix, part in parts.items():
            fit = fit_spectrum(spectrum(prepare(resid, keep & part, normed=True)))
            rows.append((point, f"alpha_response{suffix}", Measured(fit.alpha, int((keep & part).sum()), fit.status)))
        for suffix, normed in _SIDES.items():
            rows += [(point, name + suffix, one) for name, one in _shift(resid, start, masks[suffix], normed).items()]
        release()
    columns = [(layer, name, one.value, one.n_used, one.status) for layer, name, one in rows]
    frame = pd.DataFrame(columns, columns=["layer", "metric", "value", "n_used", "status"]).astype({"layer": "Int64"})
    return Result({"layer_metrics": frame}, notes=(_note(params, n),))


def _shift(
    resid: Float32[Tensor, "tokens d_model"], start: int, keep: Bool[Tensor, " tokens"], normed: bool
) -> dict[str, Measured]:
    n = int(min(keep[:start].sum(), keep[start:].sum()))
    names = ("alpha_prompt", "alpha_response_matched", "response_shift", "response_shift_low", "response_shift_high")
    if n < MIN_WINDOW:
        return dict.fromkeys(names, undefined("too_few_tokens", n))
    found = text_shift(resid[None], start, keep, normed=normed)[0]
    both = found.prompt.status if found.prompt.status != "ok" else found.response.status
    values = (found.prompt.value, found.response.value, found.shift, found.low, found.high)
    statuses: tuple[Status, ...] = (found.prompt.status, found.response.status, both, both, both)
    return {name: _measured(value, n, status) for name, value, status in zip(names, values, statuses, strict=True)}


def _measured(value: float, n: int, status: Status) -> Measured:
    """A number that is missing although its sides are there (a range of one stretch) does not apply here."""
    if value != value:
        return undefined("not_applicable" if status in ("ok", "low_confidence") else status, n)
    return Measured(value, n, status)


@torch.no_grad()
def _scores(capture: Capture, start: int) -> dict[str, Float32[Tensor, " response"]]:
    """Log-probability of each token of the response, and entropy of the distribution before it."""
    final = capture.resid(capture.model.facts.n_layers)[start - 1 : -1]
    targets: Int64[Tensor, " response"] = capture.token_ids[start:]
    log_probs, entropies = [], []
    for rows, wanted in zip(torch.split(final, _ROWS), torch.split(targets, _ROWS), strict=True):
        scores = capture.model.unembed(rows).float().log_softmax(dim=-1)
        log_probs.append(scores.gather(1, wanted.to(scores.device)[:, None])[:, 0].cpu())
        entropies.append(-(scores.exp() * scores).sum(dim=-1).cpu())
    return {"response_logprob": torch.cat(log_probs), "response_entropy": torch.cat(entropies)}


def _mean(values: Float32[Tensor, " tokens"]) -> Measured:
    return Measured(float(values.double().mean()), len(values)) if len(values) else undefined("too_few_tokens")


def _note(params: Params, n_tokens: int) -> str:
    how = "greedily" if params.temperature == 0 else f"at temperature {params.temperature:g} with seed {params.seed}"
    return f"The model wrote tokens {params.start} to {n_tokens - 1}, {how}; the tokens before are the prompt."
