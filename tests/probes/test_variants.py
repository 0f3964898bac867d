"""Variants: the same network with rounded weights, checked like any model, and the stored one left as it was."""

import json
from pathlib import Path

import pytest
import torch

from analysis.quantise import quantise
from probes.errors import BadRequest, ModelRefused
from probes.model.catalog import EMBEDDED, base_name, find
from probes.model.load import from_memory
from probes.model.loaded import LoadedModel
from probes.model.shelf import Shelf
from probes.model.sites import linear_weight
from probes.model.tokenise import text_ids
from probes.model.variants import Change, variant_label
from probes.progress import Progress
from probes.saes.folder import read_info
from probes.saes.loading import choose, load_sae
from tests import tiny
from tests.tiny_saes import make

KINDS = ("llama", "gpt2", "neox")  # nn.Linear; Conv1D with joint qkv; nn.Linear with joint qkv


@pytest.fixture
def models(empty_home: Path) -> Path:
    for kind in KINDS:
        tiny.save(empty_home / "models" / kind)
    return empty_home / "models"


def weights(model: LoadedModel) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.hf.named_parameters()}


@torch.no_grad()
def logits(model: LoadedModel) -> tuple[torch.Tensor, torch.Tensor]:
    """Of the plain module and of the bridge."""
    ids = torch.tensor([text_ids(model, tiny.TEXT)])
    return model.hf(input_ids=ids).logits[0], model.bridge(ids, return_type="logits")[0]


@pytest.mark.parametrize("kind", KINDS)
def test_int4_passes_the_self_check_and_leaves_the_base_untouched(kind: str, models: Path) -> None:
    shelf = Shelf(2)
    base = shelf.get(kind)
    before, said = weights(base), logits(base)
    variant = shelf.get(f"{kind}@int4")
    assert all(check.passed for check in variant.health)
    assert shelf.get(kind) is base
    assert all(torch.equal(before[name], now) for name, now in weights(base).items())
    assert all(torch.equal(old, new) for old, new in zip(said, logits(base), strict=True))
    plain, bridged = logits(variant)
    assert (plain - said[0]).abs().max() > 0.01
    torch.testing.assert_close(bridged, plain, rtol=1e-3, atol=1e-3)
    assert variant.facts.fingerprint != base.facts.fingerprint
    assert variant.facts.name == f"{kind}@int4"


@pytest.mark.parametrize("kind", KINDS)
def test_only_the_linear_maps_of_the_blocks_are_quantised(kind: str, models: Path) -> None:
    base, variant = Shelf().get(kind), Shelf().get(f"{kind}@int8")
    inside = {id(module) for block in base.sites.blocks for module in block.matrices.values()}
    names = {f"{name}.weight" for name, module in base.hf.named_modules() if id(module) in inside}
    old, new = weights(base), weights(variant)
    assert {name for name in old if not torch.equal(old[name], new[name])} == names
    for theirs, ours in zip(base.sites.blocks, variant.sites.blocks, strict=True):
        for role, module in theirs.matrices.items():
            expected = quantise(linear_weight(module), 8).values
            assert torch.equal(linear_weight(ours.matrices[role]), expected)


@pytest.mark.parametrize(("variant", "dtype"), [("bf16", torch.bfloat16), ("fp16", torch.float16)])
def test_shorter_floats_round_every_parameter_and_compute_in_float32(
    variant: str, dtype: torch.dtype, models: Path
) -> None:
    base, made = Shelf().get("llama"), Shelf().get(f"llama@{variant}")
    new = weights(made)
    assert all(torch.equal(new[name], old.to(dtype).float()) for name, old in weights(base).items())
    assert made.facts.dtype == "float32"


def test_the_label_says_what_was_done_and_the_measured_error(models: Path) -> None:
    model = Shelf().get("llama@int4")
    assert model.facts.weights.startswith("int4 per output channel, weight error ")
    base = Shelf().get("llama")
    maps = [linear_weight(module) for block in base.sites.blocks for module in block.matrices.values()]
    lost = sum(float((quantise(weight, 4).values - weight).double().square().sum()) for weight in maps)
    error = (lost / sum(float(weight.double().square().sum()) for weight in maps)) ** 0.5
    worst = max(quantise(weight, 4).error for weight in maps)
    assert model.facts.weights.endswith(f"weight error {100 * error:.3g} % (worst matrix {100 * worst:.3g} %)")


