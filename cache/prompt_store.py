"""The part of the store that keeps imported prompt sets."""

from typing import Any

import pandas as pd
import pyarrow as pa
from duckdb import ColumnExpression, DuckDBPyConnection

from cache.connection import Database, Transaction
from cache.results import ARROW, as_frame, owned, prepare, rows_of
from cache.tensors import now

__all__ = ["PROMPT_TABLES", "PromptStore"]

PROMPT_TABLES: tuple[str, ...] = ("prompt_sets", "prompts")


class PromptStore:
    """Prompt sets by their id, each under a name of its own."""

    _database: Database

    def prompt_sets(self) -> pd.DataFrame:
        """Every imported set, the oldest first: ``set_id, name, source, created``."""
        with self._database.reading() as cursor:
            rows = cursor.table("prompt_sets").sort(ColumnExpression("created"), ColumnExpression("name"))
            frame: pd.DataFrame = rows.to_arrow_table().to_pandas()
            return frame

    def prompts(self, set_id: str) -> pd.DataFrame:
        """The prompts of a set in their order: ``prompt_id, grp, text, messages, answer, response``, None where absent;
        ``messages`` as JSON. Empty for an unknown set."""
        with self._database.reading() as cursor:
            rows = rows_of(cursor, "prompts", "set_id", set_id).sort(ColumnExpression("ord"))
            frame = as_frame(rows.to_arrow_table()).drop(columns="ord").astype(object)
            return frame.where(frame.notna(), None)

    def put_prompt_set(self, set_id: str, name: str, source: str, prompts: pd.DataFrame) -> None:
        """Store a set with all its prompts, in the columns of :meth:`prompts`, or nothing. A set of a known id is left.

        Raises ValueError for what does not fit the schema, and if the name stands for another set.
        """
        with self._database.reading() as cursor:
            schemas = {table: _schema(cursor, table) for table in PROMPT_TABLES}
        row = pd.DataFrame([{"name": name, "source": source, "created": now()}])
        frames = {"prompt_sets": row, "prompts": prompts.assign(ord=range(len(prompts)))}
        prepared = {
            table: owned(prepare(table, frame, schemas[table]), schemas[table], set_id)
            for table, frame in frames.items()
        }

        def job(transaction: Transaction) -> None:
            connection = transaction.connection
            known = connection.execute("SELECT set_id FROM prompt_sets WHERE name = ?", [name]).fetchall()
            if known == [(set_id,)]:
                return
            if known:
                raise ValueError(
                    f"There is a prompt set {name!r} with other prompts: choose another name or remove it."
                )
            for table, rows in prepared.items():
                connection.from_arrow(rows).insert_into(table)

        self._database.write(job)

    def drop_prompt_set(self, set_id: str) -> None:
        """Delete a set and its prompts."""

        def job(transaction: Transaction) -> None:
            transaction.connection.execute("DELETE FROM prompt_sets WHERE set_id = ?", [set_id])
            transaction.connection.execute("DELETE FROM prompts WHERE set_id = ?", [set_id])

        self._database.write(job)


def _schema(connection: DuckDBPyConnection, table: str) -> Any:
    columns = connection.execute(
        "SELECT column_name, data_type, is_nullable FROM duckdb_columns() WHERE NOT internal AND table_name = ? "
        "ORDER BY column_index",
        [table],
    ).fetchall()
    return pa.schema([pa.field(column, ARROW[kind], nullable) for column, kind, nullable in columns])
