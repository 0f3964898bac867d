"""Fault 27 inside a bundle: rows, tables and tensors that were tampered with and signed again. Each is one sentence, and the
store is to the byte what it was."""

import io
import json
import pickle
import random
import struct
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import save

from cache import Store
from cache.bundle_format import BundleRefused, bundle_schemas, parquet
from cache.bundle_read import read_bundle
from cache.bundle_tables import read_table
from tests.cache.bundles import check_refused, export, forged, members_of, shared, zipped

Refused = Callable[[bytes, str], None]


@pytest.fixture(scope="module")
def sound() -> bytes:
    with Store.open(":memory:") as store:
        return export(store, shared(store))


@pytest.fixture(scope="module")
def keeper(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """A store with other content under the same ids."""
    with Store.open(tmp_path_factory.mktemp("store") / "store.duckdb") as store:
        shared(store, seed=1)
        yield store


@pytest.fixture
def refused(keeper: Store) -> Refused:
    return partial(check_refused, keeper)


def named(value: object) -> str:
    """The name of a case: its sentence, never its bytes."""
    return value[:40] if isinstance(value, str) else "bytes"


def other_rows(sound: bytes, name: str, change: Callable[[list[dict[str, Any]]], Any]) -> bytes:
    """The bundle with a table whose rows were changed, in the store's own format."""
    rows = read_table(name, members_of(sound)[f"tables/{name}.parquet"]).to_pylist()
    change(rows)
    return forged(sound, {f"tables/{name}.parquet": parquet(pa.Table.from_pylist(rows, bundle_schemas()[name]))})


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("runs", lambda rows: rows[0].update(run_id="a/b"), "run id 'a/b' does not fit|something it does not carry"),
        ("runs", lambda rows: rows[0].update(run_id="r1"), "one id for two things"),
        ("runs", lambda rows: rows[0].update(capture_id="c9"), "exactly the captures of its runs"),
        ("runs", lambda rows: rows.pop(), "exactly the captures of its runs"),
        ("runs", lambda rows: rows[0].update(mask="no_bos", device="cuda"), "tells something else of its runs"),
        ("runs", lambda rows: rows[0].update(request="[" * 10_000), "'request'.*nested 10,000 deep"),
        ("runs", lambda rows: rows[0].update(request="[]"), "must be a dict as JSON"),
        ("runs", lambda rows: rows[0].update(request='{"a": 1}'), "not canonical"),
        ("runs", lambda rows: rows[0].update(versions='{"torch":2}'), "must be a dict of str as JSON"),
        ("runs", lambda rows: rows[0].update(tensors='{"a":1}'), "must be a list of str as JSON"),
        ("runs", lambda rows: rows[0].update(notes="[1]"), "must be a list of str as JSON"),
        ("runs", lambda rows: rows[0].update(seconds=float("nan")), "has a NaN in 'seconds'"),
        ("captures", lambda rows: rows[0].update(facts="{"), "not valid JSON"),
        ("captures", lambda rows: rows.append({**rows[0], "capture_id": "c9"}), "exactly the captures of its runs"),
        ("tokens", lambda rows: rows[0].update(capture_id="c9"), r"tokens\.parquet of the bundle has rows of something"),
        ("spectra", lambda rows: rows[0].update(run_id="c0"), r"spectra\.parquet of the bundle has rows of something"),
        ("weight_spectra", lambda rows: rows[0].update(fingerprint="x"), "has rows of something"),
        ("vocabulary", lambda rows: rows[0].update(tokenizer="x"), "has rows of something"),
        ("vocabulary", lambda rows: rows.append({**rows[0], "text": "y"}), "two texts for one token id"),
    ],
)  # fmt: skip
def test_rows_that_do_not_belong_are_refused(
    sound: bytes, refused: Refused, name: str, change: Callable[[list[dict[str, Any]]], Any], said: str
) -> None:
    refused(other_rows(sound, name, change), said)


def tokens(change: Callable[[pa.Table], pa.Table] = lambda table: table, **options: Any) -> bytes:
    rows = [{"capture_id": "c0", "pos": i, "token_id": i, "text": "x"} for i in range(3)]
    file = io.BytesIO()
    table = change(pa.Table.from_pylist(rows, bundle_schemas()["tokens"]))
    pq.write_table(table, file, **{"store_schema": False, "compression": "none", **options})
    return file.getvalue()


def as_type(name: str, kind: pa.DataType, nullable: bool = False) -> Callable[[pa.Table], pa.Table]:
    def change(table: pa.Table) -> pa.Table:
        place = table.schema.get_field_index(name)
        return table.set_column(place, pa.field(name, kind, nullable), table[name].cast(kind))

    return change


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (tokens(lambda table: table.drop_columns(["text"])), "must have the columns capture_id, pos, token_id, text"),
        (tokens(lambda table: table.append_column("more", table["pos"])), "must have the columns"),
        (tokens(lambda table: table.rename_columns(["run_id", "pos", "token_id", "text"])), "must have the columns"),
        (tokens(lambda table: table.select(["pos", "capture_id", "token_id", "text"])), "must have the columns"),
        (tokens(as_type("pos", pa.int64())), "must have the columns"),
        (tokens(as_type("pos", pa.int32(), True)), "must have the columns"),
        (tokens(as_type("pos", pa.float64())), "must have the columns"),
        (tokens(as_type("text", pa.binary())), "must have the columns"),
        (tokens(lambda table: table.replace_schema_metadata({"pandas": "{}"}), store_schema=True), "has metadata"),
        (tokens(store_schema=True), "has metadata"),
        (tokens(compression="zstd"), "is compressed"),
        (tokens(compression="snappy"), "is compressed"),
        (tokens(row_group_size=1, use_dictionary=False)[:-1], "no whole table"),
        (b"", "no whole table"),
        (b"PAR1", "no whole table"),
        (b"x" * 100 + b"\xff\xff\xff\x7fPAR1", "no Parquet footer of at most 1 MB"),
        (b"a,b\n1,2\n", "no whole table"),
        (pickle.dumps([1, 2, 3]), "no whole table"),
    ],
    ids=named,
)
def test_a_table_that_is_not_the_stores_is_refused(sound: bytes, refused: Refused, data: bytes, said: str) -> None:
    refused(forged(sound, {"tables/tokens.parquet": data}), said)


