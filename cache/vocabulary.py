"""Texts of token ids that a bundle brings, for machines without its tokenizer."""

from collections.abc import Mapping
from typing import Any

import pyarrow as pa
from duckdb import DuckDBPyConnection

__all__ = ["as_table", "insert_new", "texts"]


def texts(connection: DuckDBPyConnection, tokenizer: str) -> dict[int, str]:
    """The texts known of a tokenizer by token id."""
    return dict(connection.execute("SELECT token_id, text FROM vocabulary WHERE tokenizer = ?", [tokenizer]).fetchall())


def as_table(vocabulary: Mapping[str, Mapping[int, str]], schema: Any) -> Any:
    """Texts by tokenizer and token id as rows; half a character is spelt out, as ``\\udc80``.

    Raises ValueError for an id that is negative or no int32.
    """
    names: list[str] = []
    numbers: list[int] = []
    spelt: list[str] = []
    for tokenizer, known in vocabulary.items():
        for number, text in known.items():
            if not 0 <= number < 1 << 31:
                raise ValueError(f"The token id {number} of {tokenizer[:64]!r} must be from 0 to {(1 << 31) - 1}.")
            names.append(tokenizer)
            numbers.append(number)
            spelt.append(text.encode("utf-8", "backslashreplace").decode())
    columns = [pa.array(names, pa.string()), pa.array(numbers, pa.int32()), pa.array(spelt, pa.string())]
    return pa.Table.from_arrays(columns, schema=schema)


def insert_new(connection: DuckDBPyConnection, table: Any) -> None:
    """Add the texts of ids that have none yet."""
    connection.register("brought", table)
    try:
        connection.execute(
            "INSERT INTO vocabulary SELECT * FROM brought WHERE NOT EXISTS (SELECT 1 FROM vocabulary known "
            "WHERE known.tokenizer = brought.tokenizer AND known.token_id = brought.token_id)"
        )
    finally:
        connection.unregister("brought")
