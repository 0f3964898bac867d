"""A bundle of unknown origin, read and checked as a whole before anything is stored."""

import hashlib
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from cache.bundle_format import (
    FORMAT,
    MANIFEST,
    MEMBERS,
    OF_CAPTURES,
    OF_RUNS,
    TENSORS,
    Bundle,
    BundleRefused,
    Readable,
    bundle_schemas,
    check_id,
    provenance,
    reason_of,
    table_member,
)
from cache.bundle_tables import read_table
from cache.bundle_zip import check_names, entries_of, read_member
from cache.session_rules import MAX_ITEMS, MAX_NAME, Item, check_item, check_texts, storable
from cache.strict_json import check_canonical, read_json
from cache.tensors import DTYPES

__all__ = ["MAX_TENSORS", "check_tensor_name", "read_bundle", "read_manifest"]

MAX_TENSORS = 4096
_MAX_TENSOR_HEADER = 1 << 20
_RESIDUAL = "resid"
_WHEN = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{6}")
_SESSION = {"id": str, "title": str, "notes": str, "created": str, "updated": str}
_ITEM = {"view": str, "params": dict, "selection": dict, "caption": str, "run_id": (str, type(None))}
_MEMBER = {"bytes": int, "blake2b": str}
_TOP = {"format": int, "session": dict, "items": list, "runs": dict, "members": dict}


def read_bundle(source: Readable) -> Bundle:
    """Read a bundle from a seekable file. Raises BundleRefused, and stores nothing, for whatever is not one.

    It has at most 64 members, 64 MB each and 256 MB in all, of the names a bundle has, packed at most 100 times; their
    checksums, the store's columns and types, and ids that are all explained in it.
    """
    with entries_of(source) as (archive, entries):
        if MANIFEST not in entries:
            check_names(entries)
            raise BundleRefused(f"The file is no bundle: it has no {MANIFEST}.")
        manifest = read_manifest(read_member(archive, entries[MANIFEST]))
        check_names(entries)
        told = manifest["members"]
        if set(told) != entries.keys() - {MANIFEST}:
            raise BundleRefused("The members of the bundle are not those its manifest lists.")
        members = {name: read_member(archive, entries[name]) for name in told}
    for name, data in members.items():
        if told[name] != {"bytes": len(data), "blake2b": hashlib.blake2b(data).hexdigest()}:
            raise BundleRefused(f"The member {name!r} of the bundle is not what was written: its checksum differs.")
    tables = {
        name: read_table(name, members[table_member(name)]) if table_member(name) in members else schema.empty_table()
        for name, schema in bundle_schemas().items()
    }
    tensors = _tensors(members[TENSORS]) if TENSORS in members else {}
    bundle = _bundle(manifest, tables, tensors)
    _check_ids(bundle)
    return bundle


def read_manifest(data: bytes) -> dict[str, Any]:
    """The manifest as it is in the file, with every field of its type. Raises BundleRefused."""
    what = "The manifest of the bundle"
    try:
        manifest = read_json(data, what)
        if isinstance(manifest, dict) and type(manifest.get("format")) is int and manifest["format"] > FORMAT:
            raise BundleRefused(
                f"The bundle has format {manifest['format']}, this program reads format {FORMAT}: update the program."
            )
        check_canonical(manifest, data, what)
        _check_fields(what, manifest, _TOP)
        if manifest["format"] != FORMAT:
            raise BundleRefused(f"{what} has format {manifest['format']}; there is only format {FORMAT}.")
        _check_fields(f"{what}, in 'session',", manifest["session"], _SESSION)
        for item in manifest["items"]:
            _check_fields(f"{what}, in an item,", item, _ITEM)
        for name, told in manifest["members"].items():
            if name not in MEMBERS or name == MANIFEST:
                raise BundleRefused(f"{what} lists a member {name[:80]!r}, which no bundle has.")
            _check_fields(f"{what}, in a member,", told, _MEMBER)
        _items(manifest)
        check_texts(manifest["session"]["title"], manifest["session"]["notes"])
        for column in ("created", "updated"):
            _when(manifest["session"][column])
    except ValueError as error:
        raise error if isinstance(error, BundleRefused) else BundleRefused(str(error)) from None
    return dict(manifest)


def check_tensor_name(name: str) -> None:
    """Raises BundleRefused for residual states, which are never handed on, and for what is no name."""
    if name.startswith(_RESIDUAL):
        raise BundleRefused(f"The tensor {name[:64]!r} is a residual state, and a bundle holds none.")
    if not name or len(name) > MAX_NAME or not storable(name):
        raise BundleRefused(f"The tensor name {name[:64]!r} must have 1 to {MAX_NAME} characters.")


