"""Models that load, and models that must not: each refusal is one sentence with the reason."""

import json
import pickle
import threading
from pathlib import Path

import pytest
import torch

from probes.errors import BadRequest, ModelRefused
from probes.model.attention import attend
from probes.model.catalog import find, installed
from probes.model.health import check_health
from probes.model.load import load
from probes.model.shelf import Shelf
from probes.progress import Progress
from tests import tiny


@pytest.fixture
def models(empty_home: Path) -> Path:
    folder = empty_home / "models"
    folder.mkdir(parents=True)
    return folder


def refusal(name: str) -> str:
    with pytest.raises(ModelRefused) as refused:
        Shelf().get(name)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_an_installed_folder_is_found_by_name_and_keeps_its_label(models: Path) -> None:
    tiny.save(models / "mine")
    (models / "mine" / "eigenscope.json").write_text(json.dumps({"weights": "Q4_1, dequantised", "source": "test"}))
    assert list(installed()) == ["mine"]
    model = Shelf().get("mine")
    assert (model.facts.name, model.facts.weights) == ("mine", "Q4_1, dequantised")
    assert all(check.passed for check in model.health)


def test_further_folders_come_from_the_environment(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny.save(tmp_path / "more" / "other")
    monkeypatch.setenv("EIGENSCOPE_MODEL_DIRS", str(tmp_path / "more"))
    assert list(installed()) == ["other"]


def test_paths_are_for_the_command_line_only(models: Path, tmp_path: Path) -> None:
    folder = tiny.save(tmp_path / "elsewhere")
    assert find(str(folder), allow_paths=True).folder == folder
    with pytest.raises(BadRequest, match="command line only"):
        find(str(folder), allow_paths=False)


@pytest.mark.parametrize(
    "name", ["nope", "../models", "a/b/c", "a b/c", "-x/y", "<script>alert(1)</script>", "", "x" * 500]
)
def test_unknown_names_are_refused_without_a_look_at_the_hub(models: Path, name: str) -> None:
    with pytest.raises(BadRequest, match="No model is called") as refused:
        find(name, allow_paths=True)
    assert len(str(refused.value)) < 400


def test_two_faces_share_every_parameter() -> None:
    model = tiny.loaded("llama")
    theirs = {parameter.data_ptr() for parameter in model.bridge.parameters()}
    assert {parameter.data_ptr() for parameter in model.hf.parameters()} <= theirs


def test_the_fingerprint_is_of_numbers_not_of_names(models: Path) -> None:
    tiny.save(models / "one")
    tiny.save(models / "two")
    first, second = Shelf().get("one").facts, Shelf().get("two").facts
    assert first.fingerprint == second.fingerprint
    model = Shelf().get("one")
    with torch.no_grad():
        model.hf.model.embed_tokens.weight[0, 0] += 1
    from probes.model.load import from_memory

    assert from_memory(model.hf, model.tokenizer, "three", None, Progress()).facts.fingerprint != first.fingerprint


def test_weights_that_can_run_code_are_never_opened(models: Path, tmp_path: Path) -> None:
    folder = tiny.save(models / "bomb")
    (folder / "model.safetensors").unlink()

    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path.touch, (tmp_path / "exploded",))  # type: ignore[return-value]

    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb()))
    assert "safetensors" in refusal("bomb")
    assert not (tmp_path / "exploded").exists()


def test_damaged_and_incomplete_folders_say_what_is_wrong(models: Path) -> None:
    folder = tiny.save(models / "cut")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    assert "could not be loaded" in refusal("cut")
    folder = tiny.save(models / "mute")
    for file in folder.glob("token*"):
        file.unlink()
    assert "could not be loaded" in refusal("mute")
    folder = tiny.save(models / "odd")
    (folder / "config.json").write_text("{")
    assert "could not be loaded" in refusal("odd")


def test_a_tokenizer_larger_than_the_embedding_is_refused(models: Path) -> None:
    tiny.save(models / "small", vocab_size=100)
    assert "embeds only 100" in refusal("small")


def test_a_nan_weight_is_refused_by_the_self_check(models: Path) -> None:
    hf = tiny.module("llama")
    with torch.no_grad():
        hf.model.layers[1].mlp.up_proj.weight[0, 0] = float("nan")
    hf.save_pretrained(models / "nan")
    tiny.tokenizer().save_pretrained(models / "nan")
    assert "NaN or infinite" in refusal("nan")


def test_the_self_check_notices_attention_that_is_slightly_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny.loaded("llama")
    assert all(check.passed for check in check_health(model))

    def wrong(module, query, key, value, mask, scaling=None, **more):
        return attend(module, query, key, value, mask, scaling * 1.01, **more)

    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    monkeypatch.setitem(ALL_ATTENTION_FUNCTIONS._global_mapping, "eigenscope", wrong)
    failed = {check.name for check in check_health(model) if not check.passed}
    assert {"logits", "residual points"} <= failed


@pytest.mark.parametrize(("dtype", "device"), [("int8", "cpu"), ("float32", "tpu")])
def test_unknown_dtype_or_device_is_bad_input(models: Path, dtype: str, device: str) -> None:
    tiny.save(models / "mine")
    with pytest.raises(BadRequest, match="must be"):
        load(installed()["mine"], dtype, device, Progress())


def test_half_precision_loads_and_says_so(models: Path) -> None:
    tiny.save(models / "mine")
    model = Shelf().get("mine", "bfloat16")
    assert (model.facts.dtype, model.facts.weights) == ("bfloat16", "bfloat16")


def test_the_shelf_holds_one_model_and_loads_it_once(models: Path) -> None:
    for name in ("one", "two"):
        tiny.save(models / name)
    shelf = Shelf(max_models=1)
    first = shelf.get("one")
    assert shelf.get("one") is first
    shelf.get("two")
    assert shelf.loaded("one") is None
    assert shelf.loaded("two") is not None


def test_a_model_in_memory_is_had_while_another_loads(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("one", "two"):
        tiny.save(models / name)
    shelf = Shelf(max_models=2)
    first = shelf.get("one")
    begun, go_on = threading.Event(), threading.Event()

    def slow(*arguments: object) -> object:
        begun.set()
        assert go_on.wait(60)
        return load(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr("probes.model.shelf.load", slow)
    other = threading.Thread(target=shelf.get, args=("two",))
    other.start()
    try:
        assert begun.wait(60)
        held: list[object] = []
        asking = threading.Thread(
            target=lambda: held.extend((shelf.get("one"), shelf.loaded("one"), shelf.loaded("two")))
        )
        asking.start()
        asking.join(10)
        assert held == [first, first, None]
    finally:
        go_on.set()
        other.join(60)
    assert shelf.loaded("two") is not None
