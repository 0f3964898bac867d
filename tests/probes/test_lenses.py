"""Tuned lenses on tiny models: trained, put down, taken up, installed; saved and loaded safely; refusals in one sentence."""

import json
import pickle
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from analysis.tuned_lens import Translators
from probes.errors import BadRequest, PlanRefused
from probes.lenses.folder import CONFIG, PARAMS, config_of, installed_lenses, load_lens, save_lens
from probes.lenses.shelf import add_lens, discard, unfinished
from probes.lenses.states import every_position, sampled_positions, states_at
from probes.lenses.text import EXCERPT, excerpts
from probes.lenses.training import begin, held_out_kl, proceed, read_report
from probes.lenses.work import LensRequest, in_training
from probes.model.forward import forward
from probes.model.loaded import LoadedModel
from probes.progress import Cancelled, Progress
from probes.saes.corpus import Document
from probes.saes.own_request import Text
from tests import tiny

WORDS = ["water", "stone", "bridge", "paper", "letter", "number", "window", "garden", "market", "silver"]
TEXTS = tuple(
    Text(f"page {i}.txt", " ".join(WORDS[(i * j * j + i + j) % 10] for j in range(200 + 20 * i))) for i in range(12)
)
REQUEST = LensRequest("mine", "tiny-llama", tokens=6_000, learning_rate=3e-3)


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    return tiny.loaded("llama")


@pytest.fixture(autouse=True)
def _alone(empty_home: Path) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def random_lens(seed: int = 0) -> Translators:
    generator = torch.Generator().manual_seed(seed)
    return Translators(torch.randn(3, 32, 32, generator=generator), torch.randn(3, 32, generator=generator))


def stop_at(word: str) -> Progress:
    """Cancelled once something is reported that begins with ``word``."""
    heard: list[str] = []
    return Progress(lambda _, what: heard.append(what), lambda: any(what.startswith(word) for what in heard))


@pytest.mark.parametrize("name", ["llama", "gpt2", "neox", "gemma2"])
def test_states_of_a_batch_are_those_of_a_run(name: str) -> None:
    model = tiny.loaded(name)
    ids = torch.randint(4, 260, (3, 40), generator=torch.Generator().manual_seed(0))
    positions = sampled_positions(3, 40, 5, seed=1)
    found = states_at(model, ids, positions)
    assert found.shape == (4, 15, 32)
    for chunk in range(3):
        kept = forward(model, ids[chunk], frozenset({"resid"}), frozenset(), Progress())
        for point in range(4):
            expected = kept[f"resid.{point}"][positions[chunk]]
            torch.testing.assert_close(found[point, chunk * 5 : chunk * 5 + 5], expected, rtol=1e-4, atol=1e-4)


def test_positions_are_different_ones_and_never_the_first() -> None:
    drawn = sampled_positions(50, 20, 16, seed=3)
    assert all(len(set(row.tolist())) == 16 for row in drawn)
    assert int(drawn.min()) == 1
    assert int(drawn.max()) == 19
    assert torch.equal(drawn, sampled_positions(50, 20, 16, seed=3))
    assert not torch.equal(drawn, sampled_positions(50, 20, 16, seed=4))
    assert every_position(2, 5).tolist() == [[1, 2, 3, 4], [1, 2, 3, 4]]


def test_training_leaves_the_model_as_it_was_and_lowers_the_divergence_on_held_out_text(model: LoadedModel) -> None:
    before = [parameter.clone() for parameter in model.hf.parameters()]
    begin(REQUEST, TEXTS, model)
    folder = proceed("mine", model, Progress())
    assert installed_lenses() == {"mine": folder}
    assert not (in_training() / "mine").exists()
    assert all(torch.equal(a, b) for a, b in zip(before, model.hf.parameters(), strict=True))
    assert all(parameter.grad is None for parameter in model.hf.parameters())
    report = read_report(folder)
    kl: Any = report["kl"]
    assert report["fingerprint"] == model.facts.fingerprint
    assert (np.array(kl["tuned"]) < np.array(kl["raw"])).all()
    assert len(report["log"]) == report["steps"]


