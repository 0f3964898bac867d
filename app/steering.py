"""Steering with a latent: what is asked as plain JSON, the passes it takes, and what they found. No streamlit."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal

import numpy as np
import pandas as pd

from app.jobs import Job, Key
from app.services import Services
from probes.checks import whole
from probes.errors import BadRequest
from probes.model.edits import GENERATED, Edit, Latent
from probes.model.tokenise import text_ids
from probes.progress import Progress
from probes.request import ProbeCall, RunRequest, capture_id, run_id
from probes.runner import RunResult
from probes.saes.folder import SAEInfo, content_digest
from probes.variations import Reader

__all__ = [
    "CONTROL", "FIRST", "LIMIT", "MODES", "WRITTEN", "Plan", "Steer", "control_of", "make_plan",
    "read_steer", "request_id", "submit", "summary",
]  # fmt: skip

Mode = Literal["add", "clamp"]
MODES = {"add": "add", "clamp": "clamp"}
LIMIT = 10.0
"""Strength goes from minus this to this, in units of the latent's typical size."""
FIRST, WRITTEN = 32, 40
"""Tokens of the open text that are gone on from, and tokens written, unless asked otherwise."""
CONTROL = "control"
_MAX_PROMPT = 2_000
_NAMES = ("clean", "steered", CONTROL)


@dataclass(frozen=True)
class Steer:
    """One steering: a latent of an installed SAE at ``strength`` times its ``typical`` size m, added or clamped to.

    ``control`` is another latent, along which the same lengths are written. ``generated``: only at what is written, else at
    the prompt too. The text goes on from ``prompt``, or where it is empty from the ``first`` tokens of the open text.
    Raises BadRequest for what does not fit.
    """

    __no_type_check__ = True  # values come from people: refused in a sentence, not by the type hook of the tests

    sae: str
    latent: int
    control: int
    typical: float
    mode: Mode = "add"
    strength: float = 2.0
    generated: bool = True
    prompt: str = ""
    first: int = FIRST
    tokens: int = WRITTEN
    temperature: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        _require(isinstance(self.sae, str) and bool(self.sae), "sae", "the name of an SAE", self.sae)
        _require(self.mode in MODES, "mode", " or ".join(MODES), self.mode)
        for name in ("latent", "control", "first", "tokens", "seed"):
            _require(whole(getattr(self, name)), name, "a whole number from 0", getattr(self, name))
        for name, low, high in (("strength", -LIMIT, LIMIT), ("typical", 0, 1e30), ("temperature", 0, 5)):
            given = getattr(self, name)
            number = isinstance(given, int | float) and not isinstance(given, bool)
            _require(number and low <= given <= high, name, f"a number from {low:g} to {high:g}", given)
            object.__setattr__(self, name, float(given))
        _require(self.typical > 0, "typical", "above 0", self.typical)
        _require(isinstance(self.generated, bool), "generated", "true or false", self.generated)
        _require(1 <= self.tokens <= 512, "tokens", "a whole number from 1 to 512", self.tokens)
        _require(self.first >= 1, "first", "a whole number from 1", self.first)
        fits = isinstance(self.prompt, str) and len(self.prompt) <= _MAX_PROMPT
        _require(fits, "prompt", f"a text of at most {_MAX_PROMPT:,} characters", self.prompt)
        _require(self.control != self.latent, "control", "another latent than the steered one", self.control)

    def as_dict(self) -> dict[str, Any]:
        """As plain JSON, for links, sessions and reports."""
        return asdict(self)


@dataclass(frozen=True)
class Plan:
    """The passes of one steering: what is written clean, steered and by the control, and what both do to the open text."""

    steer: Steer
    content: str
    written: Mapping[str, RunRequest]
    effects: Mapping[str, RunRequest]
    promoted: RunRequest
    key: Key

    def requests(self) -> tuple[tuple[str, RunRequest], ...]:
        """Every pass with its name, in the order they run."""
        texts = ((f"{name} text", request) for name, request in self.written.items())
        costs = ((f"effect, {name}", request) for name, request in self.effects.items())
        return *texts, *costs, ("tokens the latent promotes", self.promoted)


def read_steer(given: Mapping[str, Any]) -> Steer:
    """A steering from JSON. Raises BadRequest for what cannot be meant."""
    known = [field.name for field in fields(Steer)]
    unknown = [name for name in given if name not in known]
    if unknown:
        raise BadRequest(f"A steering has no {str(unknown[0])[:64]!r}; it has {', '.join(known)}.")
    missing = [name for name in ("sae", "latent", "control", "typical") if name not in given]
    if missing:
        raise BadRequest(f"A steering needs {missing[0]}.")
    return Steer(**given)


