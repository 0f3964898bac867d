"""Edited and clean sessions on one model at the same time: each gets what it gets alone, whatever fails beside it."""

import random
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch

from cache.store import Store
from probes.errors import NonFinite
from probes.model.edits import parse_edit
from probes.model.loaded import LoadedModel
from probes.model.shelf import Shelf
from probes.model.tokenise import text_ids
from probes.progress import Cancelled, Progress
from probes.request import ProbeCall, RunRequest
from probes.runner import Runner
from tests import tiny
from tests.probes.captured import edited
from tests.probes.test_parity import hooks

ROUNDS = 4
CALLS = (ProbeCall("tokens"), ProbeCall("sinks"), ProbeCall("massive"), ProbeCall("attribution"))
EDITS: dict[str, list[dict[str, Any]]] = {
    "clean": [],
    "resid": [{"site": "resid", "layer": 1, "positions": [0], "op": "set", "source": "zero"}],
    "inside attention": [
        {"site": "pattern", "layer": 0, "op": "mask", "keys": [0]},
        {"site": "value", "layer": 1, "op": "scale", "source": 0.5, "heads": [0]},
    ],
    "outputs": [
        {"site": "head_z", "layer": 1, "op": "set", "source": "zero", "heads": [3]},
        {"site": "attn_out", "layer": 2, "op": "scale", "source": 2},
        {"site": "mlp_out", "layer": 0, "op": "add", "source": 0.25, "dims": [3]},
    ],
}


@pytest.fixture(scope="module", params=["llama", "gpt2"])
def model(request: pytest.FixtureRequest) -> LoadedModel:
    return tiny.loaded(request.param)


@pytest.fixture
def runner(model: LoadedModel) -> Iterator[Runner]:
    with Store.open(":memory:") as store:
        yield runner_of(model, store)


def runner_of(model: LoadedModel, store: Store) -> Runner:
    shelf = Shelf()
    shelf.put(model)
    return Runner(store, shelf)


def request_for(model: LoadedModel, edits: list[dict[str, Any]], text: str = tiny.TEXT) -> RunRequest:
    return RunRequest(model.facts.name, text_ids(model, text), CALLS, edits=tuple(map(parse_edit, edits)))


def kept(runner: Runner, request: RunRequest) -> dict[str, Any]:
    """Everything two runs can be compared by: states to the bit, and their tables."""
    result = runner.run(request)
    states = {f"resid.{point}": result.tensor(f"resid.{point}") for point in range(result.facts.n_layers + 1)}
    return states | {name: result.table(name) for name in result.table_names}


def alone(model: LoadedModel, request: RunRequest) -> dict[str, Any]:
    with Store.open(":memory:") as store:
        return kept(runner_of(model, store), request)


def same(a: dict[str, Any], b: dict[str, Any]) -> bool:
    pairs = [(a[name], b[name]) for name in a]
    return a.keys() == b.keys() and all(
        torch.equal(x, y) if isinstance(x, torch.Tensor) else x.equals(y) for x, y in pairs
    )


def test_sessions_side_by_side_are_bit_equal_to_sessions_alone(model: LoadedModel, runner: Runner) -> None:
    texts = [f"{tiny.TEXT} {index}" for index in range(ROUNDS)]
    expected = {
        (what, text): alone(model, request_for(model, edits, text)) for what, edits in EDITS.items() for text in texts
    }
    start = threading.Barrier(len(EDITS))

    def session(what: str) -> dict[str, dict[str, Any]]:
        found = {}
        for text in texts:
            start.wait(60)
            found[text] = kept(runner, request_for(model, EDITS[what], text))
        return found

    with ThreadPoolExecutor(len(EDITS)) as pool:
        sessions = {what: pool.submit(session, what) for what in EDITS}
    for what, running in sessions.items():
        for text, found in running.result().items():
            assert same(found, expected[what, text]), (what, text)
            assert what == "clean" or not same(found, expected["clean", text])


def test_replays_of_two_sessions_at_once_do_not_mix(model: LoadedModel) -> None:
    captures = {what: edited(model, *edits) for what, edits in EDITS.items()}
    expected = {what: [capture.replay(block) for block in range(3)] for what, capture in captures.items()}
    with ThreadPoolExecutor(4) as pool:
        again = [
            (what, block, pool.submit(captures[what].replay, block))
            for _ in range(ROUNDS)
            for what in EDITS
            for block in range(3)
        ]
    for what, block, replayed in again:
        for name in ("pattern", "values", "head_z", "attn_out", "mlp_out"):
            assert torch.equal(getattr(replayed.result(), name), getattr(expected[what][block], name)), (what, block)


@pytest.mark.parametrize("seed", range(4))
def test_a_pass_that_fails_in_a_random_block_leaves_nothing_behind(
    model: LoadedModel, runner: Runner, seed: int
) -> None:
    before, expected = hooks(model), alone(model, request_for(model, []))
    chance = random.Random(seed)
    block = chance.randrange(model.facts.n_layers)
    sites = model.sites.blocks[block]
    module = chance.choice([sites.block, sites.attn, sites.o_proj, sites.mlp_down])

    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError(f"block {block} broke")

    module.forward = broken
    try:
        for edits in EDITS.values():
            with pytest.raises(RuntimeError, match="broke"):
                runner.run(request_for(model, edits))
    finally:
        del module.forward
    assert hooks(model) == before
    assert same(kept(runner, request_for(model, [])), expected)


def test_a_cancelled_and_an_overflowing_session_do_not_touch_the_clean_one(model: LoadedModel, runner: Runner) -> None:
    before, request = hooks(model), request_for(model, [])
    expected = alone(model, request)
    huge = [{"site": "resid", "layer": 1, "op": "scale", "source": 3e38}] * 2

    def cancelled() -> None:
        seen: list[str] = []
        progress = Progress(lambda _, says: seen.append(says), lambda: any("block 1" in says for says in seen))
        with pytest.raises(Cancelled):
            runner.run(request_for(model, EDITS["outputs"]), progress)
        assert not any("block 2" in says for says in seen)

    def overflowing() -> None:
        with pytest.raises(NonFinite, match="with edits smaller numbers"):
            runner.run(request_for(model, huge))

    with ThreadPoolExecutor(3) as pool:
        failing = [pool.submit(work) for work in (cancelled, overflowing) * ROUNDS]
        clean = pool.submit(kept, runner, request)
    for work in failing:
        work.result()
    assert same(clean.result(), expected)
    assert hooks(model) == before
    assert len(runner.store.runs()) == 1
    assert same(kept(runner, request_for(model, EDITS["outputs"])), alone(model, request_for(model, EDITS["outputs"])))
