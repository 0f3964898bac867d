"""The probes latents and latent_effect on a tiny model with SAEs made here."""

import dataclasses
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from analysis.logit_effect import logit_effect
from probes import latent_effect, latents
from probes.errors import BadRequest
from probes.model.capture import Capture
from probes.model.loaded import LoadedModel
from probes.probe import Context, Result
from probes.progress import Progress
from probes.saes.folder import SAEFormatError, read_info
from probes.saes.loading import SAEMismatch, load_sae
from tests.probes.captured import CONTEXT, capture_of
from tests.tiny import loaded
from tests.tiny_saes import edit_config, edit_weights, make

COLUMNS = {
    "latents": ["sae", "layer", "pos", "latent", "activation"],
    "token_metrics": ["layer", "pos", "metric", "value", "n_used", "status"],
    "layer_metrics": ["layer", "metric", "value", "n_used", "status"],
}


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    return loaded("llama")


@pytest.fixture(scope="module")
def capture(model: LoadedModel) -> Capture:
    return capture_of(model)


@pytest.fixture
def saes(empty_home: Path) -> Path:
    """A home in which one SAE of the tiny model is installed, with a corpus variance."""
    make(empty_home / "saes" / "tiny", corpus_variance=40.0)
    return empty_home / "saes"


def _metrics(result: Result, table: str, name: str) -> pd.DataFrame:
    rows = result.tables[table]
    return rows[rows["metric"] == name]


def _layer_value(result: Result, name: str) -> float:
    return float(_metrics(result, "layer_metrics", name)["value"].item())


def test_tables_have_the_columns_of_the_store(saes: Path, capture: Capture) -> None:
    result = latents.run(capture, latents.Params(), CONTEXT)
    assert {name: list(frame.columns) for name, frame in result.tables.items()} == COLUMNS
    assert set(result.tables) == set(latents.spec.tables)
    for frame in result.tables.values():
        assert set(frame["layer"]) == {2}  # blocks.1.hook_resid_post


def test_latents_are_the_strongest_of_sae_lens(saes: Path, capture: Capture, model: LoadedModel) -> None:
    rows = latents.run(capture, latents.Params(top=3), CONTEXT).tables["latents"]
    sae = load_sae(read_info(saes / "tiny"), model.facts)
    activations = sae.module.encode(capture.resid(2))
    for pos in range(capture.n_tokens):
        ours = rows[rows["pos"] == pos]
        expected = activations[pos].topk(3)
        active = expected.values > 0
        assert ours["latent"].tolist() == expected.indices[active].tolist()
        assert ours["activation"].tolist() == pytest.approx(expected.values[active].tolist())
    assert (rows["sae"] == "tiny").all()
    assert (rows["activation"] > 0).all()


def test_token_metrics_are_defined_by_the_corpus_variance(saes: Path, capture: Capture, model: LoadedModel) -> None:
    result = latents.run(capture, latents.Params(), CONTEXT)
    x = capture.resid(2)
    rebuilt, activations = load_sae(read_info(saes / "tiny"), model.facts).reconstruct(x)
    expected = 1 - (x - rebuilt).double().square().sum(dim=1) / 40.0
    tokens = _metrics(result, "token_metrics", "sae_explained_variance")
    assert tokens["value"].tolist() == pytest.approx(expected.tolist())
    l0 = _metrics(result, "token_metrics", "sae_l0")["value"]
    assert l0.tolist() == (activations > 0).sum(dim=1).tolist()
    assert _layer_value(result, "sae_explained_variance@all") == pytest.approx(tokens["value"].mean())
    assert _layer_value(result, "sae_l0@all") == pytest.approx(l0.mean())


def test_explained_variance_equals_an_independent_computation(saes: Path, capture: Capture, model: LoadedModel) -> None:
    result = latents.run(capture, latents.Params(top=64), CONTEXT)
    weights = {k: v.numpy().astype(np.float64) for k, v in load_file(saes / "tiny" / "sae_weights.safetensors").items()}
    x = capture.resid(2).numpy().astype(np.float64)
    rebuilt = np.tile(weights["b_dec"], (len(x), 1))
    rows = result.tables["latents"]
    for pos, latent, activation in zip(rows["pos"], rows["latent"], rows["activation"], strict=True):
        rebuilt[pos] += activation * weights["W_dec"][latent]  # sums of latents rebuild what sae-lens decodes
    by_sae_lens = load_sae(read_info(saes / "tiny"), model.facts).reconstruct(capture.resid(2))[0].numpy()
    assert np.abs(rebuilt - by_sae_lens).max() < 1e-4
    for suffix, kept in (("", capture.masks.no_sink.numpy()), ("@all", np.ones(len(x), dtype=bool))):
        missed, around = (x - rebuilt)[kept], x[kept] - x[kept].mean(axis=0)
        own = 1 - (missed**2).sum() / (around**2).sum()
        corpus = 1 - (missed**2).sum() / (kept.sum() * 40.0)
        assert _layer_value(result, f"sae_explained_variance_own{suffix}") == pytest.approx(own, abs=1e-5)
        assert _layer_value(result, f"sae_explained_variance{suffix}") == pytest.approx(corpus, abs=1e-4)


