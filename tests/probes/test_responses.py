"""Generation with capture: one ordinary run that knows where its response begins, and all prompts of a set."""

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch

from cache.store import Store
from probes import continuation
from probes.errors import BadRequest
from probes.model.loaded import LoadedModel
from probes.model.shelf import Shelf
from probes.model.tokenise import text_ids
from probes.progress import Cancelled, Progress
from probes.prompts.sets import Prompt, PromptSet
from probes.request import ProbeCall, RunRequest
from probes.respond import Generation, prompt_request, respond, response_start
from probes.responses import responses, shift_over
from probes.runner import Runner
from probes.set_sweep import SetAsk
from tests import tiny
from tests.analysis.test_response_shift import both_sides

CALLS = (ProbeCall("tokens"), ProbeCall("sinks"))
HOW = Generation(tokens=12, temperature=1.0, seed=3)


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    return tiny.loaded("llama")


@pytest.fixture
def shelf(model: LoadedModel) -> Shelf:
    made = Shelf()
    made.put(model)
    return made


def prompt(model: LoadedModel, text: str = tiny.TEXT[:40]) -> RunRequest:
    return RunRequest(model.facts.name, text_ids(model, text), CALLS)


def test_prompt_and_response_are_one_ordinary_run(runner: Runner, model: LoadedModel) -> None:
    request = prompt(model)
    made = respond(runner, model, request, HOW, Progress())
    start = len(request.token_ids)
    assert made.info.forward_passes == 1
    assert made.info.request.token_ids[:start] == request.token_ids
    assert response_start(made.info.request) == start
    assert response_start(request) is None
    assert prompt_request(made.info.request) == request
    assert "at temperature 1 with seed 3" in made.info.notes[-1]
    opened = runner.open(made.info.run_id)
    assert opened is not None
    assert response_start(opened.info.request) == start, "it survives a restart: the request is stored"
    assert not opened.table("head_metrics").empty
    again = respond(runner, model, request, HOW, Progress())
    assert again.info.cached


def test_its_scores_are_those_of_the_model(runner: Runner, model: LoadedModel) -> None:
    request = prompt(model)
    made = respond(runner, model, request, HOW, Progress())
    rows = made.table("layer_metrics")
    alone = rows[rows["layer"].isna()].set_index("metric")["value"]
    ids = torch.tensor([made.info.request.token_ids])
    start = len(request.token_ids)
    with torch.no_grad():
        scores = model.hf(ids).logits[0].log_softmax(-1)
    drawn = scores[start - 1 : -1]
    assert alone["response_logprob@all"] == pytest.approx(float(drawn.gather(1, ids[0, start:, None]).mean()), rel=1e-4)
    assert alone["response_entropy@all"] == pytest.approx(float(-(drawn.exp() * drawn).sum(-1).mean()), rel=1e-4)
    states = torch.stack([made.tensor(f"resid.{point}") for point in range(4)])
    sides = both_sides(states, start, torch.ones(ids.shape[1], dtype=torch.bool), normed=True)
    for metric, side in zip(("alpha_prompt", "alpha_response_matched"), sides, strict=True):
        found = rows[rows["metric"] == metric].sort_values("layer")
        np.testing.assert_allclose(found["value"].to_numpy(dtype=float), [one.value for one in side], rtol=1e-6)
    shift = rows[rows["metric"] == "response_shift"]
    assert set(shift["n_used"]) == {ids.shape[1] - start}


