"""An index beside its SAE: Parquet files in the folder ``index/`` that another machine reads into its store.

Numbers are narrowed for shipping: activations, cosines and overlaps are in half precision, other numbers in single. What
is read back is checked as somebody else's file: names, sizes, digests, columns, and that every number points somewhere.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from cache.saes import INDEX_TABLES, index_key
from cache.store import Store
from cache.strict_json import read_json
from probes.saes.folder import SAEFormatError, content_digest, read_info

__all__ = ["FOLDER", "export_index", "import_shipped_index", "shipped_row"]

FOLDER = "index"
_FORMAT = 1
_ROW = "index.json"
_FILES = {f"{name.removeprefix('sae_')}.parquet": name for name in INDEX_TABLES}
_LARGEST = 64 << 20
_UNFOLDED = 1 << 30
_HALF = float(np.finfo(np.float16).max)
_KINDS = {"sae_hits": {"top", "quantile"}, "sae_neighbours": {"decoder", "coactive", "phi"}}
_WHOLE = ("n_sequences", "context", "n_tokens", "n_left_out", "seed", "layer")
_TEXTS = ("sae", "content", "fingerprint", "model", "corpus", "created")
_SINGLE = ("max", "mean", "encoder_cosine", "x", "y", "precision", "recall")
_HALVES = ("mean_activation", "value")
_DERIVED = ["first", "activation"]  # the window is known from the place, and the activation stands in it


def export_index(store: Store, index_id: str, sae_folder: Path, licences: Mapping[str, str] | None = None) -> Path:
    """Write an index of the store into the SAE's folder, in place of one that is there; returns the folder ``index/``.

    ``licences`` says of each source of text under which terms its excerpts may be handed on.

    Raises:
        SAEFormatError: the index is not one of this SAE.
        KeyError: the store has no such index.
    """
    known = store.sae_indexes()
    rows = known[known["index_id"] == index_id]
    if rows.empty:
        raise KeyError(index_id)
    row = rows.iloc[0].drop("index_id").to_dict()
    if row["content"] != content_digest(sae_folder):
        raise SAEFormatError(
            f"{sae_folder.name}: the index {index_id[:8]} was made of another SAE or of other weights."
        )
    row |= {"params": json.loads(row["params"]), "created": row["created"].isoformat()}
    row |= {name: int(row[name]) for name in _WHOLE}
    out = sae_folder / FOLDER
    partial = sae_folder / f".{FOLDER}.part"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    for file, name in _FILES.items():
        frame = store.sae_table(index_id, name)
        table = _narrow(frame.drop(columns=_DERIVED) if name == "sae_hits" else frame)
        pq.write_table(table, partial / file, compression="zstd", compression_level=19)
    files = {file: _digest(partial / file) for file in _FILES}
    said = {"format": _FORMAT, "index": row, "files": files, "licences": dict(licences or {})}
    (partial / _ROW).write_text(json.dumps(said, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    shutil.rmtree(out, ignore_errors=True)
    partial.rename(out)
    return out


def shipped_row(folder: Path) -> dict[str, Any] | None:
    """What the index in an SAE's folder says of itself, None if there is none; its tables are not read.

    Raises:
        SAEFormatError: it is damaged, of a newer format, or of another SAE.
    """
    return None if (said := _said(folder)) is None else dict(said["index"])


def import_shipped_index(store: Store, folder: Path) -> str | None:
    """Bring the index in an SAE's folder into the store; its id, None if the folder has none.

    An index that is stored already is left as it is, so this may be called whenever an index is looked for.

    Raises:
        SAEFormatError: the index is damaged, of a newer format, or of another SAE; nothing is stored then.
    """
    said = _said(folder)
    if said is None:
        return None
    row = said["index"]
    key = index_key(row)
    if key in set(store.sae_indexes()["index_id"]):
        return key
    tables = {name: _table(folder, file, str(said["files"].get(file))) for file, name in _FILES.items()}
    try:
        _check_tables(tables, read_info(folder).d_sae, row["n_sequences"])
        tables["sae_hits"] = _with_windows(tables, int(row["params"]["rules"]["around"]))
        return store.put_sae_index({**row, "created": datetime.fromisoformat(row["created"])}, tables)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _refused(folder, " ".join(str(error).split())[:200]) from error


def _said(folder: Path) -> dict[str, Any] | None:
    path = folder / FOLDER / _ROW
    if not path.is_file():
        return None
    try:
        with path.open("rb") as file:
            said: Any = read_json(file.read(1 << 20), _ROW)
        newer = said["format"] != _FORMAT
        row, files = said["index"], said["files"]
        whole = all(type(row[name]) is int and 0 <= row[name] < 1 << 62 for name in _WHOLE)
        texts = all(type(row[name]) is str for name in _TEXTS) and isinstance(files, dict)
        datetime.fromisoformat(row["created"])
        index_key(row)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _refused(folder, f"{_ROW} cannot be read ({str(error)[:120]})") from None
    if newer:
        raise SAEFormatError(
            f"{folder.name}: its index has format {str(said['format'])[:20]}; this program reads {_FORMAT}."
        )
    if not (whole and texts):
        raise _refused(folder, f"{_ROW} has a value of the wrong kind")
    if row["content"] != content_digest(folder):
        raise SAEFormatError(f"{folder.name}: its index was made of another SAE or of other weights.")
    return dict(said)


def _table(folder: Path, file: str, digest: str) -> pd.DataFrame:
    path = folder / FOLDER / file
    if not path.is_file():
        raise _refused(folder, f"there is no {file}")
    if path.stat().st_size > _LARGEST:
        raise _refused(folder, f"{file} is larger than {_LARGEST >> 20} MB")
    if _digest(path) != digest:
        raise _refused(folder, f"{file} is not the file it was")
    try:
        data = path.read_bytes()
        told = pq.read_metadata(pa.BufferReader(data))
        unfolded = sum(told.row_group(number).total_byte_size for number in range(told.num_row_groups))
        if unfolded > _UNFOLDED or told.num_rows > _UNFOLDED // 8:
            raise _refused(folder, f"{file} unfolds to more than {_UNFOLDED >> 30} GB")
        frame: pd.DataFrame = pq.read_table(pa.BufferReader(data)).to_pandas()
    except (pa.ArrowException, OSError, MemoryError) as error:
        raise _refused(folder, f"{file} is no table ({str(error)[:120]})") from None
    return frame


def _check_tables(tables: Mapping[str, pd.DataFrame], n_latents: int, n_sequences: int) -> None:
    """Raises ValueError, or KeyError for a missing column, unless every number points at something that is there."""
    latents, sequences, hits = tables["sae_latents"], tables["sae_sequences"], tables["sae_hits"]
    if latents["latent"].tolist() != list(range(n_latents)):
        raise ValueError(f"latents.parquet must have one row for each of the {n_latents} latents")
    if sequences["seq"].tolist() != list(range(n_sequences)):
        raise ValueError(f"sequences.parquet must have one row for each of the {n_sequences} sequences")
    for name in ("sae_hits", "sae_latent_tokens", "sae_neighbours"):
        others = tables["sae_neighbours"]["other"] if name == "sae_neighbours" else tables[name]["latent"]
        for column in (tables[name]["latent"], others):
            if not column.between(0, n_latents - 1).all():
                raise ValueError(f"a latent of {name} lies outside 0..{n_latents - 1}")
        if name in _KINDS and not set(tables[name]["kind"]) <= _KINDS[name]:
            raise ValueError(f"a row of {name} has an unknown kind")
    lengths = sequences["token_ids"].map(len).to_numpy()
    if not hits["seq"].between(0, n_sequences - 1).all():
        raise ValueError(f"a sequence of sae_hits lies outside 0..{n_sequences - 1}")
    if not ((hits["pos"] >= 0) & (hits["pos"] < lengths[hits["seq"]])).all():
        raise ValueError("an example of sae_hits lies outside its sequence")


def _with_windows(tables: Mapping[str, pd.DataFrame], around: int) -> pd.DataFrame:
    """The examples with where their windows begin and the activation in question. Raises ValueError if it is not there."""
    hits = tables["sae_hits"]
    length = tables["sae_sequences"]["token_ids"].map(len).to_numpy()[hits["seq"]]
    first = (hits["pos"] - around).clip(lower=0)
    if not (hits["activations"].map(len) == np.minimum(hits["pos"] + around + 1, length) - first).all():
        raise ValueError("a window of sae_hits has not the length it should have")
    peaks = [float(shown[at]) for shown, at in zip(hits["activations"], hits["pos"] - first, strict=True)]
    return hits.assign(first=first, activation=peaks)


def _narrow(frame: pd.DataFrame) -> Any:
    """The table in the smallest types that hold it."""
    columns: dict[str, Any] = {}
    for name, column in frame.items():
        if name == "token_ids":
            small = pa.uint16() if max((int(ids.max(initial=0)) for ids in column), default=0) < 1 << 16 else pa.int32()
            columns[name] = pa.array(column, pa.list_(small))
        elif name == "activations":
            columns[name] = _halves(column)
        elif name in _SINGLE:
            columns[str(name)] = pa.array(column.to_numpy(np.float32), from_pandas=True)
        elif name in _HALVES:
            columns[str(name)] = pa.array(_narrowest(column.to_numpy(np.float64)))
        elif name == "histogram":
            columns[name] = pa.array(column, pa.list_(pa.int32()))
        else:
            columns[str(name)] = pa.array(column, from_pandas=True)
    return pa.table(columns)


def _halves(column: pd.Series[Any]) -> Any:
    """Lists of floats as one list of narrow ones and its offsets."""
    lengths = [len(values) for values in column]
    flat = np.concatenate([*column, np.empty(0, np.float32)])
    offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32))
    return pa.ListArray.from_arrays(offsets, pa.array(_narrowest(flat)))


def _narrowest(values: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.floating[Any]]:
    """Half precision, or single where a value would overflow."""
    return values.astype(np.float16 if np.nanmax(values, initial=0.0) <= _HALF else np.float32)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def _refused(folder: Path, why: str) -> SAEFormatError:
    return SAEFormatError(f"{folder.name}: its index is damaged: {why}.")
