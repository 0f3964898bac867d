"""Tuned and tail lens in the lens probe: at their ends they are the logit lens and the model itself (core.md 4.3, 4.4)."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from analysis.tuned_lens import Translators
from cache.store import Store
from probes import lens
from probes.errors import BadRequest
from probes.lens import Params, run
from probes.lens_states import tail_states
from probes.lenses.folder import config_of, fitting_lenses, lenses_folder, save_lens
from probes.model.loaded import LoadedModel
from probes.model.shelf import Shelf
from probes.progress import Progress
from probes.request import ProbeCall, RunRequest
from probes.runner import Runner
from tests import tiny
from tests.probes.captured import CONTEXT, capture_of, edited
from tests.probes.test_lens import values


@pytest.fixture(scope="module", autouse=True)
def _home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One empty home for the file, so that the mean bank of a tiny model is made once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EIGENSCOPE_HOME", str(tmp_path_factory.mktemp("home")))
        yield


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    return tiny.loaded("llama")


def install(name: str, model: LoadedModel, lens: Translators) -> Path:
    save_lens(lenses_folder() / name, lens, config_of(model))
    return lenses_folder() / name


def random_lens(seed: int = 0) -> Translators:
    generator = torch.Generator().manual_seed(seed)
    return Translators(0.3 * torch.randn(3, 32, 32, generator=generator), torch.randn(3, 32, generator=generator))


@pytest.mark.parametrize("name", tiny.ARCHITECTURES)
def test_the_tail_lens_is_the_logit_lens_at_0_blocks_and_the_model_where_nothing_is_skipped(name: str) -> None:
    model = tiny.loaded(name)
    capture = capture_of(model)
    last = model.facts.n_layers
    for blocks in range(last + 1):
        tables = run(capture, Params(positions="all", variants=("raw",), tail=blocks), CONTEXT).tables
        rows = tables["token_metrics"]
        for point in range(last + 1):
            if blocks == 0:
                for metric in ("lens_kl", "lens_entropy", "lens_rank"):
                    found = values(rows, f"{metric}@tail", point)
                    np.testing.assert_allclose(found, values(rows, metric, point), rtol=0, atol=1e-6)
            if blocks >= last - point:
                np.testing.assert_allclose(values(rows, "lens_kl@tail", point), 0, atol=1e-5)
            elif blocks:
                assert (values(rows, "lens_kl@tail", point) > 1e-4).any()


def test_the_tail_lens_is_the_last_block_on_an_early_state_by_its_parts(model: LoadedModel) -> None:
    capture = capture_of(model)
    found = tail_states(capture, [0], 1, Progress())[0]
    block = capture.model.sites.blocks[2].block
    ids, state = capture.token_ids, capture.resid(0)
    with torch.no_grad():
        rotary = model.sites.backbone.rotary_emb(state[None], torch.arange(len(ids))[None])
        output = block(state[None], attention_mask=None, position_embeddings=rotary)
    expected = (output[0] if isinstance(output, tuple) else output).reshape(state.shape)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_the_tail_lens_of_an_edited_run_carries_out_its_edits(model: LoadedModel) -> None:
    edit = {"site": "mlp_out", "layer": 2, "op": "set", "source": "zero"}
    capture = edited(model, edit)
    result = run(capture, Params(positions="all", variants=("raw",), tail=1), CONTEXT)
    np.testing.assert_allclose(values(result.tables["token_metrics"], "lens_kl@tail", 2), 0, atol=1e-5)
    assert "Tail lens: the last 1 blocks ran on the state of each point." in result.notes


def test_a_zero_tuned_lens_is_the_logit_lens(model: LoadedModel) -> None:
    install("zero", model, Translators.zero(3, 32))
    capture = capture_of(model)
    result = run(capture, Params(positions="all", tuned="zero"), CONTEXT)
    for metric in ("lens_kl", "lens_entropy", "lens_ce_final", "lens_rank"):
        for point in range(4):
            rows = result.tables["token_metrics"]
            found, raw = values(rows, f"{metric}@tuned", point), values(rows, metric, point)
            np.testing.assert_allclose(found, raw, rtol=0, atol=1e-6)
    assert set(result.tables["lens_topk"]["variant"]) == {"raw", "mean", "tuned"}
    assert "Tuned lens: zero." in result.notes


def test_a_tuned_lens_reads_the_translated_state(model: LoadedModel) -> None:
    made = random_lens()
    install("random", model, made)
    capture = capture_of(model)
    result = run(capture, Params(positions="all", tuned="random"), CONTEXT)
    for point in range(3):
        read = torch.softmax(model.unembed(made.translate(capture.resid(point), point)), -1)
        entropy = torch.special.entr(read.double()).sum(-1)
        found = values(result.tables["token_metrics"], "lens_entropy@tuned", point)
        np.testing.assert_allclose(found, entropy, rtol=1e-4)


def test_what_cannot_be_read_is_refused_in_one_sentence(model: LoadedModel) -> None:
    facts = model.facts
    for bad, says in (
        ({"tail": -1}, "lens.tail must be"),
        ({"tuned": ""}, "lens.tuned must be"),
        ({"tuned": 3}, "lens.tuned"),
    ):
        with pytest.raises(ValueError, match=says):
            Params(**bad)  # type: ignore[arg-type]
    with pytest.raises(BadRequest, match="No tuned lens is called 'nothing'; installed: "):
        lens.cost(Params(tuned="nothing"), facts, 10)
    with pytest.raises(BadRequest, match=r"lens\.tail must be 0 to 3"):
        run(capture_of(model), Params(tail=4), CONTEXT)
    wide = tiny.loaded("llama", hidden_size=64)
    save_lens(lenses_folder() / "wide", Translators.zero(3, 64), config_of(wide))
    assert "wide" not in fitting_lenses(facts)
    assert fitting_lenses(wide.facts) == ["wide"]
    with pytest.raises(BadRequest, match="'wide' does not fit: it has d_model 64, tiny-llama has 32"):
        lens.cost(Params(tuned="wide"), facts, 10)


def test_a_result_is_of_the_lens_it_was_made_with_and_outlives_it(
    model: LoadedModel, runner: Runner, store: Store
) -> None:
    folder = install("mine", model, random_lens())
    request = RunRequest("tiny-llama", tuple(range(10, 40)), (ProbeCall("lens", {"tuned": "mine", "tail": 1}),))
    first = runner.run(request)
    assert runner.run(request).info.cached
    install("mine", model, random_lens(1))
    second = runner.run(request)
    assert not second.info.cached
    assert second.info.run_id != first.info.run_id
    for path in folder.iterdir():
        path.unlink()
    opened = Runner(store, Shelf()).open(first.info.run_id)
    assert opened is not None
    assert opened.info.request.probes[0].params["tuned"] == "mine"
    metrics = set(opened.table("token_metrics")["metric"])
    assert {"lens_kl@tuned", "lens_kl@tail", "lens_depth@tuned"} <= metrics
