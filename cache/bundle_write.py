"""A session as a file to hand on: the same rows give the same bytes, and no residual states are ever in it."""

import hashlib
import io
import json
import stat
import zipfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from duckdb import DuckDBPyConnection
from safetensors.torch import save
from torch import Tensor

from cache import sessions, tensors, vocabulary
from cache.aliases import originals, rewritten, strings
from cache.bundle_format import (
    FORMAT,
    MANIFEST,
    OF_CAPTURES,
    OF_RUNS,
    TENSORS,
    BundleRefused,
    Writable,
    bundle_schemas,
    check_id,
    check_sizes,
    parquet,
    provenance,
    renamed,
    rows_of,
    table_member,
)
from cache.bundle_read import MAX_TENSORS, check_tensor_name, read_bundle
from cache.errors import RunAbsent, SessionAbsent, TensorAbsent
from cache.keys import canonical_json
from cache.session_rules import Item, Session, storable
from cache.store import Store

__all__ = ["export_bundle"]

_DATE = (1980, 1, 1, 0, 0, 0)
_WEIGHTS = "weights"

Key = tuple[str, str]


def export_bundle(
    store: Store,
    session_id: str,
    out: Writable,
    *,
    runs: Collection[str],
    tensors: Collection[Key],
    vocabulary: Mapping[str, Mapping[int, str]],
) -> None:
    """Write a session, the ``runs`` its items read, and of their tensors those named by (run or capture id, name).

    ``vocabulary`` gives texts of token ids by tokenizer, for machines without it. Tensors the store no longer has are
    left out. Ids under which an import keeps something here are written as they came. Raises SessionAbsent, RunAbsent,
    and BundleRefused (a ValueError) for residual states, an item whose run is not among ``runs``, and what is too large.
    """
    with store.snapshot() as cursor:
        session = sessions.find(cursor, session_id=session_id)
        if session is None:
            raise SessionAbsent(session_id)
        items = sessions.items_of(cursor, session_id)
        _check_items(items, runs)
        tables = _rows(cursor, runs)
        names = _names(cursor, session_id, items, tables)
        _check_tensors(cursor, tables, tensors)
    tables = {name: renamed(table, names) for name, table in tables.items()}
    tables["vocabulary"] = _vocabulary(vocabulary, tables["captures"])
    members = {table_member(name): parquet(table) for name, table in tables.items() if table.num_rows}
    found = dict(_found(store, tensors, names))
    if found:
        members[TENSORS] = save(found)
    members[MANIFEST] = _manifest(session, items, names, tables["runs"], members)
    check_sizes({name: len(data) for name, data in members.items()})
    file = _zipped(members)
    read_bundle(file)  # what no reader would take is not handed out
    out.write(file.getvalue())


def _check_items(items: tuple[Item, ...], runs: Collection[str]) -> None:
    for place, item in enumerate(items):
        if item.run_id is not None and item.run_id not in runs:
            raise BundleRefused(
                f"Item {place + 1} shows the run {item.run_id[:64]!r}, which is not among those to carry."
            )


def _rows(connection: DuckDBPyConnection, runs: Collection[str]) -> dict[str, Any]:
    """All rows of the runs, their captures and the matrices they asked for. Raises RunAbsent."""
    for run in runs:
        if not storable(run):
            raise RunAbsent(run)
    tables = {name: rows_of(connection, name, runs) for name in OF_RUNS}
    there = set(tables["runs"]["run_id"].to_pylist())
    for run in sorted(runs):
        if run not in there:
            raise RunAbsent(run)
    captures = set(tables["runs"]["capture_id"].to_pylist())
    spectra = [_spectra(connection, row["fingerprint"], row["request"]) for row in tables["runs"].to_pylist()]
    whole = pa.concat_tables([bundle_schemas()["weight_spectra"].empty_table(), *spectra])
    tables["weight_spectra"] = whole.group_by(whole.schema.names).aggregate([]).cast(whole.schema)
    return tables | {name: rows_of(connection, name, captures) for name in OF_CAPTURES}


def _spectra(connection: DuckDBPyConnection, fingerprint: str, request: str) -> Any:
    """The weight spectra a run asked for: those other runs left behind under the same weights are not its own."""
    rows = bundle_schemas()["weight_spectra"].empty_table()
    for blocks in _asked(json.loads(request)):
        found = rows_of(connection, "weight_spectra", [fingerprint])
        if blocks != "all":
            listed = blocks if isinstance(blocks, list) else []
            wanted = pa.array([block for block in listed if type(block) is int and 0 <= block < 1 << 31], pa.int32())
            found = found.filter(pc.is_in(found["block"], wanted))
        rows = pa.concat_tables([rows, found])
    return rows


