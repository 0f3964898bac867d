"""Tensors as rows: cut into chunks, checked by BLAKE2b, dropped by least recent use when a byte budget is exceeded."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from duckdb import DuckDBPyConnection
from torch import Tensor

from cache.connection import Transaction
from cache.errors import StoreDamaged, from_duckdb

__all__ = [
    "CHUNK_BYTES",
    "Encoded",
    "Mismatch",
    "Stored",
    "drop",
    "encode",
    "evict",
    "find",
    "insert",
    "load",
    "now",
    "sweep",
    "touch",
]

CHUNK_BYTES = 1 << 20
_FETCH_CHUNKS = 4
_COMMIT_CHUNKS = 32

Bytes = npt.NDArray[np.uint8]
DTYPES: dict[str, torch.dtype] = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (
        torch.float64, torch.float32, torch.float16, torch.bfloat16,
        torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool,
    )
}  # fmt: skip


@dataclass(frozen=True)
class Encoded:
    """A tensor ready to be written: its bytes in row-major order are those of the tensor itself, not a copy."""

    owner_id: str
    name: str
    dtype: str
    shape: tuple[int, ...]
    data: Bytes
    digest: str

    def is_stored(self, found: "Stored | None") -> bool:
        """Whether what was found under this name is this very tensor."""
        return found is not None and (found.digest, found.dtype, found.shape) == (self.digest, self.dtype, self.shape)


@dataclass(frozen=True)
class Stored:
    """What the store knows of a tensor without reading it."""

    tensor_id: int
    dtype: str
    shape: tuple[int, ...]
    nbytes: int
    digest: str


class Mismatch(Exception):
    """The bytes found are not those that were stored; the message says how they differ."""

    def __init__(self, tensor_id: int, what: str) -> None:
        super().__init__(what)
        self.tensor_id = tensor_id


def now() -> datetime:
    """UTC without a zone, as DuckDB's TIMESTAMP keeps it."""
    return datetime.now(UTC).replace(tzinfo=None)


def encode(owner_id: str, name: str, tensor: Tensor | npt.NDArray[Any]) -> Encoded:
    """Bytes and checksum of a tensor of any shape. Raises ValueError for a dtype that is not kept."""
    dtype = str(tensor.dtype).removeprefix("torch.")
    if dtype not in DTYPES:
        raise ValueError(f"the tensor {name!r} is {dtype}; the store keeps {', '.join(DTYPES)}")
    values = torch.from_numpy(np.require(tensor, requirements=["C", "W"])) if isinstance(tensor, np.ndarray) else tensor
    flat = values.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    shape = tuple(values.shape)
    digest = _digest(dtype, shape)
    digest.update(flat.data)
    return Encoded(owner_id, name, dtype, shape, flat, digest.hexdigest())


def insert(transaction: Transaction, tensors: Sequence[Encoded], when: datetime) -> None:
    """Write tensors that are not there. Large ones are committed in parts, which nothing refers to until the last."""
    connection = transaction.connection
    ids = [
        row[0] for row in connection.execute("SELECT nextval('tensor_ids') FROM range(?)", [len(tensors)]).fetchall()
    ]
    written = 0
    for batch in _batches(ids, tensors):
        if written and written + batch.num_rows > _COMMIT_CHUNKS:
            transaction.commit_part()
            written = 0
        connection.from_arrow(pa.Table.from_batches([batch])).insert_into("chunks")
        written += batch.num_rows
    rows = {
        "tensor_id": pa.array(ids, pa.int64()),
        "owner_id": [tensor.owner_id for tensor in tensors],
        "name": [tensor.name for tensor in tensors],
        "dtype": [tensor.dtype for tensor in tensors],
        "shape": pa.array([tensor.shape for tensor in tensors], pa.list_(pa.int64())),
        "nbytes": pa.array([tensor.data.nbytes for tensor in tensors], pa.int64()),
        "digest": [tensor.digest for tensor in tensors],
        "last_used": pa.array([when] * len(tensors), pa.timestamp("us")),
    }
    connection.from_arrow(pa.table(rows)).insert_into("tensors")


def find(connection: DuckDBPyConnection, owner_id: str) -> dict[str, Stored]:
    """The tensors of an owner by name."""
    rows = connection.execute(
        "SELECT name, tensor_id, dtype, shape, nbytes, digest FROM tensors WHERE owner_id = ?", [owner_id]
    ).fetchall()
    return {
        name: Stored(number, dtype, tuple(shape), nbytes, digest) for name, number, dtype, shape, nbytes, digest in rows
    }


def keys(connection: DuckDBPyConnection) -> list[tuple[str, str]]:
    """(owner id, name) of every tensor."""
    return connection.execute("SELECT owner_id, name FROM tensors ORDER BY owner_id, name").fetchall()


