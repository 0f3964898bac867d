"""An index that travels in its SAE's folder: there and back, and what is refused on the way."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from analysis.latent_index import IndexRules
from cache import Store
from probes.saes.folder import SAEFormatError, read_info
from probes.saes.index import index_sae, store_index
from probes.saes.loading import load_sae
from probes.saes.sequences import FileText, cut_documents
from probes.saes.shipped_index import FOLDER, _digest, export_index, import_shipped_index, shipped_row
from tests import tiny, tiny_saes

RULES = IndexRules(top=3, around=4, min_seen=2, coactive_least=1, coactive_fired=1)
HALF = ("activation", "activations", "value", "mean_activation")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Store, str, Path]]:
    """A store with an index, its id, and the SAE's folder."""
    model = tiny.loaded("llama")
    folder = tiny_saes.make(tmp_path_factory.mktemp("saes") / "tiny")
    sae = load_sae(read_info(folder), model.facts)
    sequences = cut_documents((FileText("file", "a.txt", tiny.TEXT * 2),), model, n_tokens=10_000, context=32)
    with Store.open(":memory:") as store:
        yield store, store_index(store, index_sae(model, sae, sequences, "one text", RULES)), folder


@pytest.fixture
def folder(made: tuple[Store, str, Path], tmp_path: Path) -> Path:
    """A copy of the SAE's folder, named as it is, with the index in it."""
    copy = tmp_path / "tiny"
    copy.mkdir()
    for file in made[2].iterdir():
        if file.is_file():
            (copy / file.name).write_bytes(file.read_bytes())
    export_index(made[0], made[1], copy, {"file": "mine"})
    return copy


def test_there_and_back(made: tuple[Store, str, Path], folder: Path, store: Store) -> None:
    before, key, _ = made
    assert import_shipped_index(store, folder) == key
    assert import_shipped_index(store, folder) == key
    pd.testing.assert_frame_equal(store.sae_indexes(), before.sae_indexes())
    for name in ("sae_sequences", "sae_latents", "sae_hits", "sae_latent_tokens", "sae_neighbours"):
        was, now = before.sae_table(key, name), store.sae_table(key, name)
        assert len(was) > 0
        assert now.columns.tolist() == was.columns.tolist()
        for column in was:
            for old, new in zip(was[column], now[column], strict=True):
                if isinstance(old, np.ndarray | float):
                    np.testing.assert_allclose(new, old, rtol=1e-3 if column in HALF else 1e-6, atol=1e-6)
                else:
                    assert new == old


def test_the_folder_says_what_is_in_it(folder: Path) -> None:
    row = shipped_row(folder)
    assert row is not None
    assert row["corpus"] == "one text"
    assert json.loads((folder / FOLDER / "index.json").read_text())["licences"] == {"file": "mine"}
    assert not list(folder.glob(".*"))
    schema = pq.read_schema(folder / FOLDER / "hits.parquet")
    assert schema.field("activations").type == pa.list_(pa.float16())
    assert pq.read_schema(folder / FOLDER / "sequences.parquet").field("token_ids").type == pa.list_(pa.uint16())


def test_an_sae_without_an_index_has_none(made: tuple[Store, str, Path], store: Store) -> None:
    assert shipped_row(made[2]) is None
    assert import_shipped_index(store, made[2]) is None


def test_an_index_of_other_weights_is_refused(made: tuple[Store, str, Path], folder: Path, store: Store) -> None:
    tiny_saes.edit_config(folder, metadata={"remark": "changed"})
    with pytest.raises(SAEFormatError, match="tiny: its index was made of another SAE or of other weights"):
        import_shipped_index(store, folder)
    with pytest.raises(SAEFormatError, match="was made of another SAE"):
        export_index(made[0], made[1], folder)
    assert store.sae_indexes().empty


def change(name: str, **columns: Any) -> Callable[[Path], None]:
    """Put other values into a table, with the digest that belongs to them."""

    def edit(index: Path) -> None:
        path = index / f"{name}.parquet"
        frame = pq.read_table(path).to_pandas()
        for column, value in columns.items():
            frame[column] = value(frame[column]) if callable(value) else value
        pq.write_table(pa.Table.from_pandas(frame, preserve_index=False), path)
        say(index, files={path.name: _digest(path)})

    return edit


def say(place: Path, /, **changes: dict[str, Any]) -> None:
    """Change values inside the objects of index.json."""
    said = json.loads((place / "index.json").read_text())
    for key, values in changes.items():
        said[key] |= values
    (place / "index.json").write_text(json.dumps(said))


def cut(index: Path) -> None:
    path = index / "hits.parquet"
    path.write_bytes(path.read_bytes()[:-40])
    say(index, files={path.name: _digest(path)})


def drop_row(index: Path) -> None:
    path = index / "latents.parquet"
    pq.write_table(pq.read_table(path).slice(1), path)
    say(index, files={path.name: _digest(path)})


def flip(index: Path) -> None:
    data = bytearray((index / "hits.parquet").read_bytes())
    data[len(data) // 2] ^= 1
    (index / "hits.parquet").write_bytes(bytes(data))


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "a flipped bit": (flip, "hits.parquet is not the file it was"),
    "cut short": (cut, "hits.parquet is no table"),
    "a missing file": (lambda index: (index / "neighbours.parquet").unlink(), "there is no neighbours.parquet"),
    "no JSON": (lambda index: (index / "index.json").write_text("{"), "index.json cannot be read"),
    "a list": (lambda index: (index / "index.json").write_text("[]"), "index.json cannot be read"),
    "a text for a number": (lambda index: say(index, index={"n_tokens": "many"}), "a value of the wrong kind"),
    "a negative number": (lambda index: say(index, index={"seed": -1}), "a value of the wrong kind"),
    "a wrong date": (lambda index: say(index, index={"created": "yesterday"}), "index.json cannot be read"),
    "a missing latent": (drop_row, "one row for each of the 64 latents"),
    "fewer sequences": (lambda index: say(index, index={"n_sequences": 2}), "one row for each of the 2 sequences"),
    "a latent outside": (change("latent_tokens", latent=64), "a latent of sae_latent_tokens lies outside 0..63"),
    "a partner outside": (change("neighbours", other=-1), "a latent of sae_neighbours lies outside"),
    "a sequence outside": (change("hits", seq=1000), "a sequence of sae_hits lies outside"),
    "a window outside": (change("hits", pos=1000), "lies outside its sequence"),
    "a window of another place": (change("hits", pos=lambda pos: pos // 2), "has not the length"),
    "an unknown kind": (change("hits", kind="best"), "unknown kind"),
    "a missing column": (change("sequences", more=1), "no column 'more'"),
    "a text in a number": (change("latents", max="x"), "must be double"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_is_damaged_is_refused_in_one_sentence(damage: str, folder: Path, store: Store) -> None:
    edit, said = DAMAGES[damage]
    edit(folder / FOLDER)
    with pytest.raises(SAEFormatError) as caught:
        import_shipped_index(store, folder)
    assert str(caught.value).startswith("tiny: its index is damaged: ")
    assert said in str(caught.value)
    assert store.sae_indexes().empty


def test_a_later_format_is_refused(folder: Path, store: Store) -> None:
    path = folder / FOLDER / "index.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": 2}))
    with pytest.raises(SAEFormatError, match="its index has format 2; this program reads 1"):
        import_shipped_index(store, folder)


def test_a_table_that_unfolds_too_far_is_refused(folder: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("probes.saes.shipped_index._UNFOLDED", 1000)
    with pytest.raises(SAEFormatError, match="unfolds to more"):
        import_shipped_index(store, folder)