def control_of(latent: int, d_sae: int, alive: Sequence[int] = ()) -> int:
    """Another latent, drawn by the number of the steered one: among ``alive``, those that fire somewhere, where known.

    Raises BadRequest for an SAE with a single latent.
    """
    others = [one for one in (alive if len(alive) else range(d_sae)) if one != latent]
    if not others:
        raise BadRequest("An SAE of one latent has no other to compare with.")
    return int(others[int(np.random.default_rng(latent).integers(len(others)))])


def make_plan(held: Services, result: RunResult, steer: Steer, info: SAEInfo) -> Plan:
    """Plan the passes. Raises BadRequest for a latent the SAE does not have, and a prompt the model cannot take."""
    for name, latent in (("latent", steer.latent), ("control", steer.control)):
        if latent >= info.d_sae:
            raise BadRequest(f"{name} must lie in 0..{info.d_sae - 1} for {info.name}, not {latent}.")
    content, run = content_digest(info.folder), result.info.request
    ids = run.token_ids[: steer.first]
    if steer.prompt:
        ids = text_ids(Reader(result.facts, held.tokenizer(result.info.model)), steer.prompt)
    call = ProbeCall("continuation", {"tokens": steer.tokens, "temperature": steer.temperature, "seed": steer.seed})
    where = GENERATED if steer.generated else None
    kept = tuple(edit for edit in run.edits if _fits(edit, len(ids)))
    base = replace(run, token_ids=ids, probes=(call,), mask="all", edits=kept)
    costs = replace(run, probes=(ProbeCall("effect", {"against": result.info.run_id}),), mask="all")

    def edited(request: RunRequest, along: int | None, positions: Any) -> RunRequest:
        number = {"add": steer.strength} if steer.mode == "add" else {"clamp": steer.strength * steer.typical}
        typical = steer.typical if steer.mode == "add" else None
        source = Latent(steer.sae, steer.latent, **number, typical=typical, along=along, content=content)
        edit = Edit("resid", info.point, "add" if steer.mode == "add" else "set", source, positions=positions)
        return replace(request, edits=(*request.edits, edit))

    written = {"clean": base, "steered": edited(base, None, where), CONTROL: edited(base, steer.control, where)}
    effects = {"steered": edited(costs, None, None), CONTROL: edited(costs, steer.control, None)}
    promoted = run.with_probes(ProbeCall("latent_effect", {"sae": steer.sae, "latent": steer.latent}))
    key = ("steer", result.info.run_id, *sorted(steer.as_dict().items()))
    return Plan(steer, content, written, effects, promoted, key)


def submit(held: Services, plan: Plan) -> Job:
    """Run what the store does not have yet, in the order of :meth:`Plan.requests`."""
    passes = plan.requests()

    def work(progress: Progress) -> None:
        for index, (name, request) in enumerate(passes):
            part = progress.part(index / len(passes), (index + 1) / len(passes))
            part.step(0.0, name)
            held.runner.run(request, part)

    return held.desk.submit(plan.promoted.model, plan.key, f"Steer with latent {plan.steer.latent}", work)


def request_id(result: RunResult, request: RunRequest) -> str:
    """Where the answer to a request is, or will be."""
    return run_id(capture_id(result.facts, request.token_ids, request.edits), request)


def summary(
    written: Mapping[str, RunResult], effects: Mapping[str, RunResult], promoted: Sequence[int]
) -> pd.DataFrame:
    """One row a measure: clean, steered and control. ``promoted``: the tokens the latent makes likelier.

    KL (clean || changed) and the rise of the loss are of the open text, edited at every token, and means over its predictions;
    the target rate is the share of written tokens that are among the promoted.
    """
    wanted = set(promoted)
    table: dict[str, dict[str, float]] = {}
    for name in _NAMES:
        ids = written[name].tensor("continuation").tolist()
        values = {"target rate": sum(token in wanted for token in ids) / len(ids) if ids else float("nan")}
        if name in effects:
            rows = effects[name].table("layer_metrics")
            rows = rows[rows["layer"].isna()].set_index("metric")["value"].astype(float)
            values["KL, nats"] = float(rows["effect_kl"])
            values["loss added, nats"] = float(np.log(rows["perplexity"]) - np.log(rows["perplexity_clean"]))
        else:
            values |= {"KL, nats": 0.0, "loss added, nats": 0.0}
        table[name] = values
    frame = pd.DataFrame(table).loc[["KL, nats", "loss added, nats", "target rate"]]
    return frame.rename_axis("measure").reset_index()


def _fits(edit: Edit, n_tokens: int) -> bool:
    """Whether an edit of the open run lies within a shorter text."""
    named = [getattr(edit, name) for name in ("positions", "queries", "keys")]
    return all(index < n_tokens for given in named if isinstance(given, tuple) for index in given)


def _require(fits: bool, name: str, allowed: str, given: Any) -> None:
    if not fits:
        raise BadRequest(f"{name} of a steering must be {allowed}, not {str(given)[:80]!r}.")
