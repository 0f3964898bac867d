"""Steering as requests on a tiny model: c = 0 changes nothing, the control is written as long, links mean the same."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from app.panels.registry import panel
from app.panels.steer import answers, plan_of, promoted, table_of
from app.selection import Selection
from app.services import Services
from app.steering import Steer, control_of, controls_of, read_steer
from app.steering_passes import concept_request, make_plan, submit, summary
from app.view import View
from cache.store import Store
from probes.errors import BadRequest
from probes.model.shelf import Shelf
from probes.model.tokenise import text_ids
from probes.request import ProbeCall, RunRequest
from probes.runner import Runner
from tests import tiny, tiny_saes

GIVEN: dict[str, Any] = {"sae": "one", "latent": 7, "control": 9, "typical": 2.5, "first": 12, "tokens": 6}
CONCEPT: dict[str, Any] = {
    "sae": "one", "concept": "the doctor saw her", "latents": [7, 3, 11], "values": [2.5, 1.0, 0.25], "control": [9, 1, 2],
    "first": 12, "tokens": 6,
}  # fmt: skip


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("home")
    tiny_saes.make(folder / "saes" / "one", "standard")
    return folder


@pytest.fixture(scope="module")
def module_patch() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.fixture(scope="module")
def view(home: Path, module_patch: pytest.MonkeyPatch) -> Iterator[View]:
    module_patch.setenv("EIGENSCOPE_HOME", str(home))
    model = tiny.loaded("llama")
    shelf = Shelf()
    shelf.put(model)
    with Store.open(":memory:") as store:
        held = Services(store, shelf, Runner(store, shelf))
        held.tokenizer = lambda name: model.tokenizer  # type: ignore[method-assign]
        ids = text_ids(model, tiny.TEXT)
        run = held.runner.run(RunRequest(model.facts.name, ids, (ProbeCall("tokens"),)))
        yield View(held, run, Selection(2, 4))
        held.desk.close()


def done(view: View, given: dict[str, Any] = GIVEN, **changes: Any) -> tuple[Any, Any]:
    plan = plan_of(view, {**given, **changes})
    job = submit(view.services, plan)
    assert job.wait(120)
    assert job.error is None, job.error
    return plan, answers(view, plan)


@pytest.mark.parametrize("given", [GIVEN, CONCEPT])
def test_steering_by_nothing_changes_nothing_and_by_much_does(view: View, given: dict[str, Any]) -> None:
    plan, found = done(view, given, strength=0.0)
    table = table_of(view, plan).set_index("measure")
    assert table.loc["KL, nats", "steered"] == 0.0
    assert table.loc["loss added, nats", "steered"] == 0.0
    assert torch.equal(found["steered text"].tensor("continuation"), found["clean text"].tensor("continuation"))
    clean = view.result.tensor("resid.3")
    assert found["effect, steered"].tensor("resid.3").numpy().tobytes() == clean.numpy().tobytes()
    plan, found = done(view, given, strength=10.0, generated=False)
    table = table_of(view, plan).set_index("measure")
    assert table.loc["KL, nats", "steered"] > 0.1
    assert table.loc["KL, nats", "control"] > 0.1


@pytest.mark.parametrize("given", [{**GIVEN, "mode": "add"}, {**GIVEN, "mode": "clamp"}, CONCEPT])
def test_the_control_is_written_as_long_as_what_is_steered_with(view: View, given: dict[str, Any]) -> None:
    _, found = done(view, given, strength=3.0)
    steered, control = (found[f"effect, {name}"].tensor("resid_edit.2") for name in ("steered", "control"))
    assert torch.allclose(steered.norm(dim=1), control.norm(dim=1), rtol=1e-3)
    assert float(steered.norm(dim=1).min()) > 0
    assert abs(float(torch.cosine_similarity(steered[5], control[5], dim=0))) < 0.9


@pytest.mark.parametrize("given", [GIVEN, CONCEPT])
def test_what_is_asked_again_takes_no_pass_and_a_link_means_the_same(view: View, given: dict[str, Any]) -> None:
    plan, found = done(view, given)
    assert len(found) == len(plan.requests())
    linked = json.loads(json.dumps(plan.steer.as_dict()))
    assert read_steer(linked) == plan.steer
    again = answers(view, plan_of(view, linked))
    assert {name: one.info.run_id for name, one in again.items()} == {n: o.info.run_id for n, o in found.items()}


def test_a_prompt_of_ones_own_is_gone_on_from(view: View) -> None:
    plan, found = done(view, prompt="the mill", temperature=1.0, seed=3)
    ids = found["clean text"].info.request.token_ids
    assert ids == text_ids(tiny.loaded("llama"), "the mill")
    assert plan.written["steered"].token_ids == ids
    assert {name: one.tensor("continuation").numel() for name, one in found.items() if name.endswith("text")}


def test_the_target_rate_counts_promoted_tokens(view: View) -> None:
    plan, found = done(view)
    ids = found["steered text"].tensor("continuation").tolist()
    written = {name: found[f"{name} text"] for name in plan.written}
    effects = {name: found[f"effect, {name}"] for name in plan.effects}
    table = summary(written, effects, [ids[0]]).set_index("measure")
    assert table.loc["target rate", "steered"] == pytest.approx(ids.count(ids[0]) / len(ids))


@pytest.mark.parametrize("steered", [GIVEN, CONCEPT])
def test_panels_draw_and_say_what_is_missing(view: View, steered: dict[str, Any]) -> None:
    plan, _ = done(view, steered, strength=6.0)
    for key in ("steer-effect", "steer-along"):
        drawn = panel(key).draw(view, {"steer": plan.steer.as_dict()})
        assert drawn.fig is not None, drawn.note
        assert drawn.table() is not None
    along = panel("steer-along").draw(view, {"steer": plan.steer.as_dict()}).table()
    assert along is not None
    assert np.isfinite(along["steered"]).all()
    for given, says in (
        ({}, "No steering was asked for"),
        ({**GIVEN, "strength": 5.5}, "are not stored"),
        ({**GIVEN, "sae": "gone"}, "is not installed"),
        ({**GIVEN, "latent": 64}, "latent must lie in 0..63"),
        ({**GIVEN, "colour": 1}, "has no 'colour'"),
        ({"sae": "one"}, "needs latent"),
        ({"sae": "one", "concept": "a mill"}, "needs latents"),
        ({**CONCEPT, "latents": [7, 3, 64]}, "latents must lie in 0..63"),
        ({**CONCEPT, "control": [9, 1, 64]}, "control must lie in 0..63"),
    ):
        drawn = panel("steer-effect").draw(view, {"steer": given})
        assert drawn.fig is None
        assert says in str(drawn.note).replace("\\", "").replace("\u2060", ""), drawn.note


@pytest.mark.parametrize(
    "wrong",
    [
        {"mode": "multiply"}, {"strength": 11}, {"strength": "4"}, {"typical": 0}, {"latent": -1}, {"control": 7},
        {"generated": 1}, {"tokens": 0}, {"temperature": -1}, {"prompt": 3}, {"prompt": "x" * 2001}, {"seed": -1},
        {"first": 0}, {"sae": ""}, {"strength": float("nan")},
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_in_a_sentence(wrong: dict[str, Any]) -> None:
    with pytest.raises(BadRequest, match="of a steering must be") as error:
        read_steer({**GIVEN, **wrong})
    assert str(error.value).endswith(".")


@pytest.mark.parametrize(
    "wrong",
    [
        {"concept": " "}, {"concept": "x" * 501}, {"concept": 3}, {"latents": []}, {"latents": [7, 7, 3]}, {"latents": 7},
        {"values": [1.0]}, {"values": [1.0, 0.0, 1.0]}, {"values": "abc"}, {"control": [7, 1, 2]}, {"control": [1, 2]},
        {"strength": -10.5}, {"temperature": 6},
    ],
)  # fmt: skip
def test_a_concept_that_does_not_fit_is_refused_in_a_sentence(wrong: dict[str, Any]) -> None:
    with pytest.raises(BadRequest, match="of a steering must be") as error:
        read_steer({**CONCEPT, **wrong})
    assert str(error.value).endswith(".")


def test_taking_a_concept_away_promotes_what_it_suppresses(view: View) -> None:
    more, found = done(view, CONCEPT, strength=2.0)
    less, same = done(view, CONCEPT, strength=-2.0)
    one, other = promoted(more, found), promoted(less, same)
    ids = found["tokens it promotes"].tensor("concept_effect_ids")
    assert [one, other] == ids.tolist()
    assert not set(one) & set(other)


def test_a_concept_prompt_is_read_without_the_edits_of_the_open_run(view: View) -> None:
    from probes.model.edits import parse_edit

    scaled = parse_edit({"site": "resid", "layer": 1, "op": "scale", "source": 2.0})
    edited = view.services.runner.run(replace(view.info.request, edits=(scaled,)))
    request = concept_request(view.services, edited, "one", "the doctor saw her")
    assert (request.edits, request.token_ids) == ((), text_ids(tiny.loaded("llama"), "the doctor saw her"))
    with pytest.raises(BadRequest, match="at most 256"):
        concept_request(view.services, edited, "one", "x" * 300)


def test_controls_are_other_latents_that_fire_and_always_the_same() -> None:
    own = [3, 5, 8]
    drawn = controls_of(own, 64)
    assert drawn == controls_of(own, 64)
    assert len(set(drawn) - set(own)) == 3
    assert controls_of([5, 3, 8], 64) != drawn
    assert sorted(controls_of(own, 64, [1, 2, 3, 4, 5])) == [1, 2, 4]
    with pytest.raises(BadRequest, match="3 latents need as many others to compare with, and there are 2"):
        controls_of(own, 64, [1, 2, 3, 5])


def test_the_control_is_another_latent_that_fires_and_always_the_same() -> None:
    drawn = {control_of(latent, 64) for latent in range(30)}
    assert len(drawn) > 10
    assert control_of(7, 64) == control_of(7, 64) != 7
    assert control_of(7, 64, [7, 12]) == 12
    with pytest.raises(BadRequest, match="no other"):
        control_of(0, 1)


def test_a_steering_keeps_the_edits_of_the_open_run_that_fit_the_prompt(view: View) -> None:
    from probes.model.edits import parse_edit
    from probes.saes.folder import installed_saes

    late, early = (
        parse_edit({"site": "resid", "layer": 1, "positions": [at], "op": "scale", "source": 2.0}) for at in (90, 3)
    )
    edited = view.services.runner.run(replace(view.info.request, edits=(late, early)))
    info = next(one.info for one in installed_saes() if one.name == "one")
    assert info is not None
    plan = make_plan(view.services, edited, Steer(**GIVEN), info)
    assert plan.written["clean"].edits == (early,)
    assert plan.effects["steered"].edits[:2] == (late, early)
