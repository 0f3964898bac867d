"""The probe effect on tiny models: losses, sinks and likely tokens of an edited run beside those of its clean one."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from analysis.effect import MEASURES, effect
from cache.store import Store
from probes.errors import BadRequest
from probes.model import bank
from probes.model.edits import parse_edit
from probes.model.loaded import LoadedModel
from probes.model.shelf import Shelf
from probes.model.tokenise import text_ids
from probes.progress import Progress
from probes.request import ProbeCall, RunRequest
from probes.runner import Runner, RunResult
from tests import tiny
from tests.probes.captured import edited

EDIT = {"site": "resid", "layer": 1, "positions": [3, 4], "op": "set", "source": "zero"}
N_TOKENS = len(tiny.TEXT) + 1


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    """With two heads of block 1 whose queries all look for the state of position 0: sinks."""
    model = tiny.loaded("qwen2")
    block = model.hf.model.layers[1]
    with torch.no_grad():
        sought = block.input_layernorm(edited(model).resid(1)[0])
        block.self_attn.k_proj.weight[3] = sought / sought.norm()
        for head in (0, 1):
            block.self_attn.q_proj.bias[8 * head + 3] = 10.0  # a dimension that rotary phases hardly turn
    return model


@pytest.fixture(scope="module")
def store() -> Iterator[Store]:
    with Store.open(":memory:") as opened:
        yield opened


@pytest.fixture(scope="module")
def runner(model: LoadedModel, store: Store) -> Runner:
    shelf = Shelf()
    shelf.put(model)
    return Runner(store, shelf)


@pytest.fixture(scope="module")
def clean(model: LoadedModel, runner: Runner) -> RunResult:
    return runner.run(request_for(model))


@pytest.fixture(scope="module")
def changed(model: LoadedModel, runner: Runner, clean: RunResult) -> RunResult:
    """A lean run: nothing but the effect."""
    return runner.run(request_for(model, EDIT, probes=(against(clean),)))


def against(run: RunResult, **params: Any) -> ProbeCall:
    return ProbeCall("effect", {"against": run.info.run_id, **params})


def request_for(
    model: LoadedModel,
    *edits: dict[str, Any],
    probes: tuple[ProbeCall, ...] = (ProbeCall("tokens"), ProbeCall("sinks")),
    text: str = tiny.TEXT,
) -> RunRequest:
    return RunRequest(model.facts.name, text_ids(model, text), probes, edits=tuple(map(parse_edit, edits)))


def by_position(result: RunResult, metric: str) -> pd.Series:
    rows = result.table("token_metrics")
    found = rows[(rows["metric"] == metric) & rows["layer"].isna()].set_index("pos")["value"].sort_index()
    assert list(found.index) == list(range(result.info.n_tokens))
    return found


def value(result: RunResult, metric: str) -> float:
    rows = result.table("layer_metrics")
    [found] = rows[(rows["metric"] == metric) & rows["layer"].isna()]["value"]
    return float(found)


def test_losses_are_those_of_the_tokens_probe(
    model: LoadedModel, runner: Runner, clean: RunResult, changed: RunResult
) -> None:
    whole = runner.run(request_for(model, EDIT))
    for theirs, ours in ((clean, "nll_clean"), (whole, "nll")):
        np.testing.assert_allclose(by_position(changed, ours), by_position(theirs, "nll"), rtol=1e-6)
    for metric, column in (("perplexity", "nll"), ("perplexity_clean", "nll_clean")):
        assert value(changed, metric) == pytest.approx(np.exp(by_position(changed, column).mean()), rel=1e-6)
    assert abs(value(changed, "perplexity") / value(changed, "perplexity_clean") - 1) > 1e-3


def test_a_loss_stands_at_its_token_and_position_0_has_none(changed: RunResult) -> None:
    rows = changed.table("token_metrics")
    first = rows[(rows["pos"] == 0) & rows["metric"].str.startswith("nll")]
    assert first["value"].isna().all()
    assert set(first["status"]) == {"not_applicable"}
    moved = (by_position(changed, "nll") - by_position(changed, "nll_clean")).abs()
    assert (moved[1:4] == 0).all()  # predicted before the edited positions
    assert moved[4] > 0


def test_the_measures_stand_where_the_prediction_is_made(
    model: LoadedModel, clean: RunResult, changed: RunResult
) -> None:
    last = f"resid.{model.facts.n_layers}"
    found = effect(model.unembed(clean.tensor(last)), model.unembed(changed.tensor(last)))
    for name in MEASURES:
        expected = getattr(found, name).double().numpy()
        np.testing.assert_allclose(by_position(changed, f"effect_{name}"), expected, rtol=1e-4, atol=1e-6)
        assert value(changed, f"effect_{name}") == pytest.approx(expected[1:].mean(), rel=1e-4)  # not of position 0
        assert not expected[:3].any()
    assert by_position(changed, "effect_kl")[3] > 0


def test_likely_tokens_before_and_after(model: LoadedModel, clean: RunResult, changed: RunResult) -> None:
    table = changed.table("lens_topk")
    assert set(table["layer"]) == {model.facts.n_layers}
    for variant, run in (("clean", clean), ("edited", changed)):
        probs, ids = model.unembed(run.tensor("resid.3")).softmax(-1).topk(5)
        rows = table[table["variant"] == variant].sort_values(["pos", "rank"])
        assert len(rows) == 5 * N_TOKENS
        assert rows["token_id"].tolist() == ids.flatten().tolist()
        np.testing.assert_allclose(rows["prob"], probs.flatten(), rtol=1e-4)


def test_sink_shares_are_of_the_flags_of_both_runs(model: LoadedModel, runner: Runner, clean: RunResult) -> None:
    edit = {**EDIT, "positions": [0]}
    lean, whole = (runner.run(request_for(model, edit, probes=p)) for p in ((against(clean),), (ProbeCall("sinks"),)))
    ours, theirs = (
        run.table("head_metrics").query("metric == 'is_sink'").pivot(index="layer", columns="head", values="value")
        for run in (whole, clean)
    )
    table = lean.table("layer_metrics")
    shares = table[table["metric"] == "sink_share"].set_index("layer")["value"]
    assert shares.to_dict() == {block + 1: share for block, share in ours.mean(axis=1).items()}
    assert theirs.loc[0].sum() == 0
    assert theirs.loc[1].sum() >= 2
    assert value(lean, "sink_share_on_clean") == pytest.approx(theirs.loc[1:].to_numpy().mean())
    assert value(lean, "sink_share_on") == pytest.approx(ours.loc[1:].to_numpy().mean())
    assert value(lean, "sink_share_on") < value(lean, "sink_share_on_clean")


def test_a_clean_run_against_itself_has_no_effect(model: LoadedModel, runner: Runner, clean: RunResult) -> None:
    same = runner.run(request_for(model, probes=(against(clean), ProbeCall("tokens"))))
    for name in MEASURES:
        assert value(same, f"effect_{name}") == 0.0
    assert value(same, "perplexity") == value(same, "perplexity_clean")
    assert same.table("token_metrics").value_counts(["metric", "layer", "pos"], dropna=False).max() == 1


def test_a_short_prompt_has_no_sink_shares(model: LoadedModel, runner: Runner) -> None:
    clean = runner.run(request_for(model, text="ab"))
    rows = runner.run(request_for(model, EDIT | {"positions": [0]}, probes=(against(clean),), text="ab")).table(
        "layer_metrics"
    )
    shares = rows[rows["metric"].str.startswith("sink_share")]
    assert set(shares["status"]) == {"too_few_tokens"}
    assert shares["value"].isna().all()


def test_a_lean_run_keeps_the_last_point_alone_and_more_can_follow(model: LoadedModel, clean: RunResult) -> None:
    with Store.open(":memory:") as store:
        shelf = Shelf()
        shelf.put(model)
        runner = Runner(store, shelf)
        first = runner.run(request_for(model))
        edit = {**EDIT, "positions": [5]}
        lean = runner.run(request_for(model, edit, probes=(against(first),)))
        kept = [point for point in range(4) if store.has_tensors(lean.info.capture_id, (f"resid.{point}",))]
        assert kept == [3]
        whole = runner.run(request_for(model, edit, probes=(ProbeCall("massive"), ProbeCall("tokens"))))
        assert whole.info.capture_id == lean.info.capture_id
        assert whole.info.forward_passes == 1
        assert torch.equal(whole.tensor("resid.3"), lean.tensor("resid.3"))
        assert not whole.tensor("resid.1")[5].any()


def test_what_cannot_be_compared_is_refused(model: LoadedModel, runner: Runner, clean: RunResult) -> None:
    short = runner.run(request_for(model, text="short"))
    wider = tiny.loaded("gpt2", vocab_size=300)
    runner._shelf.put(wider)
    ids = text_ids(wider, tiny.TEXT)
    vocabulary = runner.run(RunRequest(wider.facts.name, ids, (ProbeCall("tokens"),)))
    for other, says in ((short, "has 6 tokens, this one 107"), (vocabulary, "has 300, this model 260")):
        with pytest.raises(BadRequest, match=says):
            runner.run(request_for(model, EDIT, probes=(against(other),)))
    for bad, says in (("0" * 32, "holds no run"), ("", "a run id"), (3, "a run id"), ("\ud800", "holds no run")):
        with pytest.raises(BadRequest, match=says):
            runner.run(request_for(model, EDIT, probes=(ProbeCall("effect", {"against": bad}),)))
    for top in (0, 51, 2.0, True):
        with pytest.raises(BadRequest, match="1 to 50"):
            runner.run(request_for(model, EDIT, probes=(against(clean, top=top),)))


def test_a_clean_run_of_another_text_is_refused(model: LoadedModel, runner: Runner) -> None:
    other = runner.run(request_for(model, text=tiny.TEXT[::-1]))
    with pytest.raises(BadRequest, match="the same text"):
        runner.run(request_for(model, EDIT, probes=(against(other),)))
    ids = text_ids(model, tiny.TEXT)
    marked = runner.run(RunRequest(model.facts.name, (3, *ids[1:]), (ProbeCall("tokens"),)))
    runner.run(request_for(model, EDIT, probes=(against(marked),)))  # another first token predicts the same text


def test_a_source_that_was_evicted_is_computed_again_once(model: LoadedModel) -> None:
    with Store.open(":memory:") as store:
        shelf = Shelf()
        shelf.put(model)
        runner = Runner(store, shelf)
        source = {"run": runner.run(request_for(model, text=tiny.TEXT[::-1])).info.run_id}
        store.prune(0)
        edits = [{"site": "resid", "layer": point, "op": "set", "source": source, "dims": [0]} for point in (1, 2, 3)]
        assert runner.run(request_for(model, *edits)).info.forward_passes == 2


def test_rows_without_attention_left_are_told_by_every_run_of_the_capture(model: LoadedModel, runner: Runner) -> None:
    edit = {"site": "pattern", "layer": 0, "op": "set", "source": "uniform", "keys": [50]}
    runs = [runner.run(request_for(model, edit, probes=(ProbeCall(name),))) for name in ("tokens", "sinks")]
    assert [run.info.forward_passes for run in runs] == [1, 0]
    rows = 50 * model.facts.n_heads
    assert all(run.info.notes[0].startswith(f"{rows:,} attention rows had nothing left") for run in runs)


def test_an_evicted_clean_run_is_computed_again(model: LoadedModel) -> None:
    with Store.open(":memory:") as store:
        shelf = Shelf()
        shelf.put(model)
        runner = Runner(store, shelf)
        source = {**EDIT, "source": {"run": runner.run(request_for(model, text=tiny.TEXT[::-1])).info.run_id}}
        first = runner.run(request_for(model, source))
        request = request_for(model, EDIT, probes=(against(first),))
        before = runner.run(request).table("token_metrics")
        store.prune(0)
        again = runner.run(request_for(model, EDIT, probes=(against(first, top=3),)))
        assert again.info.forward_passes >= 2
        pd.testing.assert_frame_equal(again.table("token_metrics"), before)


def test_the_mean_of_a_bank_is_of_position_0_and_of_the_others(
    empty_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    passages = ["One passage about a river.", "Another, somewhat longer, about the mill beside it."]
    (tmp_path / "bank.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in passages))
    monkeypatch.setattr(bank, "TEXTS", tmp_path / "bank.jsonl")
    bank._digest.cache_clear()
    try:
        model = tiny.loaded("llama")
        states = [edited(model, token_ids=list(text_ids(model, text))) for text in passages]
        found = model.mean_bank(Progress())
        assert (found.n_texts, found.n_tokens) == (2, sum(map(len, passages)))
        clean = edited(model)
        for site, width in (("resid", 32), ("attn_out", 32), ("mlp_out", 32), ("head_z", 32), ("value", 16)):
            name = f"{site}.1"
            whole = [capture.read(name) for capture in states]
            first = torch.stack([state[0] for state in whole]).mean(0)
            other = torch.cat([state[1:] for state in whole]).mean(0)
            torch.testing.assert_close(found.first[site][1], first, rtol=1e-5, atol=1e-6)
            torch.testing.assert_close(found.other[site][1], other, rtol=1e-5, atol=1e-6)
            edit = {
                "site": site,
                "layer": 1,
                "positions": [0, 6],
                "dims": [2],
                "op": "set",
                "source": {"mean": "builtin"},
            }
            capture = edited(model, edit)
            expected = clean.read(name).clone()
            for head_dim in range(2, width, model.facts.d_head if site in ("head_z", "value") else width):
                expected[0, head_dim], expected[6, head_dim] = (
                    found.first[site][1, head_dim],
                    found.other[site][1, head_dim],
                )
            torch.testing.assert_close(capture.read(name), expected, rtol=0, atol=0)
    finally:
        bank._digest.cache_clear()
