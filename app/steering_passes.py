"""The passes a steering takes, their place in the background, and what they found. No streamlit."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from app.jobs import Job, Key
from app.services import Services
from app.steering import ConceptSteer, Steer
from cache import canonical_json
from probes.model.edits import GENERATED, Edit
from probes.model.tokenise import text_ids
from probes.progress import Progress
from probes.request import ProbeCall, RunRequest
from probes.runner import RunResult
from probes.saes.folder import SAEInfo, content_digest
from probes.variations import Reader

__all__ = ["CONTROL", "EFFECT", "Plan", "concept_request", "make_plan", "submit", "summary"]

CONTROL = "control"
EFFECT = "tokens it promotes"
_NAMES = ("clean", "steered", CONTROL)


@dataclass(frozen=True)
class Plan:
    """The passes of one steering: what is written clean, steered and by the control, and what both do to the open text."""

    steer: Steer | ConceptSteer
    written: Mapping[str, RunRequest]
    effects: Mapping[str, RunRequest]
    promoted: RunRequest
    key: Key

    def requests(self) -> tuple[tuple[str, RunRequest], ...]:
        """Every pass with its name, in the order they run."""
        texts = ((f"{name} text", request) for name, request in self.written.items())
        costs = ((f"effect, {name}", request) for name, request in self.effects.items())
        return *texts, *costs, (EFFECT, self.promoted)


def make_plan(held: Services, result: RunResult, steer: Steer | ConceptSteer, info: SAEInfo) -> Plan:
    """Plan the passes. Raises BadRequest for a latent the SAE does not have, and a prompt the model cannot take."""
    steer.check(info)
    content, run = content_digest(info.folder), result.info.request
    ids = run.token_ids[: steer.first]
    if steer.prompt:
        ids = text_ids(Reader(result.facts, held.tokenizer(result.info.model)), steer.prompt)
    call = ProbeCall("continuation", {"tokens": steer.tokens, "temperature": steer.temperature, "seed": steer.seed})
    kept = tuple(edit for edit in run.edits if _fits(edit, len(ids)))
    base = replace(run, token_ids=ids, probes=(call,), mask="all", edits=kept)
    costs = replace(run, probes=(ProbeCall("effect", {"against": result.info.run_id}),), mask="all")

    def edited(request: RunRequest, *, control: bool, generated: bool = False) -> RunRequest:
        op, source = steer.change(content, control)
        edit = Edit("resid", info.point, op, source, positions=GENERATED if generated else None)
        return replace(request, edits=(*request.edits, edit))

    written = {"clean": base}
    written |= {name: edited(base, control=name == CONTROL, generated=steer.generated) for name in _NAMES[1:]}
    effects = {name: edited(costs, control=name == CONTROL) for name in _NAMES[1:]}
    key = ("steer", result.info.run_id, canonical_json(steer.as_dict()))
    return Plan(steer, written, effects, run.with_probes(steer.effect), key)


def concept_request(held: Services, result: RunResult, sae: str, text: str) -> RunRequest:
    """The pass that reads a concept prompt with the model of a run, without edits.

    Raises BadRequest for a prompt the model cannot take, OSError where its tokenizer cannot be read.
    """
    ids = text_ids(Reader(result.facts, held.tokenizer(result.info.model)), text)
    call = ProbeCall("concept", {"sae": sae})
    return replace(result.info.request, token_ids=ids, probes=(call,), mask="all", edits=())


def submit(held: Services, plan: Plan) -> Job:
    """Run what the store does not have yet, in the order of :meth:`Plan.requests`."""
    passes = plan.requests()

    def work(progress: Progress) -> None:
        for index, (name, request) in enumerate(passes):
            part = progress.part(index / len(passes), (index + 1) / len(passes))
            part.step(0.0, name)
            held.runner.run(request, part)

    return held.desk.submit(plan.promoted.model, plan.key, f"Steer with {plan.steer.named}", work)


def summary(
    written: Mapping[str, RunResult], effects: Mapping[str, RunResult], promoted: Sequence[int]
) -> pd.DataFrame:
    """One row a measure: clean, steered and control. ``promoted``: the tokens that what is written makes likelier.

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
