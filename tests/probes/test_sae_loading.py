"""SAE folders: what is read from them, equal activations to sae-lens, and what is refused in which words."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from probes.errors import BadRequest
from probes.model.loaded import LoadedModel, ModelFacts
from probes.saes.folder import CONFIG, WEIGHTS, SAEFormatError, content_digest, installed_saes, point_of_hook, read_info
from probes.saes.folder import sae_lens as library
from probes.saes.loading import SAEMismatch, choose, load_sae, misfit, open_sae
from tests.tiny import loaded
from tests.tiny_saes import edit_config, edit_weights, identity, make, zero

ARCHITECTURES = ("standard", "topk", "jumprelu", "gated")
TRANSCODERS = ("transcoder", "skip_transcoder", "jumprelu_transcoder", "jumprelu_skip_transcoder")
NORMALISATIONS = ("none", "constant_norm_rescale", "layer_norm")


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    return loaded("llama")


@pytest.fixture
def facts(model: LoadedModel) -> ModelFacts:
    return model.facts


def states(n: int = 40, d: int = 32, seed: int = 1) -> torch.Tensor:
    return 3 * torch.randn(n, d, generator=torch.Generator().manual_seed(seed)) + 1


def written_formula(
    architecture: str, x: torch.Tensor, w: dict[str, torch.Tensor], normalisation: str, rescaled: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """Activations and reconstruction by methods 7.1, in plain float64 torch."""
    shift, scale = torch.zeros(len(x), 1).double(), torch.ones(len(x), 1).double()
    if normalisation == "constant_norm_rescale":
        scale = (x**2).sum(dim=1, keepdim=True).sqrt() / x.shape[1] ** 0.5
    if normalisation == "layer_norm":
        shift = x.sum(dim=1, keepdim=True) / x.shape[1]
        scale = (((x - shift) ** 2).sum(dim=1, keepdim=True) / (x.shape[1] - 1)).sqrt()
    transcodes = "transcoder" in architecture
    normed = (x - shift) / (scale + 1e-5 * (normalisation == "layer_norm"))
    read = normed if transcodes else normed - w["b_dec"]
    norms = (w["W_dec"] ** 2).sum(dim=1).sqrt() if rescaled else torch.ones(len(w["W_dec"])).double()
    if architecture == "gated":
        gate = (read @ w["W_enc"] + w["b_gate"] > 0).double()
        f = gate * (read @ w["W_enc"] * w["r_mag"].exp() + w["b_mag"]).clamp(min=0)
    else:
        pre = (read @ w["W_enc"] + w["b_enc"]) * norms
        f = pre.clamp(min=0)
        if architecture == "topk":
            f = f * (pre >= pre.sort(dim=1, descending=True).values[:, 4:5])
        if "jumprelu" in architecture:
            f = f * (pre > w["threshold"])
    rebuilt = (f / norms) @ w["W_dec"] + w["b_dec"]
    if not transcodes:
        rebuilt = rebuilt * scale + shift
    if "skip" in architecture:
        rebuilt = rebuilt + x @ w["W_skip"].T
    return f, rebuilt


def stored(folder: Path) -> dict[str, torch.Tensor]:
    return {name: value.double() for name, value in load_file(folder / WEIGHTS).items()}


@pytest.mark.parametrize("normalisation", NORMALISATIONS)
@pytest.mark.parametrize("architecture", [*ARCHITECTURES, *TRANSCODERS])
def test_each_architecture_encodes_and_decodes_as_its_written_formula(
    architecture: str, normalisation: str, tmp_path: Path
) -> None:
    folder = edit_config(make(tmp_path / "sae", architecture), normalize_activations=normalisation)
    sae = open_sae(read_info(folder))
    x = states()
    f, expected = written_formula(architecture, x.double(), stored(folder), normalisation)
    rebuilt, activations = sae.reconstruct(x)
    assert (f > 0).any()
    assert (f == 0).any()
    assert (activations - f).abs().max() <= 1e-5
    assert (rebuilt - expected).abs().max() <= 1e-5 * max(1.0, expected.abs().max().item())
    assert torch.equal(sae.encode(x), activations)
    assert torch.equal(sae.module(x) if sae.info.d_out else rebuilt, rebuilt)  # what sae-lens itself gives whole
    assert sae.encoder.shape == (64, 32)
    assert sae.info.normalisation == normalisation


def test_activations_in_units_of_their_contribution(tmp_path: Path) -> None:
    folder = edit_config(make(tmp_path / "sae", "topk"), rescale_acts_by_decoder_norm=True)
    sae, x = open_sae(read_info(folder)), states()
    f, expected = written_formula("topk", x.double(), stored(folder), "none", rescaled=True)
    rebuilt, activations = sae.reconstruct(x)
    assert (activations - f).abs().max() <= 1e-5
    assert (rebuilt - expected).abs().max() <= 1e-5
    assert (sae.decoder.norm(dim=1) - 1).abs().max() <= 1e-5
    assert (activations @ sae.decoder + sae.module.b_dec - rebuilt).abs().max() <= 1e-5


def test_b_dec_may_stay_on_the_input(tmp_path: Path) -> None:
    folder = edit_config(make(tmp_path / "sae", "standard"), apply_b_dec_to_input=False)
    w, x = stored(folder), states()
    expected = (x.double() @ w["W_enc"] + w["b_enc"]).clamp(min=0)
    assert (open_sae(read_info(folder)).encode(x) - expected).abs().max() <= 1e-5


@pytest.mark.parametrize("training", ["BatchTopKTrainingSAE", "MatryoshkaBatchTopKTrainingSAE"])
def test_batch_topk_and_matryoshka_are_saved_as_jumprelu(training: str, tmp_path: Path) -> None:
    lens = library()
    more = {"matryoshka_widths": [16, 64]} if "Matryoshka" in training else {}
    config = getattr(lens, f"{training}Config")(d_in=32, d_sae=64, k=4, **more)
    module = getattr(lens, training)(config)
    module.topk_threshold.fill_(0.7)
    module.cfg.metadata.hook_name = "blocks.1.hook_resid_post"
    module.save_inference_model(tmp_path / "sae")
    info = read_info(tmp_path / "sae")
    w, x = stored(tmp_path / "sae"), states()
    assert info.architecture == "jumprelu"
    assert (w["threshold"] - w["threshold"][0]).abs().max() == 0
    f, _ = written_formula("jumprelu", x.double(), w, "none")
    assert (open_sae(info).encode(x) - f).abs().max() <= 1e-5
    module.save_model(tmp_path / "unfinished")
    with pytest.raises(SAEFormatError, match=r"is a form for training: save it for inference, which makes it jumprelu"):
        read_info(tmp_path / "unfinished")


def test_the_identity_rebuilds_every_state_and_zero_none(tmp_path: Path, facts: ModelFacts) -> None:
    x = states()
    rebuilt, activations = load_sae(read_info(identity(tmp_path / "identity")), facts).reconstruct(x)
    assert torch.equal(rebuilt, x)
    assert int((activations > 0).sum()) == x.numel()
    rebuilt, activations = load_sae(read_info(zero(tmp_path / "zero")), facts).reconstruct(x)
    assert not rebuilt.any()
    assert not activations.any()


def test_a_transcoder_is_listed_and_loads_but_cannot_be_read_on_a_run(tmp_path: Path, facts: ModelFacts) -> None:
    info = read_info(make(tmp_path / "coder", "transcoder"))
    assert (info.hook_name, info.hook_name_out) == ("blocks.1.ln2.hook_normalized", "blocks.1.hook_mlp_out")
    assert (info.point, info.d_out) == (2, 40)
    assert open_sae(info).reconstruct(states())[0].shape == (40, 40)
    says = "coder can be loaded but not be read on a run yet: it reads the input of the MLP"
    assert str(misfit(info, facts)).startswith(says)
    with pytest.raises(SAEMismatch, match=says):
        load_sae(info, facts)
    for hook in ("blocks.1.hook_mlp_out", "blocks.0.attn.hook_z"):
        other = read_info(edit_config(make(tmp_path / hook), metadata={"hook_name": hook}))
        assert f"another site than the residual stream ({hook})" in str(other.unreadable)


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
    [
        ("blocks.15.hook_resid_post", 16),
        ("blocks.0.hook_resid_pre", 0),
        ("blocks.3.hook_resid_pre", 3),
        ("blocks.3.hook_mlp_out", 4),
    ],
)
def test_hooks_become_points(hook: str, point: int) -> None:
    assert point_of_hook(hook) == point


def test_another_models_sae_is_a_warning_not_a_refusal(tmp_path: Path, facts: ModelFacts) -> None:
    info = read_info(make(tmp_path / "other", model_name="someone/else"))
    assert load_sae(info, facts).notes == ("other was made for someone/else, not for tiny-llama.",)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (
            {"architecture": "temporal"},
            "the architecture 'temporal' is not supported; it must be one of standard, topk",
        ),
        ({"architecture": "matching_pursuit"}, "'matching_pursuit' is not supported"),
        ({"architecture": ["topk"]}, "is not supported"),
        ({"architecture": "transcoder"}, "apply_b_dec_to_input must be false for a transcoder"),
        ({"activation_fn_str": "tanh-relu"}, "the activation function 'tanh-relu' is not supported"),
        ({"metadata": {"hook_name": "hook_embed"}}, "must be a hook of a block such as .*, not 'hook_embed'"),
        ({"metadata": {"hook_name": None}}, "hook_name must be"),
        ({"d_in": None}, "d_in must be a whole number"),
        ({"d_sae": "64"}, "d_sae must be a whole number"),
        ({"k": 65}, "k must be a whole number in 1..64, not 65"),
        ({"normalize_activations": "expected_average_only_in"}, "statistics are not in the folder; fold them into"),
        ({"normalize_activations": "batch"}, "must be one of none, constant_norm_rescale, layer_norm, not 'batch'"),
        ({"metadata": {"corpus_variance": -1.0}}, "corpus_variance must be a finite number above 0"),
        ({"metadata": {"corpus_variance": float("nan")}}, "no valid JSON: NaN is no number of JSON"),
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
        ({"W_dec": None}, "has no W_dec, which an SAE of this kind needs"),
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
