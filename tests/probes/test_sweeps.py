"""Probes that make further passes of their own: every head in turn, patching, continuations, the trace of a dimension."""

import math
from collections.abc import Callable

import pytest
import torch

from cache.store import Store
from probes import head_effects
from probes.errors import BadRequest
from probes.model.bank import mean_bank
from probes.model.edits import Edit
from probes.model.loaded import LoadedModel
from probes.model.shelf import Shelf
from probes.model.tokenise import text_ids
from probes.request import ProbeCall, RunRequest
from probes.runner import Runner, RunResult
from tests import tiny

Run = Callable[..., RunResult]


@pytest.fixture(scope="module", params=["llama", "gpt2", "neox", "gemma2"])
def model(request: pytest.FixtureRequest) -> LoadedModel:
    return tiny.loaded(request.param)


@pytest.fixture
def run(model: LoadedModel) -> Run:
    shelf = Shelf()
    shelf.put(model)
    runner = Runner(Store.open(":memory:"), shelf)

    def ask(name: str, text: str = tiny.TEXT, edits: tuple[Edit, ...] = (), **params: object) -> RunResult:
        ids = text_ids(model, text)
        return runner.run(RunRequest(model.facts.name, ids, (ProbeCall(name, params),), edits=edits))

    return ask


def numbers(result: RunResult, table: str, metric: str) -> dict[tuple[int, ...], float]:
    rows = result.table(table)
    rows = rows[rows["metric"] == metric]
    keys = [c for c in ("layer", "head", "pos") if c in rows.columns]
    places = rows[keys].fillna(-1).astype(int).itertuples(index=False, name=None)
    return dict(zip(places, rows["value"], strict=True))


def test_a_head_of_the_sweep_is_the_same_head_taken_away_in_a_whole_pass(run: Run, model: LoadedModel) -> None:
    clean = run("tokens")
    swept = run("head_effects", positions="all")
    nll, kl = (numbers(swept, "head_metrics", f"effect_{m}") for m in ("nll", "kl"))
    assert len(nll) == model.facts.n_layers * model.facts.n_heads
    for block, head in ((0, 1), (2, 3)):
        edit = Edit("head_z", block, "set", "zero", heads=(head,))
        alone = run("effect", edits=(edit,), against=clean.info.run_id)
        rows = alone.table("token_metrics").set_index(["metric", "pos"])["value"]
        counted = slice(2, None)  # the prediction at position 0 is left out
        rise = (
            rows["nll"].sort_index().to_numpy()[counted].mean()
            - rows["nll_clean"].sort_index().to_numpy()[counted].mean()
        )
        assert nll[block, head] == pytest.approx(rise, abs=2e-4)
        assert kl[block, head] == pytest.approx(rows["effect_kl"].sort_index().to_numpy()[1:-1].mean(), abs=2e-4)


def test_patching_at_the_last_point_gives_the_source_and_at_equal_states_nothing(run: Run, model: LoadedModel) -> None:
    last = model.facts.n_layers
    source = run("tokens", "The river runs east.")
    patched = run("patching", "The river runs west.", target=10, versus=20, source=source.info.run_id)
    ends = {name: numbers(patched, "layer_metrics", f"logit_diff_{name}")[-1,] for name in ("source", "own")}
    cells = numbers(patched, "token_metrics", "patched_logit_diff")
    n = patched.info.n_tokens
    assert len(cells) == (last + 1) * n
    assert cells[last, n - 1] == pytest.approx(ends["source"], rel=1e-4, abs=1e-4)
    assert cells[last, 0] == pytest.approx(ends["own"], rel=1e-4, abs=1e-4)
    assert cells[0, 0] == pytest.approx(ends["own"], rel=1e-3, abs=1e-3), "both texts begin alike"
    by_edit = Edit("resid", 1, "set", run_source(source), positions=(n - 5,))
    alone = run("patching", "The river runs west.", edits=(by_edit,), target=10, versus=20)
    assert cells[1, n - 5] == pytest.approx(numbers(alone, "layer_metrics", "logit_diff")[last,], rel=1e-3, abs=1e-3)


def run_source(result: RunResult) -> object:
    from probes.model.edits import FromRun

    return FromRun(result.info.run_id)


def test_patching_refuses_other_lengths_and_tokens(run: Run) -> None:
    source = run("tokens", "The river runs far away.")
    with pytest.raises(BadRequest, match="same length"):
        run("patching", "The river.", target=1, versus=2, source=source.info.run_id)
    with pytest.raises(BadRequest, match=r"0\.\.259"):
        run("patching", "The river.", target=1, versus=260)
    with pytest.raises(BadRequest, match="another token"):
        run("patching", "The river.", target=1, versus=1)
    with pytest.raises(BadRequest, match="holds no run"):
        run("patching", "The river.", target=1, versus=2, source="nowhere")


