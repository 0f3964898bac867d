"""The footer of a Parquet file of unknown origin, read as plain numbers: pyarrow ends the process over some that contradict
themselves when it is asked for what they say of a column."""

from dataclasses import dataclass
from typing import Any

__all__ = ["Footer", "read_footer"]

MAX_FOOTER = 1 << 20
_MAGIC = b"PAR1"
_TAIL = 8
_DEPTH = 8
_MARKS = {1: True, 2: False}
_BYTE, _DOUBLE, _BINARY, _LISTS, _STRUCT = 3, 7, 8, (9, 10), 12
_INTEGERS = (4, 5, 6)

# Field numbers of parquet.thrift.
_ROWS, _GROUPS, _METADATA = 3, 4, 5
_COLUMNS = 1
_CHUNK_OFFSET, _CHUNK = 2, 3
_CODEC = 4
_UNCOMPRESSED = 0


@dataclass(frozen=True)
class Footer:
    """What a file says of itself. ``plain`` if all its columns are in it and none is compressed or encrypted."""

    n_rows: int
    n_groups: int
    has_metadata: bool
    plain: bool


def read_footer(data: bytes) -> Footer:
    """Raises ValueError for what is no footer, has a field twice, or is larger than 1 MB."""
    size = int.from_bytes(data[-_TAIL:-4], "little")
    if data[:4] != _MAGIC or data[-4:] != _MAGIC or size > min(MAX_FOOTER, len(data) - _TAIL - 4):
        raise ValueError("it has no Parquet footer of at most 1 MB")
    told = _Thrift(data[-_TAIL - size : -_TAIL]).struct(0)
    groups = told.get(_GROUPS)
    if type(told.get(_ROWS)) is not int or told[_ROWS] < 0 or not isinstance(groups, list):
        raise ValueError("its footer does not count its rows")
    return Footer(told[_ROWS], len(groups), _METADATA in told, all(map(_is_plain, groups)))


def _is_plain(group: Any) -> bool:
    chunks = group.get(_COLUMNS) if isinstance(group, dict) else None
    return isinstance(chunks, list) and all(
        isinstance(chunk, dict)
        and chunk.keys() <= {_CHUNK_OFFSET, _CHUNK}
        and isinstance(chunk.get(_CHUNK), dict)
        and type(chunk[_CHUNK].get(_CODEC)) is int
        and chunk[_CHUNK][_CODEC] == _UNCOMPRESSED
        for chunk in chunks
    )


class _Thrift:
    """Thrift's compact protocol: structs as dicts by field number, lists as lists; maps, which Parquet has none of, are
    refused."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def struct(self, depth: int) -> dict[int, Any]:
        if depth > _DEPTH:
            raise ValueError("its footer is nested too deeply")
        found: dict[int, Any] = {}
        number = 0
        while head := self._byte():
            number = number + (head >> 4) if head >> 4 else self._zigzag()
            if number in found:
                raise ValueError("its footer says something twice")
            kind = head & 15
            found[number] = _MARKS[kind] if kind in _MARKS else self._value(kind, depth)
        return found

    def _value(self, kind: int, depth: int) -> Any:
        if kind in _MARKS:  # in a list each one is a byte
            return self._byte() == 1
        if kind == _BYTE:
            return self._byte()
        if kind in _INTEGERS:
            return self._zigzag()
        if kind == _DOUBLE:
            return self._take(8)
        if kind == _BINARY:
            return self._take(self._varint())
        if kind in _LISTS:
            head = self._byte()
            count = head >> 4 if head >> 4 < 15 else self._varint()
            if count > len(self._data) - self._at:
                raise ValueError("its footer ends too soon")
            return [self._value(head & 15, depth + 1) for _ in range(count)]
        if kind == _STRUCT:
            return self.struct(depth + 1)
        raise ValueError("its footer is no Parquet")

    def _byte(self) -> int:
        return self._take(1)[0]

    def _take(self, count: int) -> bytes:
        taken = self._data[self._at : self._at + count]
        if len(taken) < count:
            raise ValueError("its footer ends too soon")
        self._at += count
        return taken

    def _zigzag(self) -> int:
        value = self._varint()
        return (value >> 1) ^ -(value & 1)

    def _varint(self) -> int:
        value = shift = 0
        while True:
            byte = self._byte()
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value
            if shift > 63:
                raise ValueError("its footer has a number of more than 64 bits")
