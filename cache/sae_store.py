"""The part of the store that keeps what is known of SAEs: each method one snapshot or one transaction of cache/saes.py."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from cache import saes
from cache.connection import Database
from cache.session_rules import storable
from cache.tensors import now

__all__ = ["SAEStore"]


class SAEStore:
    """Indexes, labels and quality of SAEs, by ``content``: the digest of their configuration and weights."""

    _database: Database

    def sae_indexes(self) -> pd.DataFrame:
        """Every index, the newest first; ``params`` as JSON text."""
        with self._database.reading() as cursor:
            return saes.indexes(cursor)

    def sae_index(self, content: str, fingerprint: str | None = None) -> "pd.Series[Any] | None":
        """The newest index of an SAE's weights, read with this model's if a fingerprint is given; None if there is none."""
        with self._database.reading() as cursor:
            return saes.find_index(cursor, content, fingerprint)

    def sae_table(self, index_id: str, name: str, latent: int | None = None) -> pd.DataFrame:
        """A table of an index, of one latent if asked, sorted; without ``index_id``, empty for an unknown one.

        Lists are arrays; integers are int64, NULL numbers NaN. Raises ValueError for an unknown table, and for a latent's
        ``sae_sequences``.
        """
        with self._database.reading() as cursor:
            return saes.read_index(cursor, index_id, name, latent)

    def put_sae_index(self, row: Mapping[str, Any], tables: Mapping[str, pd.DataFrame]) -> str:
        """Store an index, all or nothing, in place of one of the same id; returns the id.

        ``row`` are the columns of ``sae_indexes`` (``params`` as a value or JSON text; ``index_id`` is made from it and
        ``created`` may be left out), ``tables`` all of cache.saes.INDEX_TABLES without ``index_id``. Raises ValueError
        for what does not fit the schema, before anything is written.
        """
        with self._database.reading() as cursor:
            schemas = saes.sae_schemas(cursor)
        key, prepared = saes.prepare_index(row, tables, schemas, now())
        self._database.write(lambda transaction: saes.insert_index(transaction.connection, key, prepared))
        return key

    def drop_sae_index(self, index_id: str) -> bool:
        """Delete an index with its tables; whether there was one."""
        return self._database.write(lambda transaction: saes.drop_index(transaction.connection, index_id))

    def sae_label(self, content: str) -> pd.DataFrame:
        """The newest label of each latent that has one: ``latent, label, method, score, created``."""
        with self._database.reading() as cursor:
            return saes.labels(cursor, content)

    def put_sae_label(
        self, content: str, latent: int, label: str, method: str = "user", score: float | None = None
    ) -> None:
        """Label a latent; an empty label takes the one it has away. Raises ValueError for what does not fit."""
        label = label.strip()
        if latent < 0:
            raise ValueError(f"the latent must be 0 or more, not {latent}")
        if len(label) > saes.MAX_LABEL:
            raise ValueError(f"a label has at most {saes.MAX_LABEL} characters, not {len(label):,}")
        if "\0" in label or not storable(label):
            raise ValueError("the label holds a sign that is no text")
        score = None if score is None or not math.isfinite(score) else float(score)
        self._database.write(
            lambda transaction: saes.insert_label(transaction.connection, content, latent, label, method, score, now())
        )

    def put_sae_quality(self, rows: Sequence[Mapping[str, Any]] | pd.DataFrame) -> None:
        """Store measured quality: the columns of ``sae_quality``; ``pos`` and ``created`` may be left out.

        What was stored of the same content, fingerprint, corpus and metric is replaced. Raises ValueError for what does
        not fit the schema, before anything is written.
        """
        if not len(rows):
            return
        with self._database.reading() as cursor:
            schema = saes.sae_schemas(cursor)["sae_quality"]
        prepared = saes.prepare_quality(rows, schema, now())
        self._database.write(lambda transaction: saes.insert_quality(transaction.connection, prepared))

    def sae_quality(self, content: str) -> pd.DataFrame:
        """Measured quality of an SAE: all columns but ``content``; ``pos`` is NaN for the whole."""
        with self._database.reading() as cursor:
            return saes.quality(cursor, content)