def _check_fields(what: str, value: Any, fields: Mapping[str, Any]) -> None:
    if not isinstance(value, dict) or value.keys() != fields.keys():
        raise BundleRefused(f"{what} must be an object with exactly {', '.join(sorted(fields))}.")
    for name, kind in fields.items():
        if not isinstance(value[name], kind) or isinstance(value[name], bool):
            raise BundleRefused(f"{what} has a wrong type of {name!r}.")


def _items(manifest: Mapping[str, Any]) -> tuple[Item, ...]:
    """Raises ValueError as the store does for items it does not take."""
    if len(manifest["items"]) > MAX_ITEMS:
        raise BundleRefused(f"The bundle has {len(manifest['items'])} items; a session has at most {MAX_ITEMS}.")
    items = tuple(Item(**item) for item in manifest["items"])
    for place, item in enumerate(items):
        check_item(item, place)
    return items


def _when(text: str) -> datetime:
    try:
        if _WHEN.fullmatch(text):
            return datetime.fromisoformat(text)
    except ValueError:  # the 31st of February
        pass
    raise BundleRefused(f"The manifest of the bundle has {text[:40]!r} for a date.")


def _bundle(
    manifest: Mapping[str, Any], tables: Mapping[str, Any], tensors: Mapping[tuple[str, str], Tensor]
) -> Bundle:
    session = manifest["session"]
    return Bundle(
        session_id=session["id"],
        title=session["title"],
        notes=session["notes"],
        created=_when(session["created"]),
        updated=_when(session["updated"]),
        items=_items(manifest),
        runs=manifest["runs"],
        tables=tables,
        tensors=tensors,
    )


def _tensors(data: bytes) -> dict[tuple[str, str], Tensor]:
    """Tensors by (owner id, name)."""
    if int.from_bytes(data[:8], "little") > _MAX_TENSOR_HEADER:
        raise BundleRefused(f"The tensors of the bundle have a header of over {_MAX_TENSOR_HEADER:,} bytes.")
    try:
        found = load(data)
    except (SafetensorError, ValueError, KeyError, RuntimeError, TypeError, OverflowError) as error:
        raise BundleRefused(f"The tensors of the bundle are no whole safetensors file ({reason_of(error)}).") from None
    if len(found) > MAX_TENSORS:
        raise BundleRefused(f"The bundle has {len(found):,} tensors; it may have at most {MAX_TENSORS:,}.")
    tensors = {}
    for key, tensor in found.items():
        owner, _, name = key.partition("/")
        check_tensor_name(name)
        if tensor.dtype not in DTYPES.values():
            raise BundleRefused(
                f"The tensor {name!r} of the bundle is {tensor.dtype}; the store keeps {', '.join(DTYPES)}."
            )
        tensors[owner, name] = tensor
    return tensors


def _check_ids(bundle: Bundle) -> None:
    """Raises BundleRefused unless every id is one, means one thing, and belongs to something that is there."""
    tables = bundle.tables
    runs, captures = tables["runs"]["run_id"].to_pylist(), tables["captures"]["capture_id"].to_pylist()
    ids = [bundle.session_id, *runs, *captures]
    for kind, found in {"session": [bundle.session_id], "run": runs, "capture": captures}.items():
        for one in found:
            check_id(kind, one)
    if len(set(ids)) < len(ids):
        raise BundleRefused("The bundle has one id for two things.")
    if set(tables["runs"]["capture_id"].to_pylist()) != set(captures):
        raise BundleRefused("The bundle does not have exactly the captures of its runs.")
    if provenance(tables["runs"], lambda text: read_json(text.encode(), "The column")) != bundle.runs:
        raise BundleRefused("The manifest of the bundle tells something else of its runs than its tables.")
    owners = {"weight_spectra": set(tables["runs"]["fingerprint"].to_pylist())}
    owners |= {"vocabulary": set(tables["captures"]["tokenizer"].to_pylist())}
    owners |= {name: set(runs) for name in OF_RUNS} | {name: set(captures) for name in OF_CAPTURES}
    for name, known in owners.items():
        if not set(tables[name].column(0).unique().to_pylist()) <= known:
            raise BundleRefused(
                f"The member {table_member(name)} of the bundle has rows of something it does not carry."
            )
    for place, item in enumerate(bundle.items):
        if item.run_id is not None and item.run_id not in bundle.runs:
            raise BundleRefused(f"Item {place + 1} of the bundle shows a run it does not carry.")
    if not {owner for owner, _ in bundle.tensors} <= {*runs, *captures}:
        raise BundleRefused("The bundle has a tensor of something it does not carry.")
    numbers = tables["vocabulary"].select(["tokenizer", "token_id"])
    if numbers.group_by(numbers.schema.names).aggregate([]).num_rows < numbers.num_rows:
        raise BundleRefused("The vocabulary of the bundle has two texts for one token id.")
