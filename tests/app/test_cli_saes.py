"""``sae list`` and ``sae index`` in one process, on a tiny model."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from app.cli_saes import take_in_indexes
from cache import Store
from probes.saes.folder import content_digest
from probes.saes.shipped_index import import_shipped_index
from tests import tiny, tiny_saes

Ran = tuple[int, str, str]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save(tmp_path_factory.mktemp("models") / "tiny-llama")


@pytest.fixture
def sae(empty_home: Path) -> Path:
    return tiny_saes.make(empty_home / "saes" / "tiny")


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "own.txt"
    path.write_text(tiny.TEXT * 3)
    return path


@pytest.fixture
def run(command_line: Callable[..., Ran]) -> Callable[..., Ran]:
    return partial(command_line, "sae")


def index(model: Path, text: Path, *more: str) -> tuple[str, ...]:
    return ("index", "tiny", "--model", str(model), "--text-file", str(text), "--context", "32", *more)


def test_an_index_is_stored_exported_and_listed(
    run: Callable[..., Ran], model: Path, sae: Path, text: Path, empty_home: Path
) -> None:
    assert "tiny\ttopk\t64 latents\tblocks.1.hook_resid_post\ttiny-llama\tnot indexed" in run("list")[1]
    status, out, err = run(*index(model, text, "--json", "-", "--export"))
    assert (status, err) == (0, "")
    document = json.loads(out)
    assert document["index"]["n_left_out"] == document["index"]["n_sequences"]  # position 0 of each
    assert document["index"]["corpus"] == "own.txt"
    assert len(document["sae_latents"]) == 64
    silent = [row for row in document["sae_latents"] if row["n_fired"] == 0]
    assert all(row["max"] is None and row["label"] is None for row in silent)
    assert f"indexed on {document['index']['n_tokens']} tokens" in run("list")[1]
    with Store.open(":memory:") as store:
        assert import_shipped_index(store, sae) == document["index"]["index_id"]
    with Store.open(empty_home / "store.duckdb") as store:
        found = store.sae_index(content_digest(sae))
        assert found is not None
        assert found["index_id"] == document["index"]["index_id"]


def test_a_plan_stores_nothing(run: Callable[..., Ran], model: Path, sae: Path, text: Path) -> None:
    status, out, _ = run(*index(model, text, "--plan"))
    assert status == 0
    assert json.loads(out)["plan"]["n_tokens"] > 300
    assert "not indexed" in run("list")[1]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--context", "4"), "The context must be 16 to 256 tokens, not 4."),
        (("--text-file", "/nowhere.txt"), "The file /nowhere.txt cannot be read"),
        (("--json", "/nowhere/out.json"), "nowhere"),
    ],
)
def test_what_cannot_be_is_one_sentence(
    run: Callable[..., Ran], model: Path, sae: Path, text: Path, arguments: tuple[str, ...], said: str
) -> None:
    status, out, err = run(*index(model, text, *arguments))
    assert status == 2
    assert out == ""
    assert said in err
    assert err.count("\n") == 1


def test_an_unknown_sae_and_a_plan_too_large(
    run: Callable[..., Ran], model: Path, sae: Path, text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    status, _, err = run("index", "other", "--model", str(model), "--text-file", str(text))
    assert status == 2
    assert "No SAE is called 'other'" in err
    monkeypatch.setenv("EIGENSCOPE_MEMORY_LIMIT", "1000000")
    status, _, err = run(*index(model, text))
    assert status == 3
    assert "take fewer tokens" in err


def test_a_folder_that_is_no_sae_is_listed_with_its_problem(run: Callable[..., Ran], sae: Path) -> None:
    tiny_saes.edit_config(sae, architecture="unheard\x1b[31m")
    status, out, _ = run("list")
    assert status == 0
    assert "tiny\tcannot be used\t" in out
    assert "\x1b" not in out


def test_a_corpus_that_cannot_be_fetched_is_said(
    run: Callable[..., Ran], model: Path, sae: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: Path) -> None:
        raise RuntimeError("the corpus could not be fetched: no network")

    monkeypatch.setattr("probes.saes.index_text.fetch_corpus", fail)
    status, _, err = run("index", "tiny", "--model", str(model))
    assert status == 1
    assert "error: The corpus could not be fetched: no network; give text by --text-file instead." in err


def test_the_index_of_a_shipped_sae_is_taken_in_and_a_damaged_one_said(
    run: Callable[..., Ran], model: Path, sae: Path, text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, out, _ = run(*index(model, text, "--json", "-", "--export"))
    monkeypatch.setattr("probes.saes.folder._SHIPPED", sae / "nothing")
    with Store.open(":memory:") as store:
        assert take_in_indexes(store) == []  # a person's own is not shipped
        monkeypatch.setattr("probes.saes.folder._SHIPPED", sae.parent)
        key = json.loads(out)["index"]["index_id"]
        assert take_in_indexes(store) == [f"{key}\tindex of tiny"]
        assert store.sae_indexes()["index_id"].tolist() == [key]
    (sae / "index" / "hits.parquet").write_bytes(b"")
    with Store.open(":memory:") as store:
        [line] = take_in_indexes(store)
        assert line.startswith("not taken in\ttiny: its index is damaged: hits.parquet")
        assert store.sae_indexes().empty
