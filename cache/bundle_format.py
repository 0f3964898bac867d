"""What a bundle is: its limits, its members, the one byte sequence of each table, and what is read out of one."""

import hashlib
import io
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any, Protocol, runtime_checkable

import pyarrow as pa
import pyarrow.parquet as pq
from duckdb import ColumnExpression, ConstantExpression, DuckDBPyConnection
from torch import Tensor

from cache.connection import connect
from cache.migrations import migrate
from cache.results import TABLES, schemas
from cache.session_rules import Item, Session

__all__ = [
    "FORMAT",
    "MANIFEST",
    "MAX_BYTES",
    "MAX_MEMBERS",
    "MAX_MEMBER_BYTES",
    "MEMBERS",
    "OF_CAPTURES",
    "OF_RUNS",
    "TENSORS",
    "Bundle",
    "BundleRefused",
    "ImportedSession",
    "Readable",
    "Writable",
    "bundle_schemas",
    "check_id",
    "check_sizes",
    "content",
    "parquet",
    "provenance",
    "reason_of",
    "renamed",
    "rows_of",
    "table_member",
]

FORMAT = 1
MAX_MEMBERS = 64
MAX_MEMBER_BYTES = 64 << 20
MAX_BYTES = 256 << 20
MANIFEST = "manifest.json"
TENSORS = "tensors.safetensors"
OF_CAPTURES = ("captures", "tokens")
OF_RUNS = ("runs", *(name for name in TABLES if name not in ("tokens", "weight_spectra")))
_ID = re.compile(r"[0-9A-Za-z_.-]{1,128}")
_PROVENANCE = ("model", "fingerprint", "weights", "device", "dtype", "versions", "request")


@runtime_checkable
class Readable(Protocol):
    """A seekable file to read bytes from."""

    def read(self, size: int = -1, /) -> bytes: ...
    def seek(self, offset: int, whence: int = 0, /) -> int: ...


@runtime_checkable
class Writable(Protocol):
    """A file to write bytes to."""

    def write(self, data: bytes, /) -> int: ...


class BundleRefused(ValueError):
    """A bundle that cannot be written or read, in one sentence. Nothing was stored."""


def reason_of(error: BaseException) -> str:
    """What a library said, as a part of a sentence."""
    return "".join(filter(str.isprintable, str(error).split("\n")[0][:200])) or "it ends too soon"


@dataclass(frozen=True)
class Bundle:
    """A bundle that was read and found whole. Ids are those of the store it was written in.

    ``runs`` tells of each run its model, fingerprint, weights, device, dtype, versions and request; ``tables`` are Arrow
    tables by name; ``tensors`` by (run or capture id, name).
    """

    session_id: str
    title: str
    notes: str
    created: datetime
    updated: datetime
    items: tuple[Item, ...]
    runs: Mapping[str, Mapping[str, Any]]
    tables: Mapping[str, Any]
    tensors: Mapping[tuple[str, str], Tensor]


@dataclass(frozen=True)
class ImportedSession:
    """What an import came to. ``edit_key`` is None if the session was there already, just as it is in the bundle.

    ``runs_new`` and ``runs_known`` are ids in this store; ``aliased`` gives them, and those of captures and the session,
    by the bundle's ids where they differ.
    """

    session: Session
    edit_key: str | None
    runs_new: tuple[str, ...]
    runs_known: tuple[str, ...]
    aliased: Mapping[str, str]


def table_member(name: str) -> str:
    """The member that holds a table."""
    return f"tables/{name}.parquet"


MEMBERS = (MANIFEST, *(table_member(name) for name in sorted((*TABLES, "runs", "captures", "vocabulary"))), TENSORS)
"""Every name a member may have."""


@cache
def bundle_schemas() -> dict[str, Any]:
    """The schema of each table of a bundle: the store's own."""
    connection = connect(None)
    try:
        migrate(connection, None)
        return schemas(connection)
    finally:
        connection.close()


def check_id(what: str, value: str) -> None:
    """Raises BundleRefused for an id that could be mistaken for anything else."""
    if not _ID.fullmatch(value):
        raise BundleRefused(
            f"The {what} id {value[:64]!r} does not fit into a bundle: an id has 1 to 128 letters, digits, '_', '.' or '-'."
        )


def check_sizes(sizes: Mapping[str, int]) -> None:
    """Raises BundleRefused if members of these sizes are too many or too large."""
    if len(sizes) > MAX_MEMBERS:
        raise BundleRefused(f"The bundle has {len(sizes)} members; it may have at most {MAX_MEMBERS}.")
    for name, size in sizes.items():
        if size > MAX_MEMBER_BYTES:
            limit = f"a member may have at most {MAX_MEMBER_BYTES:,}"
            raise BundleRefused(f"The member {name[:80]!r} of the bundle has {size:,} bytes; {limit}.")
    if sum(sizes.values()) > MAX_BYTES:
        raise BundleRefused(f"The bundle has {sum(sizes.values()):,} bytes; it may have at most {MAX_BYTES:,}.")


def rows_of(connection: DuckDBPyConnection, name: str, owners: Collection[str]) -> Any:
    """The rows of a table that belong to any of these owners, in the table's schema."""
    schema = bundle_schemas()[name]
    if not owners:
        return schema.empty_table()
    wanted = [ConstantExpression(owner) for owner in sorted(owners)]
    found = connection.table(name).filter(ColumnExpression(schema.names[0]).isin(*wanted))
    return found.to_arrow_table().cast(schema)


def renamed(table: Any, names: Mapping[str, str], columns: Iterable[str] = ("run_id", "capture_id")) -> Any:
    """A table with the ids in these columns, where it has them, replaced."""
    for column in columns:
        place = table.schema.get_field_index(column)
        if place >= 0 and table.num_rows:
            encoded = table[column].combine_chunks().dictionary_encode()
            values = pa.array([names.get(value, value) for value in encoded.dictionary.to_pylist()], pa.string())
            array = pa.DictionaryArray.from_arrays(encoded.indices, values).cast(pa.string())
            table = table.set_column(place, table.schema.field(place), array)
    return table


def parquet(table: Any) -> bytes:
    """The one Parquet file of a set of rows: sorted by all columns, options fixed, nothing of the machine in it."""
    ordered = table.sort_by([(name, "ascending") for name in table.schema.names]).combine_chunks()
    file = io.BytesIO()
    pq.write_table(
        ordered,
        file,
        row_group_size=1 << 20,
        version="2.6",
        data_page_version="1.0",
        data_page_size=1 << 20,
        write_batch_size=1024,
        dictionary_pagesize_limit=1 << 20,
        compression="none",
        use_dictionary=[field.name for field in table.schema if pa.types.is_string(field.type)],
        write_statistics=False,
        store_schema=False,
    )
    return file.getvalue()


def content(tables: Mapping[str, Any]) -> str:
    """A digest of sets of rows: equal for equal rows in whatever order; tables without rows do not count."""
    found = hashlib.blake2b(digest_size=16)
    for name in sorted(tables):
        if tables[name].num_rows:
            found.update(hashlib.blake2b(name.encode() + b"\0" + parquet(tables[name])).digest())
    return found.hexdigest()


def provenance(runs: Any, parse: Any) -> dict[str, dict[str, Any]]:
    """What a bundle says of each run in its manifest, out of the rows of ``runs``; ``parse`` reads their JSON."""
    told = {}
    for row in runs.to_pylist():
        parsed = {column: parse(row[column]) for column in ("versions", "request")}
        told[row["run_id"]] = {column: row[column] for column in _PROVENANCE} | parsed
    return told