def load(connection: DuckDBPyConnection, stored: Stored, *, check: bool) -> Tensor:
    """Read a tensor into memory of its own, with its checksum compared if ``check``. Raises Mismatch."""
    dtype = DTYPES[stored.dtype]
    if not stored.nbytes:
        return torch.empty(stored.shape, dtype=dtype)
    # numpy asks for huge pages where torch does not: filling fresh memory is what reading spends most of its time on.
    data: Bytes = np.empty(stored.nbytes, dtype=np.uint8)
    digest = _digest(stored.dtype, stored.shape)
    filled = 0
    with ThreadPoolExecutor(1) as hashing:
        for number, (seq, chunk) in enumerate(_chunks(connection, stored.tensor_id)):
            if seq != number or len(chunk) != min(CHUNK_BYTES, stored.nbytes - filled):
                raise Mismatch(stored.tensor_id, f"chunk {number} is not what was written")
            place = data.data[filled : filled + len(chunk)]
            place[:] = chunk
            filled += len(chunk)
            if check:
                hashing.submit(digest.update, place)
    if filled != stored.nbytes:
        raise Mismatch(stored.tensor_id, f"{filled} of {stored.nbytes} bytes are there")
    if check and digest.hexdigest() != stored.digest:
        raise Mismatch(stored.tensor_id, "its checksum differs")
    return torch.from_numpy(data).view(dtype).reshape(stored.shape)


def touch(connection: DuckDBPyConnection, used: Mapping[str, datetime]) -> None:
    """Note when owners were last used."""
    if not used:
        return
    times = pa.table({"owner": list(used), "used": pa.array(used.values(), pa.timestamp("us"))})
    connection.register("used", times)
    try:
        connection.execute("UPDATE tensors SET last_used = used.used FROM used WHERE owner_id = used.owner")
    finally:
        connection.unregister("used")


def drop(connection: DuckDBPyConnection, tensor_ids: Iterable[int]) -> int:
    """Delete tensors by number; returns how many there were."""
    numbers = list(tensor_ids)
    if not numbers:
        return 0
    connection.execute("DELETE FROM chunks WHERE tensor_id IN (SELECT unnest(?::BIGINT[]))", [numbers])
    [(gone,)] = connection.execute(
        "DELETE FROM tensors WHERE tensor_id IN (SELECT unnest(?::BIGINT[]))", [numbers]
    ).fetchall()
    return int(gone)


def sweep(connection: DuckDBPyConnection) -> None:
    """Delete chunks that no tensor refers to: parts of a write that was interrupted."""
    connection.execute("DELETE FROM chunks WHERE tensor_id NOT IN (SELECT tensor_id FROM tensors)")


def evict(connection: DuckDBPyConnection, budget: int, keep: AbstractSet[str] = frozenset()) -> int:
    """Drop whole owners, least recently used first, until all tensors fit into ``budget`` bytes. Returns bytes dropped.

    An owner's tensors come from one forward pass: to miss one costs as much as to miss all. Owners in ``keep`` stay.
    """
    owners = connection.execute(
        "SELECT owner_id, sum(nbytes)::BIGINT, list(tensor_id) FROM tensors GROUP BY owner_id ORDER BY max(last_used), owner_id"
    ).fetchall()
    excess = sum(nbytes for _, nbytes, _ in owners) - budget
    dropped = 0
    gone: list[int] = []
    for owner_id, nbytes, numbers in owners:
        if dropped >= excess:
            break
        if owner_id not in keep:
            dropped += nbytes
            gone += numbers
    drop(connection, gone)
    return dropped


def _chunks(connection: DuckDBPyConnection, tensor_id: int) -> Iterator[tuple[int, bytes]]:
    """The chunks of a tensor as they were written, streamed a few at a time."""
    try:
        rows = connection.execute("SELECT seq, data FROM chunks WHERE tensor_id = ?", [tensor_id])
        while few := rows.fetchmany(_FETCH_CHUNKS):
            yield from few
    except duckdb.Error as error:
        if isinstance(from_duckdb(error, None), StoreDamaged):
            raise Mismatch(tensor_id, str(error)) from error
        raise


def _digest(dtype: str, shape: tuple[int, ...]) -> "hashlib.blake2b":
    return hashlib.blake2b(f"{dtype}{list(shape)}".encode(), digest_size=16)


def _batches(ids: Sequence[int], tensors: Sequence[Encoded]) -> Iterator[Any]:
    """Arrow batches of (tensor_id, seq, data), of at most ``_COMMIT_CHUNKS`` chunks, whose data are the tensors' own."""
    span = _COMMIT_CHUNKS * CHUNK_BYTES
    for tensor_id, tensor in zip(ids, tensors, strict=True):
        for start in range(0, tensor.data.nbytes, span):
            part = tensor.data[start : start + span]
            count = -(-part.nbytes // CHUNK_BYTES)
            ends = np.minimum(np.arange(count + 1) * CHUNK_BYTES, part.nbytes).astype(np.int32)
            first = start // CHUNK_BYTES
            data = pa.Array.from_buffers(pa.binary(), count, [None, pa.py_buffer(ends), pa.py_buffer(part)])
            yield pa.record_batch(
                {
                    "tensor_id": pa.array([tensor_id] * count, pa.int64()),
                    "seq": pa.array(range(first, first + count), pa.int32()),
                    "data": data,
                }
            )
