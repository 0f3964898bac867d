"""Requests, keys, the plan and the runner, on tiny models and a real store."""

import dataclasses
import threading
from pathlib import Path

import pytest
import torch

from cache.store import Store
from probes.errors import BadRequest, NonFinite, PlanRefused
from probes.model.edits import Edit
from probes.model.loaded import LoadedModel
from probes.model.shelf import Shelf
from probes.model.tokenise import text_ids
from probes.plan import LIMIT_VARIABLE, make_plan
from probes.progress import Cancelled, Progress
from probes.request import ProbeCall, RunRequest, capture_id, run_id
from probes.runner import Runner
from tests import tiny

CALLS = (ProbeCall("tokens"), ProbeCall("sinks"), ProbeCall("massive"), ProbeCall("events"))


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    return tiny.loaded("llama")


def request_for(model: LoadedModel, text: str = tiny.TEXT, **changes: object) -> RunRequest:
    settings = {"model": model.facts.name, "token_ids": text_ids(model, text), "probes": CALLS, **changes}
    return RunRequest(**settings)


def test_the_same_request_again_computes_nothing(model: LoadedModel, runner: Runner) -> None:
    first = runner.run(request_for(model))
    again = runner.run(request_for(model))
    assert (first.info.cached, first.info.forward_passes) == (False, 1)
    assert (again.info.cached, again.info.forward_passes) == (True, 0)
    for name in first.table_names:
        assert first.table(name).equals(again.table(name)), name


def test_another_mask_or_parameter_reuses_the_capture(model: LoadedModel, runner: Runner) -> None:
    first = runner.run(request_for(model))
    other = runner.run(request_for(model, mask="no_bos"))
    assert other.info.run_id != first.info.run_id
    assert other.info.capture_id == first.info.capture_id
    assert (other.info.cached, other.info.forward_passes) == (False, 0)


def test_a_probe_that_needs_more_sites_takes_another_pass_and_says_so(model: LoadedModel, runner: Runner) -> None:
    runner.run(request_for(model))
    attribution = ProbeCall("attribution", {"position": 5})
    assert runner.run(request_for(model, probes=(attribution,))).info.forward_passes == 1
    assert runner.run(request_for(model, probes=(attribution, ProbeCall("massive")))).info.forward_passes == 0


def test_an_evicted_tensor_is_computed_again_with_the_same_numbers(
    model: LoadedModel, runner: Runner, store: Store
) -> None:
    first = runner.run(request_for(model))
    store.prune(0)
    other = runner.run(request_for(model, mask="no_bos"))
    assert other.info.forward_passes == 1
    assert other.table("massive").equals(first.table("massive"))


def test_a_run_whose_own_tensor_was_evicted_is_computed_again(model: LoadedModel, runner: Runner, store: Store) -> None:
    request = request_for(model, probes=(ProbeCall("pattern", {"block": 1}),))
    first = runner.run(request).tensor("pattern")
    store.prune(0)
    again = runner.run(request)
    assert (again.info.cached, again.info.forward_passes) == (False, 1)
    assert torch.equal(again.tensor("pattern"), first)
    assert runner.run(request).info.cached


def test_a_stored_run_opens_without_its_model(model: LoadedModel, runner: Runner, store: Store) -> None:
    made = runner.run(request_for(model))
    opened = Runner(store, Shelf()).open(made.info.run_id)
    assert opened is not None
    assert opened.facts == model.facts
    assert opened.info.request == made.info.request
    assert list(opened.tokens["token_id"]) == list(made.info.request.token_ids)
    assert torch.equal(opened.tensor("resid.1"), made.tensor("resid.1"))
    assert Runner(store, Shelf()).open("0" * 32) is None


