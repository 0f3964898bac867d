"""Sweeps over prompts: keys and numbers of single runs, batches within their bounds, resume, cancel, refusals."""

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from cache.errors import StoreFull
from cache.store import Store
from probes import sweep as sweeping
from probes.model.edits import Edit
from probes.model.loaded import LoadedModel
from probes.model.shelf import Shelf
from probes.model.tokenise import text_ids
from probes.plan import LIMIT_VARIABLE, batch_bytes
from probes.progress import Cancelled, Progress
from probes.request import DEFAULT_PROBES, ProbeCall, RunRequest
from probes.runner import Runner
from probes.sweep import BATCH_TOKENS, in_batches, sweep
from tests import tiny

CALLS = (ProbeCall("tokens"), ProbeCall("sinks"), ProbeCall("massive"), ProbeCall("events"))
TEXTS = tuple(f"{tiny.TEXT[: 40 + 3 * i]} {i}" for i in range(20))


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    return tiny.loaded("llama")


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """The lengths of the prompts of each shared pass, in order."""
    seen: list[list[int]] = []
    batch = sweeping.forward_batch

    def watched(model, prompts, *rest):
        seen.append([len(ids) for ids in prompts])
        return batch(model, prompts, *rest)

    monkeypatch.setattr(sweeping, "forward_batch", watched)
    return seen


def requests(model: LoadedModel, texts: tuple[str, ...] = TEXTS, **changes: object) -> list[RunRequest]:
    settings = {"model": model.facts.name, "probes": CALLS, **changes}
    return [RunRequest(token_ids=text_ids(model, text), **settings) for text in texts]


def alike(left: pd.DataFrame, right: pd.DataFrame, table: str) -> None:
    """The same rows, with numbers that agree to rounding."""
    names = [name for name in left.columns if left[name].dtype.kind != "f"]
    pd.testing.assert_frame_equal(left[names], right[names], obj=table)
    for name in set(left.columns) - set(names):
        np.testing.assert_allclose(left[name], right[name], rtol=2e-4, atol=2e-5, err_msg=f"{table}.{name}")


@pytest.mark.parametrize("name", ["llama", "gpt2", "neox", "gemma2"])
def test_a_prompt_of_a_sweep_is_the_single_run_under_the_same_keys(name: str, store: Store, empty_home: Path) -> None:
    model = tiny.loaded(name)
    shelf = Shelf()
    shelf.put(model)
    asked = requests(model, TEXTS[5:10], probes=tuple(call for call in DEFAULT_PROBES if call.name != "latents"))
    swept = sweep(Runner(store, shelf), asked, Progress())
    assert (len(swept.made), dict(swept.refused)) == (5, {})
    with Store.open(":memory:") as other:
        for request, run_id in zip(asked, swept.run_ids, strict=True):
            single = Runner(other, shelf).run(request)
            batched = Runner(store, shelf).run(request)
            assert batched.info.run_id == run_id == single.info.run_id
            assert batched.info.capture_id == single.info.capture_id
            assert batched.info.cached
            assert batched.info.notes[-1].startswith("Its forward pass was shared with 4 other prompts")
            for table in single.table_names:
                if table not in ("spectra", "events", "lens_topk"):
                    alike(batched.table(table), single.table(table), table)
            values = [result.table("spectra")["singular_value"] for result in (batched, single)]
            np.testing.assert_allclose(*values, atol=1e-5 * values[1].max())
            probs = [result.table("lens_topk")["prob"] for result in (batched, single)]
            np.testing.assert_allclose(*probs, rtol=1e-3)
            for point in range(model.facts.n_layers + 1):
                resid, reference = batched.tensor(f"resid.{point}"), single.tensor(f"resid.{point}")
                assert float(((resid - reference).norm(dim=-1) / reference.norm(dim=-1)).max()) <= 1e-5


def test_prompts_of_like_length_share_a_pass(model: LoadedModel, runner: Runner, passes: list[list[int]]) -> None:
    sweep(runner, requests(model), Progress())
    assert sum(map(len, passes)) == len(TEXTS)
    assert len(passes) < len(TEXTS) / 3
    for lengths in passes:
        assert len(lengths) * max(lengths) <= BATCH_TOKENS
        assert max(lengths) <= 1.25 * min(lengths)
    assert max(passes[0]) == max(len(request.token_ids) for request in requests(model))