def test_a_continuation_is_what_transformers_writes_greedily(run: Run, model: LoadedModel) -> None:
    written = run("continuation", "The river", tokens=12).tensor("continuation").tolist()
    ids = torch.tensor([text_ids(model, "The river")])
    model.hf.set_attn_implementation("eager")
    try:
        theirs = model.hf.generate(ids, max_new_tokens=12, do_sample=False, pad_token_id=0)[0, ids.shape[1] :].tolist()
    finally:
        model.hf.set_attn_implementation("eigenscope")
    assert written == theirs


@pytest.mark.parametrize(
    "edit",
    [
        Edit("resid", 1, "set", "zero", dims=(3,)),
        Edit("head_z", 0, "scale", 3, heads=(1,)),
        Edit("value", 1, "set", "zero", positions=(0,)),
        Edit("pattern", 2, "mask", keys=(1,)),
        Edit("mlp_out", 1, "scale", -1, positions=(2,)),
    ],
    ids=lambda edit: edit.site,
)
def test_an_edited_continuation_is_that_of_whole_edited_passes(run: Run, model: LoadedModel, edit: Edit) -> None:
    """With a cache of keys and values each step sees one token; without one, everything again: the words must agree."""
    written = run("continuation", "The river", edits=(edit,), tokens=4).tensor("continuation").tolist()
    shelf = Shelf()
    shelf.put(model)
    runner = Runner(Store.open(":memory:"), shelf)
    ids = list(text_ids(model, "The river"))
    for expected in written:
        call = ProbeCall("lens", {"positions": "last", "variants": ("raw",)})
        top = runner.run(RunRequest(model.facts.name, tuple(ids), (call,), edits=(edit,))).table("lens_topk")
        best = top[(top["layer"] == model.facts.n_layers) & (top["rank"] == 1)]["token_id"]
        assert int(best.iloc[0]) == expected
        ids.append(expected)


@pytest.mark.parametrize(
    "edit",
    [Edit("value", 0, "scale", 5, positions=(20,)), Edit("pattern", 0, "mask", keys=(21,))],
    ids=lambda edit: edit.site,
)
def test_an_edited_position_stays_where_it_is_while_a_window_slides(edit: Edit) -> None:
    """A cache that dropped what left the window of 16 would count positions from its own first key."""
    model, text = tiny.loaded("gemma2"), tiny.TEXT[:24]
    shelf = Shelf()
    shelf.put(model)
    runner = Runner(Store.open(":memory:"), shelf)
    ids = list(text_ids(model, text))
    [row] = runner.run(
        RunRequest(model.facts.name, tuple(ids), (ProbeCall("continuation", {"tokens": 8}),), edits=(edit,))
    ).table("layer_metrics")["value"]
    log_probs = []
    for _ in range(8):
        call = ProbeCall("lens", {"positions": "last", "variants": ("raw",)})
        top = runner.run(RunRequest(model.facts.name, tuple(ids), (call,), edits=(edit,))).table("lens_topk")
        best = top[(top["layer"] == model.facts.n_layers) & (top["rank"] == 1)].iloc[0]
        log_probs.append(math.log(best["prob"]))
        ids.append(int(best["token_id"]))
    assert row == pytest.approx(sum(log_probs) / 8, abs=1e-4)


def test_a_sweep_without_a_target_is_undefined(run: Run) -> None:
    rows = run("head_effects", text="ab", positions=(2,)).table("head_metrics")
    assert rows["value"].isna().all()
    assert set(rows["status"]) == {"too_few_tokens"}
    assert set(rows["n_used"]) == {0}


def test_a_sweep_to_the_mean_reads_the_bank_once(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    read = []
    monkeypatch.setattr(LoadedModel, "mean_bank", lambda model, progress: read.append(1) or mean_bank(model, progress))
    run("head_effects", text="The river.", to="mean")
    assert len(read) == 1


def test_a_sweep_of_all_positions_counts_their_logits(model: LoadedModel) -> None:
    sample, every = head_effects.Params(), head_effects.Params(positions="all")
    more = head_effects.cost(every, model.facts, 200) - head_effects.cost(sample, model.facts, 200)
    assert more == (200 - 64) * model.facts.d_vocab * 4


def test_a_continuation_that_outgrows_the_context_is_refused(run: Run) -> None:
    with pytest.raises(BadRequest, match="at most"):
        run("continuation", "a" * 200, tokens=100)


def test_a_trace_is_the_residual_stream(run: Run, model: LoadedModel) -> None:
    traced = run("trace", dim=7, positions=(0, 5))
    values = numbers(traced, "token_metrics", "resid_dim")
    assert len(values) == 2 * (model.facts.n_layers + 1)
    for (point, pos), value in values.items():
        assert value == float(traced.tensor(f"resid.{point}")[pos, 7])
    with pytest.raises(BadRequest, match=r"0\.\.31"):
        run("trace", dim=32)
    with pytest.raises(BadRequest, match=r"trace\.position"):
        run("trace", dim=1, positions=(9999,))