def test_text_that_is_no_utf8_is_refused(sound: bytes, refused: Refused) -> None:
    data = tokens(use_dictionary=False)
    assert data.count(b"\x01\x00\x00\x00x") == 3
    refused(forged(sound, {"tables/tokens.parquet": data.replace(b"\0x", b"\0\xff")}), "no whole table")


def test_a_flipped_bit_in_a_table_that_was_signed_again_is_refused_or_still_a_table() -> None:
    """150 bits; over one in its footer pyarrow alone would end the process."""
    dice = random.Random(4)
    data = tokens()
    read = 0
    for _ in range(150):
        changed = bytearray(data)
        changed[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
        with suppress(BundleRefused):
            assert read_table("tokens", bytes(changed)).num_rows <= 3
            read += 1
    assert 0 < read < 120


class Trap:
    """What a pickle does when it is opened: make a file."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (self.path, "w")


def test_nothing_that_can_run_code_is_ever_opened(sound: bytes, refused: Refused, tmp_path: Path) -> None:
    sprung = tmp_path / "sprung"
    trap = pickle.dumps(Trap(sprung))
    file = io.BytesIO()
    torch.save({"r0/bands": Trap(sprung)}, file)
    for data in (trap, file.getvalue()):
        refused(forged(sound, {"tensors.safetensors": data}), "no whole safetensors file|have a header of over")
        refused(forged(sound, {"tables/runs.parquet": data}), "no whole table")
        refused(zipped({"manifest.json": data}), "is not valid JSON|nested|brackets")
        for name in ("tensors.pkl", "tensors.pt", "tables/runs.pkl"):
            refused(forged(sound, {name: data}), "lists a member")
    pickled = pa.schema([pa.field("x", pa.int32(), metadata={"ARROW:extension:name": "arrow.py_extension_type"})])
    found = pq.write_table(pickled.empty_table(), where := io.BytesIO())
    assert found is None
    refused(forged(sound, {"tables/runs.parquet": where.getvalue()}), "has metadata")
    assert not sprung.exists()


def header(**entries: Any) -> bytes:
    text = json.dumps(entries).encode()
    return struct.pack("<Q", len(text)) + text


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (save({"c0/resid.0": torch.zeros(2)}), "'resid.0' is a residual state"),
        (save({"r0/resid": torch.zeros(2)}), "is a residual state"),
        (save({"c9/x": torch.zeros(2)}), "a tensor of something it does not carry"),
        (save({"x": torch.zeros(2)}), "must have 1 to 128 characters"),
        (save({"c0/": torch.zeros(2)}), "must have 1 to 128 characters"),
        (save({"c0/" + "x" * 129: torch.zeros(2)}), "must have 1 to 128 characters"),
        (save({"c0/x": torch.zeros(2).to(torch.float8_e4m3fn)}), "is torch.float8_e4m3fn; the store keeps"),
        (save({f"c0/{i}": torch.zeros(0) for i in range(4097)}), "has 4,097 tensors; it may have at most 4,096"),
        (save({"c0/x": torch.zeros(99)})[:-1], "no whole safetensors file"),
        (b"", "no whole safetensors file"),
        (struct.pack("<Q", 1 << 40), "have a header of over"),
        (header(x={"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 4]}) + b"1234", "no whole safetensors"),
        (header(x={"dtype": "F32", "shape": [1], "data_offsets": [0, 1 << 40]}) + b"1234", "no whole safetensors"),
        (header(x={"dtype": "U7", "shape": [1], "data_offsets": [0, 4]}) + b"1234", "no whole safetensors"),
        (struct.pack("<Q", 20_000) + b"[" * 20_000, "no whole safetensors"),
    ],
    ids=named,
)
def test_tensors_that_do_not_fit_are_refused(sound: bytes, refused: Refused, data: bytes, said: str) -> None:
    refused(forged(sound, {"tensors.safetensors": data}), said)


def test_numbers_beyond_all_bounds_are_only_numbers(sound: bytes, keeper: Store) -> None:
    """Nothing to refuse: infinities and extremes are stored as they are."""

    def change(rows: list[dict[str, Any]]) -> None:
        rows[0].update(layer=-(2**31), value=float("inf"), n_used=2**31 - 1)

    read = read_bundle(io.BytesIO(other_rows(sound, "layer_metrics", change)))
    assert np.isinf(max(read.tables["layer_metrics"]["value"].drop_null().to_pylist()))
    assert keeper.verify() == ()