def test_measured_divergence_is_by_definition(model: LoadedModel) -> None:
    ids = torch.randint(4, 260, (2, 30), generator=torch.Generator().manual_seed(0))
    lens = random_lens()
    found = held_out_kl(model, lens, ids, Progress())
    states = states_at(model, ids, every_position(2, 30))
    final = torch.log_softmax(model.unembed(states[3]), -1).double()
    for layer in range(3):
        for variant, state in (("raw", states[layer]), ("tuned", lens.translate(states[layer], layer))):
            read = torch.log_softmax(model.unembed(state), -1).double()
            expected = (final.exp() * (final - read)).sum(-1).mean()
            assert float(found[variant][layer]) == pytest.approx(float(expected), rel=1e-4)
    assert not np.allclose(found["mean"], found["raw"])


@pytest.mark.parametrize("steps", [1, 5])
def test_put_down_and_taken_up_it_ends_at_the_same_lens(model: LoadedModel, steps: int) -> None:
    begin(REQUEST, TEXTS, model)
    whole = load_lens(proceed("mine", model, Progress()), model)
    again = LensRequest("again", "tiny-llama", tokens=6_000, learning_rate=3e-3)
    begin(again, TEXTS, model)
    with pytest.raises(Cancelled, match=rf"after step {steps} of \d+; it can be resumed"):
        proceed("again", model, stop_at(f"step {steps - 1} "))
    assert "again" not in installed_lenses()
    resumed = load_lens(proceed("again", model, Progress()), model)
    assert torch.equal(whole.weight, resumed.weight)
    assert torch.equal(whole.bias, resumed.bias)


def test_a_damaged_checkpoint_is_begun_anew_and_cancelled_measuring_keeps_the_training(model: LoadedModel) -> None:
    work = begin(REQUEST, TEXTS, model)
    (work.folder / "checkpoint.safetensors").write_bytes(b"torn")
    with pytest.raises(Cancelled, match=rf"after step {work.steps} of {work.steps}"):
        proceed("mine", model, stop_at("measuring"))
    assert read_report(proceed("mine", model, Progress()))["steps"] == work.steps


def test_a_saved_lens_is_read_back_and_in_their_format(model: LoadedModel, tmp_path: Path) -> None:
    lens = random_lens()
    save_lens(tmp_path / "lens", lens, config_of(model))
    again = load_lens(tmp_path / "lens", model)
    assert torch.equal(lens.weight, again.weight)
    assert torch.equal(lens.bias, again.bias)
    state = torch.load(tmp_path / "lens" / PARAMS, weights_only=True)
    modules = torch.nn.ModuleList([torch.nn.Linear(32, 32) for _ in range(3)])
    modules.load_state_dict(state)
    hidden = torch.randn(5, 32)
    torch.testing.assert_close(hidden + modules[1](hidden), lens.translate(hidden, 1))
    said = json.loads((tmp_path / "lens" / CONFIG).read_text())
    assert set(said) == {
        "base_model_name_or_path", "d_model", "num_hidden_layers", "bias", "base_model_revision", "unembed_hash", "lens_type",
    }  # fmt: skip


def test_a_lens_without_bias_and_in_half_precision_is_read(model: LoadedModel, tmp_path: Path) -> None:
    save_lens(tmp_path / "lens", random_lens(), config_of(model))
    torch.save({f"{i}.weight": torch.ones(32, 32).half() for i in range(3)}, tmp_path / "lens" / PARAMS)
    change(tmp_path / "lens", bias=False)
    lens = load_lens(tmp_path / "lens", model)
    assert lens.weight.dtype == torch.float32
    assert not lens.bias.any()


class Evil:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return (Path.touch, (Path("evil"),))  # type: ignore[return-value]


