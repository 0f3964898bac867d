"""A store with a session worth handing on, bundles of it, and bundles that somebody has tampered with."""

import hashlib
import io
import json
import zipfile
from collections.abc import Callable, Collection, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from cache import Item, Store, canonical_json
from cache.bundle_format import BundleRefused, ImportedSession
from cache.bundle_import import import_bundle
from cache.bundle_read import read_bundle
from cache.bundle_write import export_bundle
from tests.cache.rows import capture, resid, run, tables

__all__ = [
    "ITEMS", "RUNS", "TENSORS", "VOCABULARY", "check_refused", "dump", "export", "forged", "imported", "local", "members_of",
    "shared", "spectra", "zipped",
]  # fmt: skip

RUNS = ("r0", "r1")
TENSORS = (("c0", "column_sum"), ("c1", "column_sum"), ("r0", "bands"), ("r0", "half"), ("r1", "gone"))
VOCABULARY = {"bytes": {70: " a", 3: "b\udc80", 71: "'; --\0"}}
ITEMS = (
    Item("lens", {"run": "r0", "k": 5}, {"point": 1, "runs": ["r0", "r1", "r0 and more"]}, "the first", "r0"),
    Item("notes", {}, {}, "words \0 only", None),
    Item("compare", {"a": {"capture": "c1"}, "r1": 0.5}, {}, "", "r1"),
)


def weights(*blocks: int) -> dict[str, Any]:
    return {"probes": [{"name": "weights", "params": {"blocks": list(blocks)}}]}


def spectra(*blocks: int) -> pd.DataFrame:
    return pd.DataFrame({"block": blocks, "matrix": "attn.q", "k": 1, "singular_value": [1.5 + b for b in blocks]})


def shared(store: Store, seed: int = 0) -> str:
    """Two runs of two captures and a session about them; another seed gives the same ids other content."""
    when = datetime(2026, 5, 1, 12, 0, seed)
    values = {("c0", "column_sum"): torch.arange(6.0).reshape(2, 3) + seed, ("r0", "bands"): torch.zeros(0, 2)}
    values |= {("r0", "half"): torch.tensor(1.5, dtype=torch.bfloat16)}
    events = pd.DataFrame({"layer": [2, None], "kind": "sink", "text": ["b", "a"], "evidence": ["{}", "[]"]})
    massive = pd.DataFrame(
        {"layer": [1], "pos": 0, "dim": 3, "value": 9.0, "median": 1.0, "ratio": [np.nan], "strict": True, "relative": False}
    ).assign(robust=None)  # fmt: skip
    first = tables(seed) | {"events": events, "massive": massive, "weight_spectra": spectra(0, 2)}
    made = {"created": when, "versions": {"torch": "2.13.0", "duckdb": "2.0.0"}}
    store.write_run(
        {**run("r0"), **made, "request": weights(0, 2), "tensors": ["bands"]},
        first,
        {**resid(), **values},
        {**capture("c0"), "created": when},
    )
    other = {("c1", "column_sum"): torch.ones(2) * seed}
    store.write_run(
        {**run("r1", "c1"), **made},
        tables(seed + 7),
        other,
        {**capture("c1"), "created": when, "facts": {"é": "\ud800"}},
    )
    session, _ = store.create_session("Sinks é")
    store.save_session(session.session_id, notes="# notes\n\0", items=ITEMS)
    return session.session_id


def export(
    store: Store,
    session_id: str,
    runs: Collection[str] = RUNS,
    tensors: Collection[tuple[str, str]] = TENSORS,
    vocabulary: Mapping[str, Mapping[int, str]] = VOCABULARY,
) -> bytes:
    out = io.BytesIO()
    export_bundle(store, session_id, out, runs=runs, tensors=tensors, vocabulary=vocabulary)
    return out.getvalue()


def imported(store: Store, bundle: bytes) -> ImportedSession:
    return import_bundle(store, read_bundle(io.BytesIO(bundle)))


def members_of(bundle: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(bundle)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def zipped(members: Mapping[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return file.getvalue()


def forged(
    bundle: bytes, members: Mapping[str, bytes] | None = None, manifest: Callable[[dict[str, Any]], Any] | None = None
) -> bytes:
    """The bundle with other members and another manifest, and checksums as if it had been written so."""
    changed = members_of(bundle) | dict(members or {})
    told = json.loads(changed.pop("manifest.json"))
    told["members"] = {
        name: {"bytes": len(data), "blake2b": hashlib.blake2b(data).hexdigest()} for name, data in changed.items()
    }
    if manifest is not None:
        manifest(told)
    return zipped({"manifest.json": canonical_json(told).encode(), **changed})


def dump(store: Store) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of every table, but for what is random in sessions and when tensors were used."""

    def job(transaction: Any) -> dict[str, list[tuple[Any, ...]]]:
        c = transaction.connection
        names = [name for (name,) in c.execute("SELECT table_name FROM duckdb_tables()").fetchall()]
        rows = {name: sorted(map(str, c.table(name).fetchall())) for name in names}
        return rows | {"tensors": sorted(c.execute("SELECT owner_id, name, digest FROM tensors").fetchall())}

    return store.writing(job)


def local(came: ImportedSession) -> tuple[list[str], list[tuple[str, str]]]:
    names = came.aliased
    return [names.get(one, one) for one in RUNS], [(names.get(owner, owner), name) for owner, name in TENSORS]


def check_refused(store: Store, content: bytes, said: str) -> None:
    """Reading it is refused in one printable sentence, and the store's file is to the byte what it was."""
    path = Path(str(store.info()["store"]))
    before = path.read_bytes()
    with pytest.raises(BundleRefused, match=said) as caught:
        import_bundle(store, read_bundle(io.BytesIO(content)))
    sentence = str(caught.value)
    sentence.encode()
    assert sentence[0].isupper()
    assert sentence.endswith(".")
    assert sentence.isprintable(), sentence
    assert len(sentence) < 420
    assert caught.value.__cause__ is None
    assert path.read_bytes() == before
