"""``sae add``, ``fetch``, ``compare`` and ``absorption`` in one process, on a tiny model."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import huggingface_hub.constants
import pytest

from tests import tiny, tiny_saes

Ran = tuple[int, str, str]


@pytest.fixture
def run(command_line: Callable[..., Ran]) -> Callable[..., Ran]:
    return partial(command_line, "sae")


def test_a_folder_is_added_and_a_bad_one_is_not(run: Callable[..., Ran], empty_home: Path, tmp_path: Path) -> None:
    folder = tiny_saes.make(tmp_path / "mine")
    status, out, _ = run("add", str(folder), "--name", "our own")
    assert (status, out) == (0, "our own\ttopk\t64 latents\tblocks.1.hook_resid_post\ttiny-llama\n")
    status, out, err = run("add", str(folder), "--name", "../out")
    assert (status, out) == (2, "")
    assert err.startswith("error: An SAE cannot be called '../out'")
    assert err.count("\n") == 1
    status, out, _ = run("add", str(tiny_saes.make(tmp_path / "coder", "transcoder")))
    assert status == 0
    assert "coder can be loaded but not be read on a run yet" in out
    assert sorted(path.name for path in (empty_home / "saes").iterdir()) == ["coder", "our own"]
    listed = {line.split("\t")[0]: line for line in run("list", "--store", ":memory:")[1].splitlines()}
    assert "cannot be read" not in listed["our own"]
    assert listed["coder"].endswith("and runs keep the residual stream at the points between blocks.")


def test_a_fetch_says_what_went_wrong_and_whose_fault_it_is(
    run: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    status, out, err = run("fetch", "gpt2-small-res-jb/blocks.8.hook_resid_pre")
    assert (status, out) == (1, "")
    assert err.startswith("error: The hub cannot be reached to fetch gpt2-small-res-jb/blocks.8.hook_resid_pre;")
    status, _, err = run("fetch", "gpt2-small-res-jb")
    assert status == 2
    assert "give release/sae_id, such as gpt2-small-res-jb/blocks.8.hook_resid_pre" in err


def test_two_saes_are_compared_on_a_file(run: Callable[..., Ran], empty_home: Path, tmp_path: Path) -> None:
    model = tiny.save(empty_home / "models" / "tiny-llama")
    tiny_saes.make(empty_home / "saes" / "one", "standard")
    tiny_saes.make(empty_home / "saes" / "two", "standard", d_sae=96)
    text = tmp_path / "own.txt"
    text.write_text(tiny.TEXT * 8)
    status, out, _ = run("compare", "one", "two", "--text-file", str(text), "--tokens", "800", "--json", "-")
    assert status == 0
    document = json.loads(out)
    found = document["compare"]
    assert (found["a"], found["b"], found["model"]) == ("one", "two", "tiny-llama")
    assert 700 < found["n_tokens"] < 900
    assert found["svcca"] == {"value": None, "n_used": found["n_pairs"], "status": "not_applicable"}
    assert len(document["matches"]) == found["n_matched"] > 50
    assert document["splitting"]["narrow"] == "one"
    assert model.is_dir()
    status, _, err = run("compare", "one", "none", "--text-file", str(text), "--json", "-")
    assert status == 2
    assert "No SAE is called 'none'" in err
    status, _, err = run("absorption", "one", "--json", "-")
    assert status == 2
    assert "its spelling cannot be asked for" in err