def change(folder: Path, **values: Any) -> None:
    said = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps({**said, **values}))


def tensors(**changes: Any) -> dict[str, Any]:
    parts = {f"{i}.weight": torch.zeros(32, 32) for i in range(3)} | {f"{i}.bias": torch.zeros(32) for i in range(3)}
    return {name: part for name, part in {**parts, **changes}.items() if part is not None}


@pytest.mark.parametrize(
    ("said", "content"),
    [
        ("plain tensors and nothing else", {"0.weight": Evil()}),
        ("'2.bias' differs", tensors(**{"2.bias": None})),
        ("'3.weight' differs", tensors(**{"3.weight": torch.zeros(32, 32)})),
        (
            r"1.weight must be floating-point numbers of the shape \[32, 32\]",
            tensors(**{"1.weight": torch.zeros(32, 31)}),
        ),
        ("1.weight must be floating-point", tensors(**{"1.weight": torch.zeros(32, 32, dtype=torch.int32)})),
        ("1.weight must be floating-point", tensors(**{"1.weight": "text"})),
        ("0.bias holds numbers that are not finite", tensors(**{"0.bias": torch.full((32,), torch.nan)})),
        ("must hold a weight and bias", [1, 2, 3]),
        (r"bytes; its configuration allows", tensors(**{"0.weight": torch.zeros(1024, 1024)})),
    ],
)
def test_what_is_in_the_weights_is_refused(
    model: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, content: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    save_lens(tmp_path / "lens", random_lens(), config_of(model))
    torch.save(content, tmp_path / "lens" / PARAMS)
    with pytest.raises(BadRequest, match=said):
        load_lens(tmp_path / "lens", model)
    assert not (tmp_path / "evil").exists()


@pytest.mark.parametrize("content", [b"", b"no zip", pickle.dumps(Evil())])
def test_a_file_that_is_no_zip_of_tensors_is_refused(model: LoadedModel, tmp_path: Path, content: bytes) -> None:
    save_lens(tmp_path / "lens", random_lens(), config_of(model))
    (tmp_path / "lens" / PARAMS).write_bytes(content)
    with pytest.raises(BadRequest, match="plain tensors"):
        load_lens(tmp_path / "lens", model)


def test_a_bomb_is_measured_before_it_is_opened(model: LoadedModel, tmp_path: Path) -> None:
    save_lens(tmp_path / "lens", random_lens(), config_of(model))
    with zipfile.ZipFile(tmp_path / "lens" / PARAMS, "w", zipfile.ZIP_DEFLATED) as bomb:
        bomb.writestr("params/data.pkl", b"\0" * 50_000_000)
    with pytest.raises(BadRequest, match=r"50,000,000 bytes; its configuration allows"):
        load_lens(tmp_path / "lens", model)


@pytest.mark.parametrize(
    ("said", "values"),
    [
        ("unembed_hash ffffffff, not", {"unembed_hash": "f" * 64}),
        ("nothing says which model", {"unembed_hash": None}),
        ("d_model 64, tiny-llama has 32", {"d_model": 64}),
        ("num_hidden_layers 4, tiny-llama has 3", {"num_hidden_layers": 4}),
        ("whole d_model from 1", {"d_model": "32"}),
        ("whole num_hidden_layers from 1", {"num_hidden_layers": 0}),
        ("lens_type 'linear_tuned_lens', not 'mlp'", {"lens_type": "mlp"}),
        ("bias of true or false", {"bias": 1}),
    ],
)
def test_a_configuration_of_another_model_is_refused(
    model: LoadedModel, tmp_path: Path, said: str, values: dict[str, Any]
) -> None:
    save_lens(tmp_path / "lens", random_lens(), config_of(model))
    change(tmp_path / "lens", **values)
    with pytest.raises(BadRequest, match=said):
        load_lens(tmp_path / "lens", model)
    for content in (b"[]", b"{", b" " * 100_000):
        (tmp_path / "lens" / CONFIG).write_bytes(content)
        with pytest.raises(BadRequest, match=r"no config\.json that is a JSON object"):
            load_lens(tmp_path / "lens", model)


def test_requests_and_names_that_cannot_be_meant_are_refused(
    model: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    for bad, said in (
        ({"name": "../x"}, "name must be"), ({"name": "auto"}, "name must be"), ({"tokens": 5}, "tokens must lie in"),
        ({"learning_rate": float("nan")}, "learning rate must lie"), ({"seed": -1}, "seed must lie"),
    ):  # fmt: skip
        with pytest.raises(BadRequest, match=said):
            LensRequest(**{"name": "mine", "model": "tiny-llama", **bad})
    with pytest.raises(BadRequest, match="No training of a tuned lens"):
        proceed("nothing", model, Progress())
    with pytest.raises(BadRequest, match="No training of a tuned lens"):
        discard("nothing")
    with pytest.raises(BadRequest, match="there must be at least"):
        begin(REQUEST, TEXTS[:1], model)
    begin(REQUEST, TEXTS, model)
    with pytest.raises(BadRequest, match="begun already"):
        begin(REQUEST, TEXTS, model)
    with pytest.raises(BadRequest, match="other weights"):
        proceed("mine", tiny.loaded("llama", intermediate_size=32), Progress())
    monkeypatch.setenv("EIGENSCOPE_MEMORY_LIMIT", "1000")
    with pytest.raises(PlanRefused, match="MB of memory to train"):
        begin(LensRequest("other", "tiny-llama", tokens=6_000), TEXTS, model)


def test_a_folder_is_added_once_it_was_checked_and_written_anew(model: LoadedModel, tmp_path: Path) -> None:
    lens = random_lens()
    save_lens(tmp_path / "theirs", lens, config_of(model))
    folder = add_lens(tmp_path / "theirs", model)
    assert installed_lenses() == {"theirs": folder}
    assert torch.equal(load_lens(folder, model).weight, lens.weight)
    with pytest.raises(BadRequest, match="called 'theirs' already"):
        add_lens(tmp_path / "theirs", model)
    with pytest.raises(BadRequest, match="name must be 1"):
        add_lens(tmp_path / "theirs", model, "../x")
    torch.save({"0.weight": Evil()}, tmp_path / "theirs" / PARAMS)
    with pytest.raises(BadRequest, match="plain tensors and nothing else"):
        add_lens(tmp_path / "theirs", model, "second")
    change(tmp_path / "theirs", unembed_hash="f" * 64)
    with pytest.raises(BadRequest, match="trained with another unembedding"):
        add_lens(tmp_path / "theirs", model, "second")
    assert list(installed_lenses()) == ["theirs"]


def test_what_was_begun_is_listed_with_how_far_it_is_and_can_be_discarded(model: LoadedModel) -> None:
    begin(REQUEST, TEXTS, model)
    (one,) = unfinished()
    assert (one.work.request, one.done, one.busy) == (REQUEST, 0, False)
    with pytest.raises(Cancelled):
        proceed("mine", model, stop_at("step 3 "))
    (one,) = unfinished("mine")
    assert one.done == 4
    assert all(kl > 0 for kl in one.log)
    assert unfinished("other") == ()
    discard("mine")
    assert unfinished() == ()


def test_an_excerpt_of_each_document_begins_with_a_line() -> None:
    long = "".join(f"line {i}\n" for i in range(5_000))
    made = [Document("books", "one", long, (), False, 60), Document("essays", "two", "short\n", (), True, 9)]
    found = excerpts([*made, Document("chats", "three", "", (("a", "b"),), False, 9)], seed=1)
    assert [one.name for one in found] == ["books 0: one", "essays 1: two"]
    assert found[0].text.startswith("line ")
    assert len(found[0].text) == EXCERPT
    assert found[1].text == "short\n"
    assert found == excerpts(made, seed=1)
