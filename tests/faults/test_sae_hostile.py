"""SAE folders made to harm or damaged on the way: each is refused in one sentence, and the others stay usable."""

import json
import pickle
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from probes.errors import BadRequest
from probes.model.loaded import LoadedModel
from probes.saes.config import CONFIG, WEIGHTS, SAEFormatError
from probes.saes.folder import content_digest, installed_saes, read_info, saes_folder
from probes.saes.install import add_folder
from probes.saes.loading import choose, load_sae, open_sae
from tests.tiny import loaded
from tests.tiny_saes import edit_config, edit_weights, make

FIRED = "fired"


class Bomb:
    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.place,)


def pickled_under_the_name_of_safetensors(folder: Path) -> None:
    (folder / WEIGHTS).write_bytes(pickle.dumps(Bomb(folder.parent / FIRED)))


def torch_archive_under_the_name_of_safetensors(folder: Path) -> None:
    torch.save({"W_enc": torch.zeros(2), "bomb": Bomb(folder.parent / FIRED)}, folder / WEIGHTS)


def only_pickled(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    (folder / "ae.pt").write_bytes(pickle.dumps(Bomb(folder.parent / FIRED)))


def pickled_with_a_hostile_name(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    (folder / "\x1b[31m.bin").write_bytes(b"x")


def truncated(folder: Path) -> None:
    whole = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(whole[: len(whole) // 2])


def empty(folder: Path) -> None:
    (folder / WEIGHTS).write_bytes(b"")


def huge_header(folder: Path) -> None:
    (folder / WEIGHTS).write_bytes(struct.pack("<Q", 1 << 40) + b"{}")


def header_of_other_offsets(folder: Path) -> None:
    head = json.dumps({"W_enc": {"dtype": "F32", "shape": [32, 64], "data_offsets": [0, 1 << 40]}}).encode()
    (folder / WEIGHTS).write_bytes(struct.pack("<Q", len(head)) + head + bytes(64))


def integers(folder: Path) -> None:
    edit_weights(folder, W_enc=torch.ones(32, 64, dtype=torch.int64))


def too_large_for_float32(folder: Path) -> None:
    edit_weights(folder, b_enc=torch.full((64,), 1e300, dtype=torch.float64))


def swapped(folder: Path) -> None:
    weights = load_file(folder / WEIGHTS)
    edit_weights(folder, W_enc=weights["W_dec"].clone(), W_dec=weights["W_enc"].clone())


def config_of_text(text: str | bytes) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / CONFIG).write_bytes(text if isinstance(text, bytes) else text.encode())

    write.__name__ = f"config {text[:12]!r} of {len(text)}"
    return write


def config_outside(folder: Path) -> None:
    (folder.parent / "outside.json").write_text((folder / CONFIG).read_text())
    (folder / CONFIG).unlink()
    (folder / CONFIG).symlink_to(folder.parent / "outside.json")


def weights_outside(folder: Path) -> None:
    (folder / WEIGHTS).rename(folder.parent / "outside.safetensors")
    (folder / WEIGHTS).symlink_to("../outside.safetensors")


def larger_than_it_is(folder: Path) -> None:
    edit_config(folder, d_sae=2**31)


def config_with(**changes: Any) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        edit_config(folder, **changes)

    write.__name__ = f"config with {changes}"
    return write


FAULTS: list[tuple[Callable[[Path], None], str]] = [
    (pickled_under_the_name_of_safetensors, "is damaged"),
    (torch_archive_under_the_name_of_safetensors, "is damaged"),
    (only_pickled, "ae.pt, which can run code and is never opened"),
    (pickled_with_a_hostile_name, "pickled weights, which can run code"),
    (truncated, "is damaged"),
    (empty, "is damaged"),
    (huge_header, "is damaged"),
    (header_of_other_offsets, "is damaged"),
    (integers, "W_enc must be of a floating type, not I64"),
    (too_large_for_float32, "b_enc holds values that are not finite in float32"),
    (swapped, "must have the shape"),
    (larger_than_it_is, "must have the shape"),
    (config_outside, "cfg.json is a link that leads out of the folder"),
    (weights_outside, "sae_weights.safetensors is a link that leads out of the folder"),
    (config_of_text("no json"), "is no valid JSON"),
    (config_of_text(b"\xff\xfe\x00"), "is no valid JSON"),
    (config_of_text('{"d_in": NaN}'), "NaN is no number of JSON"),
    (config_of_text('{"d_in": -Infinity}'), "-Infinity is no number of JSON"),
    (config_of_text('{"metadata": ' + "[" * 200_000), "is no valid JSON"),
    (config_of_text('{"metadata": ' * 100_000), "bytes; a configuration has at most 1,048,576"),
    (config_of_text("[1, 2]"), "must be a JSON object"),
    (config_of_text(" " * (100 << 20)), "has 104,857,600 bytes; a configuration has at most"),
    (config_with(architecture="\x1b[31mred"), "is not supported"),
    (config_with(d_sae="\x1b]0;title\x07"), "d_sae must be a whole number"),
    (config_with(d_in=True), "d_in must be a whole number"),
    (config_with(d_sae=10**30), "d_sae must be a whole number"),
    (config_with(normalize_activations={"a": "\x1b"}), "normalize_activations must be one of"),
    (config_with(metadata={"hook_name": "blocks.1.hook_resid_post\x1b[2J"}), "must be a hook of a block"),
    (config_with(metadata={"hook_name": "blocks.99999999999999.hook_resid_post"}), "must be a hook of a block"),
    (config_with(metadata={"context_size": -3}), "context_size must be a whole number"),
    (config_with(metadata={"sae_lens_version": "\x1b[31m"}), "cannot be read"),
]


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    return loaded("llama")


@pytest.mark.parametrize(("spoil", "says"), FAULTS, ids=[spoil.__name__ for spoil, _ in FAULTS])
def test_a_spoiled_folder_is_refused_in_one_sentence_and_leaves_the_others_usable(
    spoil: Callable[[Path], None], says: str, empty_home: Path, tmp_path: Path, model: LoadedModel
) -> None:
    started = time.monotonic()
    make(saes_folder() / "good")
    spoil(make(saes_folder() / "spoiled"))
    content_digest(saes_folder() / "spoiled")
    with pytest.raises(SAEFormatError) as refused:
        load_sae(choose("spoiled", model.facts), model.facts)
    sentence = str(refused.value)
    assert says in sentence
    assert sentence.isprintable()
    assert sentence.endswith(".")
    assert len(sentence) < 500
    found = {sae.name: sae for sae in installed_saes()}
    assert {"good", "spoiled"} <= set(found)
    assert load_sae(choose("good", model.facts), model.facts).encode(torch.zeros(3, 32)).shape == (3, 64)
    assert choose("auto", model.facts).name in ("good", "spoiled")

    (saes_folder() / "spoiled").rename(tmp_path / "elsewhere")
    for linked in saes_folder().glob("outside*"):
        linked.rename(tmp_path / linked.name)
    with pytest.raises((SAEFormatError, BadRequest)):
        add_folder(tmp_path / "elsewhere", "taken in")
    assert [path.name for path in saes_folder().iterdir() if path.is_dir()] == ["good"]
    assert not (saes_folder() / FIRED).exists()
    assert not (tmp_path / FIRED).exists()
    assert time.monotonic() - started < 60


@pytest.mark.parametrize("name", ["<b>x<b>", "\x1b[31mred", "‮gnp.exe", "a\nb", "$x$", "=cmd()", "%{x}", "🙂" * 40])
def test_a_folder_with_a_hostile_name_is_listed_with_a_printable_problem(
    name: str, empty_home: Path, model: LoadedModel
) -> None:
    make(saes_folder() / "good")
    make(saes_folder() / name)
    found = {sae.name: sae for sae in installed_saes()}
    assert found[name].info is None
    assert str(found[name].problem).isprintable()
    assert "An SAE cannot be called" in str(found[name].problem)
    with pytest.raises(BadRequest) as refused:
        choose("none such", model.facts)
    assert str(refused.value).isprintable()
    assert choose("good", model.facts).name == "good"


def test_words_of_a_configuration_are_cut_and_shown_without_control_signs(empty_home: Path, model: LoadedModel) -> None:
    make(
        saes_folder() / "loud",
        model_name="tiny\x1b[31m" * 1000,
        remark="‮" + "x" * 10_000,
        neuronpedia_id="javascript:alert(1)/x",
        source="\x00",
    )
    info = read_info(saes_folder() / "loud")
    assert info.model_name.startswith("tiny�[31m")
    assert len(info.model_name) <= 200
    assert len(info.remark) <= 400
    assert (info.remark[0], info.source, info.neuronpedia) == ("�", "�", "")
    assert all(note.isprintable() for note in load_sae(info, model.facts).notes)


def test_a_card_that_leads_out_of_the_folder_is_not_read(tmp_path: Path) -> None:
    folder = make(tmp_path / "sae")
    (tmp_path / "secret").write_text("secret")
    (folder / "README.md").symlink_to(tmp_path / "secret")
    assert read_info(folder).card is None
    (folder / "README.md").unlink()
    (folder / "README.md").write_bytes(b"\xff" + b"x" * (1 << 20))
    assert len(str(read_info(folder).card)) == 1 << 18


def test_a_weight_that_is_too_much_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SAEFormatError, match="sae-lens cannot load it"):
        open_sae(read_info(edit_weights(make(tmp_path / "sae"), stranger=torch.zeros(3))))
