"""``sae label`` in one process: a word, a refusal with its figures, and what cannot be asked."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from probes.progress import Cancelled
from probes.saes import word_label
from tests import tiny_saes, tiny_words
from tests.probes.test_word_label import SeesWords, passed

Ran = tuple[int, str, str]
LATENT = 5


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_words.save(tmp_path_factory.mktemp("models") / "tiny-words")


@pytest.fixture
def run(command_line: Callable[..., Ran]) -> Callable[..., Ran]:
    return partial(command_line, "sae")


@pytest.fixture
def indexed(run: Callable[..., Ran], empty_home: Path, model: Path, tmp_path: Path) -> Callable[..., Ran]:
    """An SAE with an index, whose latent 5 reads the word "river"; ``indexed(...)`` is ``sae label`` with its model."""
    folder = tiny_saes.make(empty_home / "saes" / "planted", "standard", hook="blocks.0.hook_resid_pre")
    river = tiny_words.module().get_input_embeddings().weight[_token("▁river")].detach()
    encoder, bias = 0.01 * torch.randn(32, 64, generator=torch.Generator().manual_seed(0)), torch.full((64,), -0.001)
    encoder[:, LATENT], bias[LATENT] = river / river.norm(), -0.95 * float(river.norm())
    tiny_saes.edit_weights(folder, W_enc=encoder, b_enc=bias, b_dec=torch.zeros(32))
    words = [name[1:] for name in tiny_words.tokenizer().get_vocab() if name.startswith("▁") and name != "▁river"]
    draw = np.random.default_rng(0)
    for number in range(90):
        chosen = draw.choice(words, 31).tolist()
        chosen[12] = "river" if number < 30 else chosen[12]
        (tmp_path / f"{number}.txt").write_text(" ".join(["", *chosen]))
    files = [part for number in range(90) for part in ("--text-file", str(tmp_path / f"{number}.txt"))]
    status, _, err = run("index", "planted", "--model", str(model), "--context", "32", *files)
    assert (status, err) == (0, "")
    return lambda *more: run("label", "planted", *more, "--model", str(model))


def _token(name: str) -> int:
    found: Any = tiny_words.tokenizer().convert_tokens_to_ids(name)
    return int(found)


def test_a_word_is_told_and_written(indexed: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(word_label, "Judge", SeesWords)
    monkeypatch.setattr(word_label, "check_judge", passed)
    status, out, err = indexed(str(LATENT), "--json", "-")
    assert (status, err) == (0, "")
    found = json.loads(out)["label"]
    assert (found["status"], found["label"], found["auc"], found["latent"]) == ("ok", "river", 1.0, LATENT)
    assert found["judge"] == {
        "model": "a good judge",
        "labels": {"animals": 0.9, "food": 1.0},
        "n_texts": 20,
        "auc": 0.95,
    }
    assert found["words"][0]["word"] == "river"
    assert 0.0 <= found["control_auc"] <= 1.0
    status, out, _ = indexed(str(LATENT), "--seed", "1")
    assert status == 0
    assert out.startswith("Searched word: river\tAUC 1.00 on texts held out, ")
    assert "tells known topics apart with an AUC of 0.95 (20 texts)." in out


def test_a_model_that_is_no_judge_is_refused_with_its_auc(indexed: Callable[..., Ran]) -> None:
    status, out, err = indexed(str(LATENT), "--json", "-")
    assert status == 1
    assert err.startswith(
        "error: Words cannot be tested here: the judge, tiny-words, tells texts on 10 known topics apart"
    )
    assert err.count("\n") == 1
    found = json.loads(out)["label"]
    assert (found["status"], found["label"]) == ("refused", None)
    assert found["judge"]["auc"] < 0.7
    assert len(found["judge"]["labels"]) == 10


def test_what_cannot_be_asked_is_one_sentence(
    indexed: Callable[..., Ran], run: Callable[..., Ran], model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for arguments, said in (
        (("64",), "planted has no latent 64; it has 0 to 63."),
        (("5", "--store", ":memory:"), "There is no index of planted"),
        (("5", "--json", "/nowhere/out.json"), "nowhere"),
    ):
        status, out, err = indexed(*arguments)
        assert (status, out) == (2, "")
        assert said in err
        assert err.count("\n") == 1
    status, _, err = run("label", "other", "5", "--model", str(model))
    assert status == 2
    assert "No SAE is called 'other'" in err

    def stopped(*_: object) -> None:
        raise Cancelled

    monkeypatch.setattr(word_label, "check_judge", stopped)
    assert indexed("5")[0] == 130