def test_layer_metrics_with_and_without_sinks(saes: Path, capture: Capture) -> None:
    result = latents.run(capture, latents.Params(), CONTEXT)
    kept = capture.masks.no_sink.numpy()
    assert not kept[0]
    assert (result.tensors["no_sink"].numpy() == kept).all()
    tokens = _metrics(result, "token_metrics", "sae_explained_variance")["value"].to_numpy()
    assert _layer_value(result, "sae_explained_variance") == pytest.approx(tokens[kept].mean())
    assert int(_metrics(result, "layer_metrics", "sae_l0")["n_used"].item()) == kept.sum()
    masked = latents.run(capture, latents.Params(), Context("no_sink", {}, Progress()))
    assert _layer_value(masked, "sae_cosine@all") == _layer_value(result, "sae_cosine")
    assert _layer_value(result, "sae_cosine@all") != _layer_value(result, "sae_cosine")


def test_chunks_do_not_change_the_answer(saes: Path, capture: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = latents.run(capture, latents.Params(), CONTEXT)
    monkeypatch.setattr(latents, "_CHUNK", 7)
    split = latents.run(capture, latents.Params(), CONTEXT)
    pd.testing.assert_frame_equal(whole.tables["latents"], split.tables["latents"], rtol=1e-5)


def test_without_a_corpus_variance_the_value_is_missing_not_replaced(saes: Path, capture: Capture) -> None:
    make(saes / "plain")
    result = latents.run(capture, latents.Params(sae="plain"), CONTEXT)
    for table in ("token_metrics", "layer_metrics"):
        rows = _metrics(result, table, "sae_explained_variance")
        assert rows["value"].isna().all()
        assert set(rows["status"]) == {"not_applicable"}
    assert math.isfinite(_layer_value(result, "sae_explained_variance_own"))
    assert any("brings no corpus variance" in note for note in result.notes)


def test_notes_warn_of_another_model_a_remark_and_a_short_context(saes: Path, capture: Capture) -> None:
    make(saes / "odd", model_name="else", remark="a first one", context_size=16, corpus_variance=40.0)
    assert latents.run(capture, latents.Params(sae="odd"), CONTEXT).notes == (
        "odd was made for else, not for tiny-llama.",
        "SAE odd is a first one.",
        f"SAE odd was trained on 16 tokens at a time; the prompt has {capture.n_tokens}.",
    )


def test_the_key_of_a_run_follows_the_files_of_its_sae(saes: Path) -> None:
    before = dataclasses.asdict(latents.Params())
    effect = dataclasses.asdict(latent_effect.Params())
    edit_weights(saes / "tiny", b_dec=torch.ones(32))
    assert dataclasses.asdict(latents.Params()) != before
    assert dataclasses.asdict(latent_effect.Params()) != effect
    assert latents.Params(sae="none such").content == ""  # a stored run can be opened when its SAE is gone


@pytest.mark.parametrize("bad", [{"sae": ""}, {"sae": 3}, {"top": 0}, {"top": 257}, {"top": True}, {"top": math.nan}])
def test_parameters_out_of_range_are_refused(bad: dict[str, object], empty_home: Path) -> None:
    with pytest.raises(ValueError, match=rf"latents\.{next(iter(bad))} must be"):
        latents.Params(**bad)  # type: ignore[arg-type]


def test_what_cannot_be_used_is_refused_before_the_forward_pass(saes: Path, model: LoadedModel) -> None:
    make(saes / "narrow", d_in=16)
    edit_config(make(saes / "strange"), architecture="temporal")
    for name, error, says in (
        ("none such", BadRequest, "No SAE is called 'none such'"),
        ("narrow", SAEMismatch, "d_in is 16"),
        ("strange", SAEFormatError, "is not supported; it must be one of"),
    ):
        with pytest.raises(error, match=says):
            latents.cost(latents.Params(sae=name), model.facts, 10)
    with pytest.raises(BadRequest, match=r"latent must lie in 0\.\.63 for tiny, not 64"):
        latent_effect.cost(latent_effect.Params(latent=64), model.facts, 10)
    assert latents.cost(latents.Params(), model.facts, 10) > 2 * 64 * 32 * 4


def test_a_model_no_sae_fits_is_told_so(empty_home: Path, model: LoadedModel, capture: Capture) -> None:
    assert latents.compatible(model) == "no installed SAE fits tiny-llama (32 residual dimensions)"
    make(empty_home / "saes" / "foreign", model_name="else")
    assert latents.compatible(model) is None
    assert latents.cost(latents.Params(), model.facts, 10) == 0
    result = latents.run(capture, latents.Params(), CONTEXT)
    assert not result.tables
    assert result.notes == ("No SAE was used: none of those installed was made for tiny-llama.",)


def test_the_effect_of_a_latent_is_of_its_decoder_row(saes: Path, model: LoadedModel, capture: Capture) -> None:
    result = latent_effect.run(capture, latent_effect.Params(latent=7), CONTEXT)
    row = load_sae(read_info(saes / "tiny"), model.facts).decoder[7]
    expected = logit_effect(row, model.norm_weight, model.unembed_matrix().detach())
    assert torch.equal(result.tensors["effect_ids"], torch.stack([expected.promoted, expected.suppressed]))
    assert result.tensors["effect_values"].shape == (2, 10)
    assert (result.tensors["effect_values"][0] > result.tensors["effect_values"][1]).all()
    assert result.tensors["effect_shape"].tolist() == pytest.approx([expected.skewness, expected.excess_kurtosis])
