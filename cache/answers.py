"""Answers that are no table: one JSON document a question, the newest in place of the one before."""

import json
from collections.abc import Mapping
from typing import Any

import pandas as pd

from cache.connection import Database, Transaction
from cache.tensors import now

__all__ = ["ANSWER_TABLES", "AnswerStore"]

ANSWER_TABLES: tuple[str, ...] = ("answers",)

_DROP = "DELETE FROM answers WHERE kind = ? AND content = ? AND about = ? AND fingerprint = ?"
_FIND = "SELECT document FROM answers WHERE kind = ? AND content = ? AND about = ? AND fingerprint = ?"


class AnswerStore:
    """Documents by (kind, content, about, fingerprint): what was compared, judged or claimed of which thing on which model.

    ``content`` is the thing a question is about, such as the digest of an SAE; ``about`` what else it is about, or "".
    """

    _database: Database

    def put_answer(self, kind: str, content: str, about: str, fingerprint: str, document: Mapping[str, Any]) -> None:
        """Store an answer, in place of an earlier one to the same question. Raises ValueError for what is no JSON."""
        key = [kind, content, about, fingerprint]
        try:
            text = json.dumps(document, allow_nan=False, ensure_ascii=True)
        except (TypeError, ValueError, RecursionError) as problem:
            raise ValueError(f"the answer is no JSON document: {problem}") from None

        def job(transaction: Transaction) -> None:
            transaction.connection.execute(_DROP, key)
            transaction.connection.execute("INSERT INTO answers VALUES (?, ?, ?, ?, ?, ?)", [*key, text, now()])

        self._database.write(job)

    def answer(self, kind: str, content: str, about: str, fingerprint: str) -> dict[str, Any] | None:
        """The document that answers a question, or None."""
        with self._database.reading() as cursor:
            key = [kind, content, about, fingerprint]
            rows = cursor.execute(_FIND, key).fetchall()
        return None if not rows else dict(json.loads(rows[0][0]))

    def answers(self, kind: str, fingerprint: str) -> pd.DataFrame:
        """Which answers of a kind there are on a model, the newest first: ``content, about, created``."""
        with self._database.reading() as cursor:
            rows = cursor.execute(
                "SELECT content, about, created FROM answers WHERE kind = ? AND fingerprint = ? "
                "ORDER BY created DESC, rowid DESC",
                [kind, fingerprint],
            ).fetchall()
        return pd.DataFrame(rows, columns=["content", "about", "created"]).astype({"created": "datetime64[us]"})