@pytest.mark.parametrize(
    ("stored", "variant", "label"),
    [
        (None, "int4", "int4 per output channel, weight error 11.2 % (worst matrix 14 %)"),
        ("bfloat16", "int8", "bfloat16; int8 per output channel, weight error 11.2 % (worst matrix 14 %)"),
        (
            "Q4_1, dequantised",
            "int4",
            "Q4_1, dequantised; re-quantised to int4 per output channel, weight error 11.2 %",
        ),
        ("GPTQ 4 bit", "int8", "GPTQ 4 bit; re-quantised to int8"),
        ("Q4_1, dequantised", "bf16", "Q4_1, dequantised; rounded to bfloat16, weight error 11.2 %"),
    ],
)
def test_weights_that_were_quantised_already_are_called_requantised(
    stored: str | None, variant: str, label: str
) -> None:
    assert variant_label(stored, variant, Change(0.112, 0.14, "block 0 attn.q")).startswith(label)


def test_a_label_beside_the_weights_is_kept(models: Path) -> None:
    (models / "llama" / "eigenscope.json").write_text(json.dumps({"weights": "Q4_1, dequantised", "source": "test"}))
    assert Shelf().get("llama@int4").facts.weights.startswith("Q4_1, dequantised; re-quantised to int4")


def test_names_with_a_variant(models: Path, tmp_path: Path) -> None:
    assert find("EleutherAI/pythia-70m-deduped@fp16", allow_paths=False).hub_id == "EleutherAI/pythia-70m-deduped"
    folder = tiny.save(tmp_path / "else@where")
    assert find(str(folder), allow_paths=True).variant is None
    found = find(f"{folder}@bf16", allow_paths=True)
    assert (found.folder, found.name, found.variant) == (folder, "else@where@bf16", "bf16")
    assert [base_name(name) for name in ("llama@int4", "llama", "llama@other")] == ["llama", "llama", "llama@other"]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("llama@int2", "There is no variant 'int2': after the @ stands one of int8, int4, bf16, fp16."),
        ("llama@", "There is no variant ''"),
        ("llama@int4@int4", "names two variants"),
        ("nope@int4", "No model is called 'nope'"),
        ("/nowhere@int4", "command line only"),
    ],
)
def test_names_that_mean_nothing_are_refused(name: str, says: str, models: Path) -> None:
    with pytest.raises(BadRequest, match=says.replace("(", r"\(")):
        Shelf().get(name)


def test_a_variant_computes_in_float32_only(models: Path) -> None:
    with pytest.raises(BadRequest, match="llama@int4 rounds weights and computes in float32"):
        Shelf().get("llama@int4", dtype="bfloat16")


def test_a_weight_beyond_the_type_is_refused() -> None:
    hf = tiny.module("llama")
    with torch.no_grad():
        hf.model.layers[1].mlp.up_proj.weight[0, 0] = 1e6
    with pytest.raises(ModelRefused, match=r"big@fp16 cannot be made: in .*up_proj.weight the largest weight, 1e\+06"):
        from_memory(hf, tiny.tokenizer(), "big@fp16", None, Progress(), "fp16")


def test_an_sae_of_the_base_model_reads_the_variant_and_says_so(models: Path) -> None:
    info = read_info(make(models.parent / "saes" / "mine", model_name="tiny/llama"))
    facts = Shelf().get("llama@int4").facts
    assert choose("auto", facts).name == "mine"
    assert load_sae(info, facts).notes == ("mine was trained on the weights of llama, not on those of llama@int4.",)
    assert load_sae(info, Shelf().get("llama").facts).notes == ()


def test_the_shelf_makes_room_before_it_loads(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import weakref

    shelf = Shelf(2)
    first = weakref.ref(shelf.get("llama"))
    shelf.get("gpt2")
    alive: list[bool] = []

    def seen(*arguments: object) -> LoadedModel:
        alive.append(first() is not None)
        return tiny.loaded("neox")

    monkeypatch.setattr("probes.model.shelf.load", seen)
    shelf.get("neox@int4")
    assert alive == [False]


def test_the_embedded_model_in_int4(linked_home: Path) -> None:
    model = Shelf().get(f"{EMBEDDED}@int4")
    assert model.facts.weights == (
        "Q4_1, dequantised; re-quantised to int4 per output channel, weight error 15.4 % (worst matrix 21.1 %)"
    )
    assert all(check.passed for check in model.health)