def test_batches_keep_within_the_bytes_that_may_be_used(
    model: LoadedModel, runner: Runner, passes: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    orders = {place: runner.order(request, Progress()) for place, request in enumerate(requests(model))}
    roomy = list(in_batches(orders, 1 << 40))
    limit = batch_bytes([orders[place].plan for place in roomy[0][:3]], 1)
    tight = list(in_batches(orders, limit))
    assert len(tight[0]) == 3 < len(roomy[0])
    assert sorted(place for batch in tight for place in batch) == list(range(len(TEXTS)))
    for batch in tight:
        assert batch_bytes([orders[place].plan for place in batch], 1) <= limit
    monkeypatch.setenv(LIMIT_VARIABLE, str(limit))
    assert len(sweep(runner, requests(model), Progress()).made) == len(TEXTS)
    assert [len(lengths) for lengths in passes] == [len(batch) for batch in tight]


def test_a_batch_is_planned_as_the_sum_of_its_prompts(model: LoadedModel, runner: Runner) -> None:
    plans = [runner.order(request, Progress()).plan for request in requests(model)[:4]]
    assert batch_bytes(plans[:1], 1) == plans[0].bytes
    assert batch_bytes(plans, 1) >= sum(plan.capture_bytes for plan in plans)
    assert batch_bytes(plans, 4) >= batch_bytes(plans, 1)


def test_a_finished_sweep_computes_nothing(model: LoadedModel, runner: Runner, passes: list[list[int]]) -> None:
    first = sweep(runner, requests(model), Progress())
    passes.clear()
    again = sweep(runner, requests(model), Progress())
    assert (again.run_ids, again.made) == (first.run_ids, frozenset())
    assert passes == []


def test_evicted_tensors_do_not_make_a_prompt_missing(model: LoadedModel, runner: Runner, store: Store) -> None:
    sweep(runner, requests(model), Progress())
    store.prune(0)
    assert not sweep(runner, requests(model), Progress()).made


def test_a_stored_capture_takes_no_pass(model: LoadedModel, runner: Runner, passes: list[list[int]]) -> None:
    sweep(runner, requests(model), Progress())
    passes.clear()
    swept = sweep(runner, requests(model, mask="no_bos"), Progress())
    assert (len(swept.made), passes) == (len(TEXTS), [])


class Stop:
    """Progress that is cancelled at a certain step."""

    def __init__(self, after: int) -> None:
        self.left = after
        self.fractions: list[float] = []

    def progress(self) -> Progress:
        return Progress(lambda fraction, _: self.fractions.append(fraction), self.cancelled)

    def cancelled(self) -> bool:
        self.left -= 1
        return self.left < 0


def test_a_cancelled_sweep_keeps_what_is_finished_and_goes_on(
    model: LoadedModel, runner: Runner, store: Store, passes: list[list[int]]
) -> None:
    whole = Stop(10**9)
    with Store.open(":memory:") as other:
        shelf = Shelf()
        shelf.put(model)
        sweep(Runner(other, shelf), requests(model), whole.progress())
    assert whole.fractions == sorted(whole.fractions)
    stopped = Stop(len(whole.fractions) // 2)
    with pytest.raises(Cancelled, match=rf"of {len(TEXTS)} prompts are stored, and it can go on") as told:
        sweep(runner, requests(model), stopped.progress())
    stored = len(store.runs())
    assert 0 < stored < len(TEXTS)
    assert f" {stored} of" in str(told.value)
    passes.clear()
    swept = sweep(runner, requests(model), Progress())
    assert len(swept.made) == len(TEXTS) - stored
    assert sum(map(len, passes)) <= len(TEXTS) - stored
    assert len(store.runs()) == len(TEXTS)


def test_what_cannot_be_answered_is_refused_by_itself(model: LoadedModel, runner: Runner) -> None:
    asked = requests(model, TEXTS[:3])
    long = dataclasses.replace(asked[0], token_ids=(5,) * 257)
    foreign = dataclasses.replace(asked[0], token_ids=(5, 260))
    swept = sweep(runner, [asked[0], long, asked[1], foreign, asked[2], long], Progress())
    assert [run is None for run in swept.run_ids] == [False, True, False, True, False, True]
    assert "takes at most 256" in str(swept.refused[1])
    assert "outside the vocabulary" in str(swept.refused[3])
    assert len(swept.made) == 3


def test_a_prompt_that_breaks_the_model_stops_no_other(store: Store) -> None:
    model = tiny.loaded("llama")
    with torch.no_grad():
        model.hf.get_input_embeddings().weight[text_ids(model, "#", bos=False)[0]] = torch.nan
    shelf = Shelf()
    shelf.put(model)
    texts = ("The river runs.", "The # river.", "The mill stands.")
    swept = sweep(Runner(store, shelf), requests(model, texts), Progress())
    assert list(swept.refused) == [1]
    assert "not finite at layer point 0" in str(swept.refused[1])
    assert len(swept.made) == 2


def test_a_prompt_too_large_for_memory_is_refused_by_itself(
    model: LoadedModel, runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = requests(model, ("The river runs.", tiny.TEXT * 2))
    monkeypatch.setenv(LIMIT_VARIABLE, str(runner.order(asked[0], Progress()).plan.bytes))
    swept = sweep(runner, asked, Progress())
    assert list(swept.refused) == [1]
    assert "MB beyond the model" in str(swept.refused[1])


def test_the_same_prompt_twice_is_one_run(model: LoadedModel, runner: Runner) -> None:
    swept = sweep(runner, requests(model, (*TEXTS[:3], TEXTS[0])), Progress())
    assert len(swept.made) == 3
    assert swept.run_ids[3] == swept.run_ids[0]


def test_edited_passes_are_of_one_prompt_each(model: LoadedModel, runner: Runner, passes: list[list[int]]) -> None:
    edit = Edit("resid", 1, "set", "zero", positions=(45,))
    swept = sweep(runner, requests(model, edits=(edit,)), Progress())
    assert passes == []
    assert len(swept.made) + len(swept.refused) == len(TEXTS)
    assert swept.refused, "texts of fewer than 46 tokens have no position 45"
    with Store.open(":memory:") as other:
        shelf = Shelf()
        shelf.put(model)
        single = Runner(other, shelf).run(requests(model, edits=(edit,))[-1])
    assert swept.run_ids[-1] == single.info.run_id


def test_a_store_that_is_full_ends_the_sweep(
    model: LoadedModel, runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise StoreFull(":memory:", "no space left")

    monkeypatch.setattr(runner, "write", full)
    with pytest.raises(StoreFull):
        sweep(runner, requests(model), Progress())