def test_a_text_that_ends_at_once_has_no_response(
    runner: Runner, model: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("probes.respond.stops", lambda model: frozenset(range(tiny.VOCAB)))
    with pytest.raises(BadRequest, match="no response"):
        respond(runner, model, prompt(model), Generation(tokens=1), Progress())


def test_bad_generations_are_refused() -> None:
    for bad in ({"tokens": 0}, {"tokens": 600}, {"temperature": -1.0}, {"seed": -1}):
        with pytest.raises(BadRequest, match="continuation"):
            Generation(**bad)


def test_a_response_needs_to_know_where_it_begins(runner: Runner, model: LoadedModel) -> None:
    with pytest.raises(BadRequest, match=r"response\.start must be a whole number from 1"):
        ProbeCall("response").full_params()
    request = prompt(model)
    with pytest.raises(BadRequest, match=r"response\.start must be from 1 to 40 here, not 41"):
        runner.run(request.with_probes(ProbeCall("response", {"start": 41})))


def some_set(*texts: str) -> PromptSet:
    prompts = [Prompt(f"p{i}", text, answer="yes" if i else None) for i, text in enumerate(texts)]
    return PromptSet("few", "here", tuple(prompts))


def test_every_prompt_of_a_set_is_answered_once(
    runner: Runner, shelf: Shelf, model: LoadedModel, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = SetAsk(some_set(tiny.TEXT[:30], tiny.TEXT[:60], "x" * 300), prompt(model))
    found = responses(runner, shelf, asked, HOW, Progress())
    assert [one.prompt.id for one in found.found] == ["p0", "p1"]
    assert list(found.refused) == [2], "300 tokens are beyond its context"
    first, second = found.found
    assert first.right is None
    assert second.right is False
    assert first.start == 31
    assert first.n_before_answer == len(first.token_ids) <= 12
    assert first.text == model.tokenizer.decode(first.token_ids)
    assert first.logprob < 0 < first.entropy
    assert first.alpha.shape == (4,)
    assert np.isfinite(first.prompt_alpha).all()

    def never(*_: object) -> None:
        raise AssertionError("all was stored")

    monkeypatch.setattr(continuation, "generate", never)
    monkeypatch.setattr("probes.writing.generate", never)
    again = responses(runner, shelf, asked, HOW, Progress())
    assert [one.run_id for one in again.found] == [one.run_id for one in found.found]


def test_a_sweep_that_is_stopped_goes_on_where_it_was(runner: Runner, shelf: Shelf, model: LoadedModel) -> None:
    asked = SetAsk(some_set(tiny.TEXT[:30], tiny.TEXT[:60]), prompt(model))
    told: list[str] = []
    stopping = Progress(lambda _, what: told.append(what), lambda: any("responses 2 to 2" in what for what in told))
    with pytest.raises(Cancelled, match="1 of 2 responses are stored"):
        responses(runner, shelf, asked, HOW, stopping)
    known = runner.run(asked.request(asked.prompts.prompts[0], model).with_probes(HOW.call))
    assert known.info.cached
    assert len(responses(runner, shelf, asked, HOW, Progress()).found) == 2


def test_prompts_of_one_length_are_written_together_as_if_alone(
    runner: Runner, shelf: Shelf, model: LoadedModel, store: Store
) -> None:
    asked = SetAsk(some_set(*(tiny.TEXT[i : i + 40] for i in range(4))), prompt(model))
    how = Generation(tokens=8, temperature=0.7, seed=1)
    found = responses(runner, shelf, asked, how, Progress())
    assert len(found.found) == 4
    for one, asked_prompt in zip(found.found, asked.prompts.prompts, strict=True):
        request = asked.request(asked_prompt, model).with_probes(how.call)
        stored = runner.run(request)
        assert stored.info.cached, "it has the key of a single continuation"
        assert "written together with 3 others" in stored.info.notes[-1]
        alone = continuation.generate(model, torch.tensor([request.token_ids]), how.params, Progress())[0]
        assert tuple(alone.token_ids[: len(one.token_ids)]) == one.token_ids
        frame = stored.table("layer_metrics")
        assert frame["value"][0] == pytest.approx(np.mean(alone.log_probs), rel=1e-4)


def test_one_prompt_that_breaks_does_not_take_the_others_with_it(
    runner: Runner, shelf: Shelf, model: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Behind one prompt the model gives NaN: it is refused by itself, the others of its length are answered."""
    texts = [tiny.TEXT[i : i + 40] for i in range(3)]
    bad = text_ids(model, texts[1])
    forward = model.hf.forward

    def broken(*args: Any, **kwargs: Any) -> Any:
        made = forward(*args, **kwargs)
        for row, ids in enumerate(kwargs["input_ids"].tolist()):
            if tuple(ids) == tuple(bad):
                made.logits[row] = float("nan")
        return made

    monkeypatch.setattr(model.hf, "forward", broken)
    asked = SetAsk(some_set(*texts), prompt(model))
    found = responses(runner, shelf, asked, dataclasses.replace(HOW, tokens=5), Progress())
    assert [one.prompt.id for one in found.found] == ["p0", "p2"]
    assert str(found.refused[1]) == "The logits of token 1 of the continuation are not finite."


def test_the_shift_is_tested_over_prompts(runner: Runner, shelf: Shelf, model: LoadedModel) -> None:
    asked = SetAsk(some_set(*(tiny.TEXT[i : i + 40] for i in range(4))), prompt(model))
    found = responses(runner, shelf, asked, HOW, Progress())
    moved = tuple(dataclasses.replace(one, response_alpha=one.prompt_alpha + 0.3 + 0.01 * i)
                  for i, one in enumerate(found.found))  # fmt: skip
    shift = shift_over(dataclasses.replace(found, found=moved))
    assert shift.overall == "steeper"
    assert shift.exploratory
    assert math.isclose(shift.comparison.overall["difference"], 0.315, abs_tol=1e-9)