def test_identical_requests_in_flight_compute_once(model: LoadedModel, runner: Runner) -> None:
    found = []
    threads = [threading.Thread(target=lambda: found.append(runner.run(request_for(model)))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(result.info.forward_passes for result in found) == 1
    assert len({result.info.run_id for result in found}) == 1


def test_four_sessions_at_once_each_equal_to_its_run_alone(model: LoadedModel, runner: Runner) -> None:
    texts = [f"{tiny.TEXT} {word}" for word in ("north", "south", "east", "west")]
    found: dict[str, torch.Tensor] = {}

    def session(text: str) -> None:
        found[text] = runner.run(request_for(model, text)).tensor("resid.3")

    threads = [threading.Thread(target=session, args=(text,)) for text in texts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for text in texts:
        with Store.open(":memory:") as alone:
            shelf = Shelf()
            shelf.put(model)
            assert torch.equal(found[text], Runner(alone, shelf).run(request_for(model, text)).tensor("resid.3"))


def test_every_key_input_changes_the_key(model: LoadedModel) -> None:
    request, facts = request_for(model), model.facts
    capture = capture_id(facts, request.token_ids)
    for change in ("fingerprint", "tokenizer", "dtype"):
        assert capture_id(dataclasses.replace(facts, **{change: "other"}), request.token_ids) != capture
    assert capture_id(facts, request.token_ids[:-1]) != capture
    assert capture_id(dataclasses.replace(facts, name="other"), request.token_ids) == capture
    run = run_id(capture, request)
    assert run_id("other", request) != run
    assert run_id(capture, dataclasses.replace(request, mask="no_sink")) != run
    assert run_id(capture, request.with_probes(*CALLS[:2])) != run
    assert run_id(capture, request.with_probes(*reversed(CALLS))) == run
    explicit = ProbeCall("lens", {"top_k": 10})
    assert run_id(capture, request.with_probes(explicit)) == run_id(capture, request.with_probes(ProbeCall("lens")))


def test_cancelling_leaves_nothing_behind(model: LoadedModel, runner: Runner, store: Store) -> None:
    steps: list[str] = []

    def cancelled() -> bool:
        return len(steps) > 5

    with pytest.raises(Cancelled):
        runner.run(request_for(model), Progress(lambda _, what: steps.append(what), cancelled))
    assert store.info()["runs"] == 0
    assert runner.run(request_for(model)).info.forward_passes == 1


@pytest.mark.parametrize("layer", range(3))
def test_an_exception_at_any_layer_leaves_no_hook_and_a_free_lock(
    model: LoadedModel, runner: Runner, layer: int
) -> None:
    before = [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in model.hf.modules()]
    block = model.sites.blocks[layer].block

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("planted")

    block.forward = broken
    try:
        with pytest.raises(RuntimeError, match="planted"):
            runner.run(request_for(model))
    finally:
        del block.forward
    assert [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in model.hf.modules()] == before
    assert model.lock.acquire(blocking=False)
    model.lock.release()
    assert runner.run(request_for(model)).info.forward_passes == 1


def test_a_plan_that_does_not_fit_is_refused_before_the_pass(
    model: LoadedModel, runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(LIMIT_VARIABLE, "1000")
    with pytest.raises(PlanRefused, match=LIMIT_VARIABLE):
        runner.run(request_for(model))
    monkeypatch.setenv(LIMIT_VARIABLE, "lots")
    with pytest.raises(BadRequest, match="number of bytes"):
        make_plan(request_for(model), model.facts)


def test_a_plan_counts_what_edits_leave_behind(model: LoadedModel) -> None:
    edits = tuple(Edit("attn_out", block, "set", "zero") for block in range(3)) * 2
    plain, edited = (make_plan(request_for(model, edits=given), model.facts) for given in ((), edits))
    assert edited.bytes - plain.bytes == 3 * len(request_for(model).token_ids) * model.facts.d_model * 8


def test_non_finite_activations_name_layer_and_token() -> None:
    model = tiny.loaded("llama")
    with torch.no_grad():
        model.hf.model.layers[1].mlp.down_proj.weight[0, 0] = float("nan")
    shelf = Shelf()
    shelf.put(model)
    with Store.open(":memory:") as store, pytest.raises(NonFinite, match="layer point 2, token 0"):
        Runner(store, shelf).run(request_for(model))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"mask": "some"}, "all, no_bos, no_sink"),
        ({"dtype": "int8"}, "float32, float16, bfloat16"),
        ({"token_ids": ()}, "no tokens"),
        ({"probes": ()}, "at least one probe"),
        ({"probes": (ProbeCall("nope"),)}, "No probe is called 'nope'"),
        ({"probes": (ProbeCall("tokens"), ProbeCall("tokens"))}, "once"),
        ({"probes": (ProbeCall("lens", {"nope": 1}),)}, "has no parameter 'nope'"),
        ({"probes": (ProbeCall("lens", {"top_k": float("nan")}),)}, "top_k"),
    ],
)
def test_a_request_that_means_nothing_is_refused_in_one_sentence(
    model: LoadedModel, changes: dict[str, object], says: str
) -> None:
    with pytest.raises(BadRequest, match=says) as refused:
        request_for(model, **changes)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"token_ids": (1, 99999)}, "outside the vocabulary"),
        ({"token_ids": (1,) * 300}, "at most 256"),
        ({"probes": (ProbeCall("lens", {"points": (0, 4)}),)}, r"lens.points must lie in 0..3"),
        ({"probes": (ProbeCall("lens", {"positions": (500,)}),)}, "lens.positions must lie in"),
    ],
)
def test_places_outside_model_and_prompt_are_refused(
    model: LoadedModel, runner: Runner, changes: dict[str, object], says: str
) -> None:
    with pytest.raises(BadRequest, match=says):
        runner.run(request_for(model, **changes))


def test_a_bit_flipped_in_a_stored_tensor_is_found_told_and_computed_again(model: LoadedModel, tmp_path: Path) -> None:
    shelf = Shelf()
    shelf.put(model)
    path = tmp_path / "store.duckdb"
    with Store.open(path) as store:
        whole = Runner(store, shelf).run(request_for(model))
        planted = whole.tensor("resid.2").numpy().tobytes()
    data = path.read_bytes()
    at = data.index(planted[:64])
    path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
    with Store.open(path) as store:
        again = Runner(store, shelf).run(request_for(model, mask="no_bos"))
    assert again.info.forward_passes == 1
    assert any("damaged" in note for note in again.info.notes)