def _asked(request: Any) -> Iterator[Any]:
    """The blocks of each call of the probe of weight matrices; a request is whatever its writer put there."""
    calls = request.get("probes") if isinstance(request, dict) else None
    for call in calls if isinstance(calls, list) else ():
        if isinstance(call, dict) and call.get("name") == _WEIGHTS:
            params = call.get("params")
            yield params.get("blocks", "all") if isinstance(params, dict) else "all"


def _names(
    connection: DuckDBPyConnection, session_id: str, items: tuple[Item, ...], tables: Mapping[str, Any]
) -> dict[str, str]:
    """The ids to write in place of the store's own, and a check that all can be written."""
    spoken = {text for item in items for text in strings(item)}
    names = originals(connection, "session", [session_id], spoken)
    kinds = {"run": tables["runs"]["run_id"].to_pylist(), "capture": tables["captures"]["capture_id"].to_pylist()}
    names |= originals(connection, "run", kinds["run"], spoken)
    names |= originals(connection, "capture", kinds["capture"], spoken)
    for kind, ids in {"session": [session_id], **kinds}.items():
        for one in ids:
            check_id(kind, names.get(one, one))
    return names


def _check_tensors(connection: DuckDBPyConnection, tables: Mapping[str, Any], wanted: Collection[Key]) -> None:
    """Before any is read. Raises BundleRefused."""
    owners = {*tables["runs"]["run_id"].to_pylist(), *tables["captures"]["capture_id"].to_pylist()}
    known = {owner: tensors.find(connection, owner) for owner in owners}
    for owner, name in wanted:
        check_tensor_name(name)
        if owner not in owners:
            raise BundleRefused(f"The tensor {name!r} is of {owner[:64]!r}, which is not among the runs to carry.")
    if len(set(wanted)) > MAX_TENSORS:
        raise BundleRefused(f"The bundle would hold {len(set(wanted)):,} tensors; it may hold at most {MAX_TENSORS:,}.")
    sizes = [known[owner][name].nbytes for owner, name in set(wanted) if name in known[owner]]
    check_sizes({TENSORS: sum(sizes)})


def _vocabulary(texts: Mapping[str, Mapping[int, str]], captures: Any) -> Any:
    strange = set(texts) - set(captures["tokenizer"].to_pylist())
    if strange:
        raise BundleRefused(f"The vocabulary of {min(strange)[:64]!r} belongs to none of the runs to carry.")
    try:
        return vocabulary.as_table(texts, bundle_schemas()["vocabulary"])
    except ValueError as error:
        raise BundleRefused(str(error)) from None


def _found(store: Store, wanted: Collection[Key], names: Mapping[str, str]) -> Iterator[tuple[str, Tensor]]:
    for owner, name in sorted(set(wanted)):
        with suppress(TensorAbsent):
            yield f"{names.get(owner, owner)}/{name}", store.tensor(owner, name)


def _manifest(
    session: Session, items: tuple[Item, ...], names: Mapping[str, str], runs: Any, members: Mapping[str, bytes]
) -> bytes:
    told = [rewritten(item, names) for item in items]
    return canonical_json(
        {
            "format": FORMAT,
            "session": {
                "id": names.get(session.session_id, session.session_id),
                "title": session.title,
                "notes": session.notes,
                "created": session.created.isoformat(timespec="microseconds"),
                "updated": session.updated.isoformat(timespec="microseconds"),
            },
            "items": [vars(item) for item in told],
            "runs": provenance(runs, json.loads),
            "members": {
                name: {"bytes": len(data), "blake2b": hashlib.blake2b(data).hexdigest()}
                for name, data in members.items()
            },
        }
    ).encode("ascii")


def _zipped(members: Mapping[str, bytes]) -> io.BytesIO:
    """A zip that tells nothing of when, where and by whom it was written."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in sorted(members):
            info = zipfile.ZipInfo(name, _DATE)
            info.create_system = 3  # as on every Unix; the default is the system's own
            info.external_attr = (stat.S_IFREG | 0o644) << 16
            archive.writestr(info, members[name])
    return file
