"""What was asked of SAEs beyond tables: one JSON document an answer, the newest in place of the one before."""

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import pandas as pd
from duckdb import DuckDBPyConnection

__all__ = ["as_document", "find_answer", "insert_answer", "list_answers"]


def as_document(document: Mapping[str, Any]) -> str:
    """A document as ASCII text that any store takes. Raises ValueError for NaN and what is no JSON."""
    try:
        return json.dumps(document, allow_nan=False, ensure_ascii=True)
    except (TypeError, ValueError, RecursionError) as problem:
        raise ValueError(f"the answer is no JSON document: {problem}") from None


def insert_answer(connection: DuckDBPyConnection, key: tuple[str, str, str, str], text: str, when: datetime) -> None:
    """Write an answer to (kind, content, about, fingerprint) in place of the one before."""
    connection.execute(
        "DELETE FROM sae_answers WHERE kind = ? AND content = ? AND about = ? AND fingerprint = ?", list(key)
    )
    connection.execute("INSERT INTO sae_answers VALUES (?, ?, ?, ?, ?, ?)", [*key, text, when])


def find_answer(connection: DuckDBPyConnection, key: tuple[str, str, str, str]) -> dict[str, Any] | None:
    """The document of (kind, content, about, fingerprint)."""
    rows = connection.execute(
        "SELECT document FROM sae_answers WHERE kind = ? AND content = ? AND about = ? AND fingerprint = ?", list(key)
    ).fetchall()
    return None if not rows else dict(json.loads(rows[0][0]))


def list_answers(connection: DuckDBPyConnection, kind: str, fingerprint: str) -> pd.DataFrame:
    """Which answers of a kind there are on a model, the newest first: ``content, about, created``."""
    rows = connection.execute(
        "SELECT content, about, created FROM sae_answers WHERE kind = ? AND fingerprint = ? "
        "ORDER BY created DESC, rowid DESC",
        [kind, fingerprint],
    ).fetchall()
    return pd.DataFrame(rows, columns=["content", "about", "created"]).astype({"created": "datetime64[us]"})
