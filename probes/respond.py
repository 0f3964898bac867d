"""Generation with capture: the model continues a prompt, then prompt and response go through it once as an ordinary run.

Both steps are runs of the store: what was written once is not written again, and the second one remembers where the
response begins as the parameter ``start`` of its probe ``response``.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from jaxtyping import Int64
from torch import Tensor

from probes.continuation import Params, stops
from probes.errors import BadRequest
from probes.model.loaded import LoadedModel
from probes.progress import Progress
from probes.request import ProbeCall, RunRequest
from probes.run import RunResult
from probes.runner import Runner

__all__ = ["Generation", "check_edits", "ended", "prompt_request", "respond", "response_request", "response_start"]


@dataclass(frozen=True, slots=True)
class Generation:
    """At most ``tokens`` tokens: the likeliest ones at ``temperature`` 0, else drawn at it with ``seed``.

    Raises BadRequest when built with what the probe continuation does not take.
    """

    tokens: int = 64
    temperature: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        self.call.full_params()

    @property
    def params(self) -> Params:
        """The parameters of the probe continuation."""
        found: Params = self.call.full_params()
        return found

    @property
    def call(self) -> ProbeCall:
        """The question whose answer is the continuation."""
        return ProbeCall("continuation", dataclasses.asdict(self))


def check_edits(request: RunRequest) -> None:
    """Raise BadRequest where edits wait for generated positions: the run of prompt and response would have none."""
    if any(edit.positions == "generated" for edit in request.edits):
        raise BadRequest('A captured response cannot be edited at "generated" positions: leave the positions out.')


def ended(model: LoadedModel, continuation: Int64[Tensor, " written"]) -> tuple[int, ...]:
    """The tokens of a response: those written without the one that ends a text. Raises BadRequest where none is left."""
    tokens = [int(token) for token in continuation]
    if tokens[-1] in stops(model):
        tokens.pop()
    if not tokens:
        raise BadRequest("The model ended the text at once: there is no response.")
    return tuple(tokens)


def response_request(request: RunRequest, written: tuple[int, ...], how: Generation) -> RunRequest:
    """The run of prompt and response in one pass: the probes of ``request``, and ``response``."""
    called = {"start": len(request.token_ids), "temperature": how.temperature, "seed": how.seed}
    calls = (*(call for call in request.probes if call.name != "response"), ProbeCall("response", called))
    return dataclasses.replace(request, token_ids=(*request.token_ids, *written), probes=calls)


def respond(runner: Runner, model: LoadedModel, request: RunRequest, how: Generation, progress: Progress) -> RunResult:
    """Generate after the prompt of ``request``, then run its probes on prompt and response in one pass.

    What was written before is read from the store. Raises BadRequest where the model ends the text at once, or edits wait
    for generated positions; otherwise what :meth:`Runner.run` raises.
    """
    check_edits(request)
    answer = runner.run(request.with_probes(how.call), progress.part(0.0, 0.5))
    written = ended(model, answer.tensor("continuation"))
    return runner.run(response_request(request, written, how), progress.part(0.5, 1.0))


def response_start(request: RunRequest) -> int | None:
    """The first token of the response in a run of one; None in any other run."""
    return next((int(call.params["start"]) for call in request.probes if call.name == "response"), None)


def prompt_request(request: RunRequest) -> RunRequest:
    """The run of the prompt alone: as ``request``, without the response where it has one."""
    start = response_start(request)
    calls = tuple(call for call in request.probes if call.name != "response")
    return dataclasses.replace(request, token_ids=request.token_ids[:start], probes=calls)
