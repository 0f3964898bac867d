"""Fault 26: what is small and unfolds to gigabytes is refused in less than a second and with less than 64 MB more memory."""

import io
import json
import re
import resource
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cache import Store
from cache.bundle_format import BundleRefused, bundle_schemas
from cache.bundle_read import read_bundle
from tests.cache.bundles import export, forged, shared, zipped

REPO = Path(__file__).parents[2]
MB = 1 << 20
SECONDS = 1.0
GROWTH = 64 * MB


def zeros(n_bytes: int) -> tuple[bytes, int]:
    """Deflated zeros and their checksum, made without holding them."""
    packer = zlib.compressobj(1, zlib.DEFLATED, -15)
    block, found, check = bytes(MB), bytearray(), 0
    for _ in range(n_bytes // MB):
        found += packer.compress(block)
        check = zlib.crc32(block, check)
    return bytes(found + packer.flush()), check


def raw_zip(
    names: list[str],
    data: bytes,
    size: int,
    check: int,
    *,
    packed: int | None = None,
    shared_data: bool = False,
    count: int | None = None,
) -> bytes:
    """A zip whose headers say what they like: ``size`` bytes in ``packed`` deflated ones, each member the same data."""
    file, directory, start = bytearray(), bytearray(), 0
    packed = len(data) if packed is None else packed
    for index, name in enumerate(names):
        told = struct.pack("<5H3I2H", 20, 0, 8, 0, 0x21, check, packed, size, len(name), 0)
        if index == 0 or not shared_data:
            start = len(file)
            file += b"PK\x03\x04" + told + name.encode() + data
        directory += b"PK\x01\x02\x14\x03" + told + struct.pack("<3H2I", 0, 0, 0, 0o100644 << 16, start) + name.encode()
    at, count = len(file), len(names) if count is None else count
    return bytes(file + directory + struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, count, count, len(directory), at, 0))


def folded_table(name: str, n_rows: int, text: str) -> bytes:
    """One long text in a dictionary, said again in every row."""
    schema = bundle_schemas()[name]
    long = pa.DictionaryArray.from_arrays(pa.array(np.zeros(n_rows, np.int32)), pa.array([text]))
    columns = [
        long if pa.types.is_string(field.type) else pa.nulls(n_rows, field.type)
        if field.nullable else pa.array(np.zeros(n_rows, np.int32), field.type)
        for field in schema
    ]  # fmt: skip
    table = pa.Table.from_arrays(columns, names=schema.names)
    file = io.BytesIO()
    folded = pa.schema(
        pa.field(field.name, column.type, field.nullable) for field, column in zip(schema, columns, strict=True)
    )
    pq.write_table(table.cast(folded), file, compression="none", store_schema=False, row_group_size=n_rows)
    return file.getvalue()


