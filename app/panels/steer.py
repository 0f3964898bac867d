"""Panels of steering: what it does to the open text, beside random latents written with the same lengths."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from app.figures.effect import effect_by_position
from app.figures.steer import measure_bars
from app.panels.panel import POSITION, Drawn, Option, panel
from app.sae_index import indexed, labels_of
from app.steering import ConceptSteer, read_steer
from app.steering_passes import CONTROL, EFFECT, Plan, make_plan, summary
from app.text import markdown
from app.view import Gap, View
from probes.errors import BadRequest
from probes.runner import RunResult
from probes.saes.folder import installed_saes

__all__ = ["answers", "concept_table", "plan_of", "promoted", "table_of"]

Given = dict[str, Any] | None
_NAMED = 5
_STEER = {"steer": Option(dict, "steer-asked")}
_NOTHING = 'No steering was asked for: give one, such as `{"sae": name, "latent": 3, "control": 9, "typical": 2.5}`.'


def plan_of(view: View, given: Mapping[str, Any]) -> Plan:
    """The passes of a steering of this run, planned once. Raises BadRequest for what cannot be meant."""
    steer = read_steer(given)
    info = next((one.info for one in installed_saes() if one.name == steer.sae), None)
    if info is None:
        raise BadRequest(f"The SAE {steer.sae[:80]!r} is not installed.")
    plan: Plan = view.memo(("steer", steer, info), lambda: make_plan(view.services, view.result, steer, info))
    return plan


def answers(view: View, plan: Plan) -> dict[str, RunResult]:
    """The passes of a steering that are stored, by name."""
    asked = {name: view.find_request(request) for name, request in plan.requests()}
    return {name: found for name, found in asked.items() if found is not None}


def promoted(plan: Plan, found: Mapping[str, RunResult]) -> list[int]:
    """The tokens it makes likelier on the direct path; none while that is not stored."""
    return plan.steer.promoted(found[EFFECT]) if EFFECT in found else []


def concept_table(view: View, sae: str, latents: Sequence[int], values: Sequence[float]) -> pd.DataFrame:
    """The latents of a concept prompt, strongest first: ``latent, label, mean_activation`` and, where an index knows it,
    ``fires_on``, the share of all tokens each fires on."""
    labels = labels_of(view, sae)
    table = pd.DataFrame(
        {"latent": latents, "label": [labels.get(one, "") for one in latents], "mean_activation": values}
    )
    try:
        density = indexed(view, sae).latents["density"]
    except Gap:
        return table
    return table.assign(fires_on=density.reindex(table["latent"]).to_numpy(dtype=float))


def table_of(view: View, plan: Plan) -> pd.DataFrame:
    """What the steering did, measured. Raises Gap unless every pass is there."""
    found = _whole(view, plan)
    written = {name: found[f"{name} text"] for name in plan.written}
    effects = {name: found[f"effect, {name}"] for name in plan.effects}
    try:
        return summary(written, effects, promoted(plan, found))
    except KeyError:
        raise Gap("What was written has been dropped to keep the store within its budget: steer again.") from None


@panel("steer-effect", "steer", "What steering does", "More than random latents of the same length?",
       ("steer", "Measures"), options=_STEER)  # fmt: skip
def effect(view: View, steer: Given = None) -> Drawn:
    plan = _asked(view, steer)
    table = table_of(view, plan)
    return Drawn(measure_bars(table), f"What steering does: {_told(plan)}", csv=table, aside=_latents(view, plan))


@panel("steer-along", "steer", "Along the open text", "Where does it change what comes next?",
       ("steer", "Measures"), options=_STEER)  # fmt: skip
def along(view: View, steer: Given = None) -> Drawn:
    plan = _asked(view, steer)
    found = _whole(view, plan)
    curves = [
        (
            name if name != CONTROL else f"control, {plan.steer.control_named}",
            role,
            _by_position(found[f"effect, {name}"], view),
        )
        for name, role in (("steered", "target"), (CONTROL, "variant"))
    ]
    first, tokens = view.sight()
    seen = [(label, role, values[first : first + len(tokens)]) for label, role, values in curves]
    figure = effect_by_position(seen, tokens, "KL (clean || changed), nats", first=first)
    rows = pd.DataFrame({"pos": range(len(view.tokens)), "token": view.tokens} | {label: v for label, _, v in curves})
    return Drawn(figure, f"Along the open text: {_told(plan)}", csv=rows, place=POSITION)


def _asked(view: View, given: Given) -> Plan:
    if not given:
        raise Gap(_NOTHING)
    try:
        return plan_of(view, given)
    except BadRequest as problem:
        raise Gap(markdown(str(problem))) from None


def _whole(view: View, plan: Plan) -> dict[str, RunResult]:
    found = answers(view, plan)
    lost = len(plan.requests()) - len(found)
    if lost:
        raise Gap(f"Of the {len(plan.requests())} passes of this steering {lost} are not stored: ask for it anew.")
    return found


def _told(plan: Plan) -> str:
    steer = plan.steer
    return f"{markdown(steer.named)} of {markdown(steer.sae)}, {steer.amount}"


def _latents(view: View, plan: Plan) -> str | None:
    """The strongest latents of a concept prompt, for who sees no page."""
    steer = plan.steer
    if not isinstance(steer, ConceptSteer):
        return None
    labels = labels_of(view, steer.sae)
    named = [f"{one} {markdown(labels[one])}" if labels.get(one) else str(one) for one in steer.latents[:_NAMED]]
    return f"The strongest of its {len(steer.latents)} latents: {'; '.join(named)}."


def _by_position(result: RunResult, view: View) -> NDArray[np.float64]:
    rows = result.table("token_metrics")
    here = rows[rows["metric"] == "effect_kl"].set_index("pos")["value"].astype(float)
    return np.asarray(here.reindex(range(len(view.tokens))), dtype=np.float64)
