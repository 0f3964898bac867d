"""SAE folders: what is read from them, equal activations to sae-lens, and what is refused in which words."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from probes.errors import BadRequest
from probes.model.loaded import LoadedModel, ModelFacts
from probes.saes.folder import CONFIG, WEIGHTS, SAEFormatError, content_digest, installed_saes, point_of_hook, read_info
from probes.saes.folder import sae_lens as library
from probes.saes.loading import SAEMismatch, choose, load_sae
from tests.tiny import loaded
from tests.tiny_saes import edit_config, edit_weights, make

ARCHITECTURES = ("standard", "topk", "jumprelu", "gated")


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    return loaded("llama")


@pytest.fixture
def facts(model: LoadedModel) -> ModelFacts:
    return model.facts


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_each_architecture_encodes_as_its_written_formula(architecture: str, tmp_path: Path, facts: ModelFacts) -> None:
    sae = load_sae(read_info(make(tmp_path / architecture, architecture)), facts)
    w = {name: parameter.double() for name, parameter in sae.module.named_parameters()}
    x = torch.randn(40, 32, generator=torch.Generator().manual_seed(1))
    centred = x.double() - w["b_dec"]
    if architecture == "gated":
        gate = centred @ w["W_enc"] + w["b_gate"] > 0
        expected = gate * torch.relu(centred @ (w["W_enc"] * w["r_mag"].exp()) + w["b_mag"])
    else:
        pre = centred @ w["W_enc"] + w["b_enc"]
        expected = torch.relu(pre)
        if architecture == "topk":
            expected = expected * (pre >= pre.topk(5, dim=1).values[:, -1:])
        if architecture == "jumprelu":
            expected = expected * (pre > w["threshold"])
    rebuilt, activations = sae.reconstruct(x)
    assert (activations - expected).abs().max() <= 1e-5
    assert (rebuilt - (expected @ w["W_dec"] + w["b_dec"])).abs().max() <= 1e-5
    assert sae.notes == ()


def test_half_precision_is_loaded_as_float32(tmp_path: Path, facts: ModelFacts) -> None:
    folder = make(tmp_path / "half")
    edit_config(folder, dtype="float16")
    weights = {name: value.half() for name, value in library().SAE.load_from_disk(folder).state_dict().items()}
    edit_weights(folder, **weights)
    sae = load_sae(read_info(folder), facts)
    assert sae.info.stored_dtype == "float16"
    assert sae.decoder.dtype == torch.float32
    assert torch.equal(sae.decoder, weights["W_dec"].float())


def test_a_folder_of_an_older_sae_lens_is_read(tmp_path: Path) -> None:
    folder = make(tmp_path / "old")
    older = {
        "hook_point": "blocks.0.hook_resid_pre",
        "model_name": "tiny-llama",
        "d_in": 32,
        "d_sae": 64,
        "activation_fn_str": "topk",
        "activation_fn_kwargs": {"k": 7},
        "dtype": "float32",
    }
    (folder / CONFIG).write_text(json.dumps(older))
    info = read_info(folder)
    assert (info.architecture, info.k, info.point, info.model_name) == ("topk", 7, 0, "tiny-llama")
    assert info.corpus_variance is None


@pytest.mark.parametrize(
    ("hook", "point"),
    [("blocks.15.hook_resid_post", 16), ("blocks.0.hook_resid_pre", 0), ("blocks.3.hook_resid_pre", 3)],
)
def test_hooks_become_points(hook: str, point: int) -> None:
    assert point_of_hook(hook) == point


def test_another_models_sae_is_a_warning_not_a_refusal(tmp_path: Path, facts: ModelFacts) -> None:
    info = read_info(make(tmp_path / "other", model_name="someone/else"))
    assert load_sae(info, facts).notes == ("other was made for someone/else, not for tiny-llama.",)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"architecture": "temporal"}, "architecture must be one of standard, topk, jumprelu, gated, not 'temporal'"),
        ({"architecture": "transcoder"}, "not 'transcoder'"),
        ({"metadata": {"hook_name": "blocks.1.hook_mlp_out"}}, "not 'blocks.1.hook_mlp_out'"),
        ({"metadata": {"hook_name": None}}, "hook_name must be"),
        ({"d_in": None}, "d_in must be a whole number"),
        ({"d_sae": "64"}, "d_sae must be a whole number"),
        ({"k": 65}, "k must be a whole number in 1..64, not 65"),
        ({"normalize_activations": "expected_average_only_in"}, "statistics are not in the folder"),
        ({"metadata": {"corpus_variance": float("nan")}}, "corpus_variance must be a finite number above 0"),
        ({"metadata": {"sae_lens_version": "next"}}, "cannot be read"),
    ],
)
def test_bad_configurations_are_refused_by_key(changes: dict[str, object], says: str, tmp_path: Path) -> None:
    folder = edit_config(make(tmp_path / "bad"), **changes)
    with pytest.raises(SAEFormatError, match=says):
        read_info(folder)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"W_enc": torch.full((32, 64), torch.nan)}, "W_enc holds values that are not finite"),
        ({"b_dec": torch.full((32,), torch.inf)}, "b_dec holds values that are not finite"),
        ({"W_dec": None}, "has no W_dec, which a topk SAE needs"),
        ({"W_dec": torch.zeros(32, 64)}, r"W_dec must have the shape \[64, 32\], not \[32, 64\]"),
        ({"more": torch.zeros(2)}, "sae-lens cannot load it"),
    ],
)
def test_bad_weights_are_refused_by_key(
    changes: dict[str, torch.Tensor | None], says: str, tmp_path: Path, facts: ModelFacts
) -> None:
    info = read_info(edit_weights(make(tmp_path / "bad"), **changes))
    with pytest.raises(SAEFormatError, match=says):
        load_sae(info, facts)


def test_damaged_files_are_refused(tmp_path: Path, facts: ModelFacts) -> None:
    info = read_info(make(tmp_path / "bad"))
    (tmp_path / "bad" / WEIGHTS).write_bytes(b"not a tensor file")
    with pytest.raises(SAEFormatError, match="is damaged"):
        load_sae(info, facts)
    for text in ("{", "[]", '{"metadata": 3}', "[" * 100_000):
        (tmp_path / "bad" / CONFIG).write_text(text)
        with pytest.raises(SAEFormatError, match="JSON"):
            read_info(tmp_path / "bad")


def test_pickled_weights_are_never_opened(tmp_path: Path) -> None:
    folder = make(tmp_path / "pickled")
    (folder / WEIGHTS).rename(folder / "ae.pt")
    with pytest.raises(SAEFormatError, match=r"ae\.pt, which can run code and is never opened"):
        read_info(folder)


def test_wrong_width_and_missing_layer_do_not_fit(tmp_path: Path, facts: ModelFacts) -> None:
    with pytest.raises(SAEMismatch, match="d_in is 16, but tiny-llama has 32 residual dimensions"):
        load_sae(read_info(make(tmp_path / "narrow", d_in=16)), facts)
    with pytest.raises(SAEMismatch, match=r"point 4, but tiny-llama has points 0\.\.3"):
        load_sae(read_info(make(tmp_path / "deep", hook="blocks.3.hook_resid_post")), facts)


def test_installed_saes_are_listed_with_their_problems(empty_home: Path, facts: ModelFacts) -> None:
    make(empty_home / "saes" / "good")
    edit_config(make(empty_home / "saes" / "odd"), architecture="temporal")
    found = {sae.name: sae for sae in installed_saes()}
    assert found["good"].info is not None
    assert not found["good"].info.shipped
    assert found["odd"].info is None
    assert "temporal" in str(found["odd"].problem)
    assert choose("auto", facts).name == "good"
    assert choose("good", facts).name == "good"
    with pytest.raises(SAEFormatError, match="temporal"):
        choose("odd", facts)
    with pytest.raises(BadRequest, match="No SAE is called 'none such'; installed are good, odd"):
        choose("none such", facts)
    with pytest.raises(BadRequest, match="No installed SAE was made for stranger"):
        choose("auto", replace(facts, name="stranger"))


def test_the_digest_follows_the_files(tmp_path: Path) -> None:
    folder = make(tmp_path / "sae")
    before = content_digest(folder)
    assert content_digest(folder) == before
    edit_weights(folder, b_dec=torch.ones(32))
    assert content_digest(folder) != before