def bombs() -> Iterator[tuple[str, bytes, str]]:
    """Each with the sentence that refuses it."""
    data, check = zeros(60 * MB)
    yield "60 MB of zeros as a manifest", raw_zip(["manifest.json"], data, 60 * MB, check), "over 100 times its size"
    yield "60 MB that say they are 1000", raw_zip(["manifest.json"], data, 1000, check), "Bad CRC-32"
    said = raw_zip(["manifest.json"], data, 60 * MB, check, packed=MB)
    yield "60 MB in what says it is 1 MB", said, "no whole bundle|lies inside|Bad"
    huge, check_huge = zeros(300 * MB)
    yield "300 MB", raw_zip(["manifest.json"], huge, 300 * MB, check_huge), "over 100 times its size"
    yield "4 GB that it only claims", raw_zip(["manifest.json"], data, 2**32 - 1, check, packed=2**32 - 2), "bytes"
    tables = [f"tables/{name}.parquet" for name in sorted(bundle_schemas())]
    names = ["manifest.json", *tables]
    part = bytes(MB)
    yield "one member that is all members", raw_zip(names, part, MB, 0, shared_data=True), "lies inside another"
    big = raw_zip(names[:5], b"", 60 * MB, 0, packed=60 * MB)
    yield "five of 60 MB", big, r"has 314,572,800 bytes; it may have at most 268,435,456"
    yield "65 members", raw_zip([f"m{i}" for i in range(65)], b"", 0, 0), "has 65 members; it may have at most 64"
    many = raw_zip([f"{i:08}" for i in range(100_000)], b"", 0, 0, count=3)
    yield "100,000 members that say they are 3", many, "list of members of the bundle has"
    few = raw_zip([f"{i}" for i in range(1000)], b"", 0, 0, count=3)
    yield "1,000 members that say they are 3", few, "has 1,000 members"
    with Store.open(":memory:") as store:
        sound = export(store, shared(store))
    text = folded_table("events", 99_000, "x" * MB)
    yield "99 GB of one text", forged(sound, {"tables/events.parquet": text}), "unfolds to more than 268,435,456"
    rows = folded_table("events", 3_000_000, "x")
    yield (
        "3,000,000 rows of nothing",
        forged(sound, {"tables/events.parquet": rows}),
        "3,000,000 rows; it may have at most",
    )
    ints = folded_table("tokens", 3_000_000, "x")
    yield (
        "3,000,000 rows in 1 kB",
        forged(sound, {"tables/tokens.parquet": ints}),
        "fewer bytes than its 3,000,000 rows",
    )
    wide = b'{"format":1,"a":[' + b"[]," * 5 * MB + b"[]]}"
    yield "5,000,000 lists", zipped({"manifest.json": wide}), "brackets, commas and quotes; at most"
    deep = zipped({"manifest.json": b"[" * 30 * MB})
    yield "30,000,000 levels", deep, "brackets, commas and quotes"
    strings = b"".join(b'"%d":{"dtype":"F32","shape":[0],"data_offsets":[0,0]},' % i for i in range(40_000))
    header = b"{" + strings[:-1] + b"}"
    tensors = forged(sound, {"tensors.safetensors": struct.pack("<Q", len(header)) + header})
    yield "40,000 tensors of nothing", tensors, "have a header of over"


def measure(sound: Path, files: list[Path]) -> Iterator[dict[str, object]]:
    """What each bomb took of time and of the highest memory there was, after a bundle that is read."""
    with sound.open("rb") as file:
        read_bundle(file)
    for path in files:
        before, started, sentence = peak(), time.perf_counter(), ""
        with path.open("rb") as file:
            try:
                read_bundle(file)
            except BundleRefused as error:
                sentence = str(error)
        yield {"sentence": sentence, "seconds": time.perf_counter() - started, "growth": peak() - before}


def peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """In a process of its own, whose memory nobody else moves, and which makes none of the bombs."""
    folder = tmp_path_factory.mktemp("bombs")
    with Store.open(":memory:") as store:
        (folder / "sound").write_bytes(export(store, shared(store)))
    found = []
    for index, (what, content, said) in enumerate(bombs()):
        (folder / str(index)).write_bytes(content)
        found.append({"what": what, "said": said})
    files = [str(folder / str(index)) for index in range(len(found))]
    program = [sys.executable, "-m", "tests.faults.test_bundle_bombs", str(folder / "sound"), *files]
    told = subprocess.run(program, cwd=REPO, capture_output=True, text=True, timeout=200, check=True)
    return [bomb | seen for bomb, seen in zip(found, json.loads(told.stdout), strict=True)]


def test_each_bomb_is_refused_in_its_sentence(measured: list[dict[str, Any]]) -> None:
    assert len(measured) == 16
    for bomb in measured:
        assert re.search(bomb["said"], bomb["sentence"]), bomb
        assert bomb["sentence"].endswith("."), bomb


def test_each_bomb_is_refused_at_once_and_in_little_memory(measured: list[dict[str, Any]]) -> None:
    slow = {bomb["what"]: bomb["seconds"] for bomb in measured if bomb["seconds"] >= SECONDS}
    large = {bomb["what"]: bomb["growth"] for bomb in measured if bomb["growth"] >= GROWTH}
    assert (slow, large) == ({}, {})


if __name__ == "__main__":
    sound, *files = map(Path, sys.argv[1:])
    sys.stdout.write(json.dumps(list(measure(sound, files))))
