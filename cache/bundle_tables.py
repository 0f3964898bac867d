"""Tables out of a bundle: Parquet that is exactly what the store writes, refused before it can unfold in memory."""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cache.bundle_format import MAX_BYTES, BundleRefused, bundle_schemas, reason_of, table_member
from cache.parquet_footer import read_footer
from cache.strict_json import read_canonical

__all__ = ["check_json", "read_table"]

_MAX_ROWS = 4_000_000
_FEWER_ROWS = {
    "runs": 1000,
    "captures": 1000,
    "events": 100_000,
}  # tables of texts, which may fold into no bytes at all
_MAX_GROUPS = 16
_JSON: dict[str, dict[str, tuple[type, type | None]]] = {
    "runs": {"versions": (dict, str), "request": (dict, None), "notes": (list, str), "tensors": (list, str)},
    "captures": {"edits": (list, None), "facts": (dict, None)},
}


def read_table(name: str, data: bytes) -> Any:
    """The rows of a table. Raises BundleRefused unless they have the store's very columns and are whole."""
    schema = bundle_schemas()[name]
    where = table_member(name)
    try:
        _check_footer(name, data, schema)
        texts = [field.name for field in schema if pa.types.is_string(field.type)]
        # Texts stay as numbers of a dictionary until it is known how long they are written out.
        folded = pq.ParquetFile(pa.BufferReader(data), read_dictionary=texts).read()
        if _unfolded(folded) > MAX_BYTES:
            raise BundleRefused(f"The member {where} of the bundle unfolds to more than {MAX_BYTES:,} bytes.")
        table = folded.cast(schema)
        table.validate(full=True)
    except BundleRefused:
        raise
    except (pa.ArrowException, OSError, ValueError, KeyError, OverflowError, MemoryError) as error:
        raise BundleRefused(f"The member {where} of the bundle is no whole table ({reason_of(error)}).") from None
    for field in schema:
        if pa.types.is_floating(field.type) and pc.any(pc.is_nan(table[field.name])).as_py():
            raise BundleRefused(f"The member {where} of the bundle has a NaN in {field.name!r}; the store has NULL.")
    check_json(name, table)
    return table


def check_json(name: str, table: Any) -> None:
    """Raises BundleRefused for JSON columns that are not canonical JSON of what they should be."""
    for column, (kind, of) in _JSON.get(name, {}).items():
        what = f"The column {column!r} of {table_member(name)}"
        for text in table[column].to_pylist():
            try:
                value = read_canonical(text.encode(), what)
            except ValueError as error:
                raise BundleRefused(str(error)) from None
            inside = value.values() if isinstance(value, dict) else value
            if type(value) is not kind or (of is not None and any(type(each) is not of for each in inside)):
                raise BundleRefused(f"{what} must be a {kind.__name__}{f' of {of.__name__}' if of else ''} as JSON.")


def _check_footer(name: str, data: bytes, schema: Any) -> None:
    """What a table says of itself, read without its rows: columns, and more rows than its bytes could hold."""
    where = table_member(name)
    told = read_footer(data)
    if told.has_metadata:
        raise BundleRefused(f"The member {where} of the bundle has metadata; a table of a bundle has none.")
    if not told.plain:
        raise BundleRefused(f"The member {where} of the bundle is compressed or elsewhere; a table of a bundle is not.")
    limit = _FEWER_ROWS.get(name, _MAX_ROWS)
    if told.n_rows > limit:
        raise BundleRefused(
            f"The member {where} of the bundle has {told.n_rows:,} rows; it may have at most {limit:,}."
        )
    width = sum(field.type.bit_width // 8 for field in schema if not field.nullable and not _folds(field))
    if told.n_rows * width > len(data) or told.n_groups > _MAX_GROUPS:
        raise BundleRefused(
            f"The member {where} of the bundle has fewer bytes than its {told.n_rows:,} rows would take."
        )
    found = pq.read_metadata(pa.BufferReader(data)).schema.to_arrow_schema()
    if not found.equals(schema, check_metadata=True):
        raise BundleRefused(
            f"The member {where} of the bundle must have the columns {', '.join(schema.names)}, of the store's types; "
            f"it has {', '.join(map(repr, found.names))[:200]}."
        )


def _folds(field: Any) -> bool:
    return bool(pa.types.is_string(field.type) or pa.types.is_boolean(field.type))


def _unfolded(table: Any) -> int:
    """The bytes of a table once its texts are written out in every row."""
    total = 0
    for column in table.columns:
        for chunk in column.chunks:
            if not pa.types.is_dictionary(chunk.type):
                total += chunk.nbytes
                continue
            lengths = pc.binary_length(chunk.dictionary).to_numpy(zero_copy_only=False).astype(np.int64)
            uses = np.bincount(chunk.indices.drop_null().to_numpy(), minlength=len(lengths))
            total += int(uses[: len(lengths)] @ lengths) + 4 * len(chunk)
    return total
