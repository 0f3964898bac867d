"""Where a training on own text keeps what it needs to go on: ``EIGENSCOPE_HOME/saes-in-training/NAME``.

``request.json`` (written last, so a folder without it is none), ``chunks.safetensors`` (the token ids, so the text is not
needed again), ``states/`` in parts, ``checkpoint.safetensors`` and the log. Every file is whole: written beside, renamed.
"""

import contextlib
import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from cache.home import home
from probes.errors import BadRequest
from probes.saes.activations import Chunks
from probes.saes.fitting import LOG, steps_done
from probes.saes.own_request import OwnRequest
from probes.saes.own_text import OwnChunks
from probes.training_lock import is_locked, locked

__all__ = ["Unfinished", "discard", "in_training", "keep_request", "live_log", "read_chunks", "unfinished"]

_REQUEST, _CHUNKS, _STATES = "request.json", "chunks.safetensors", "states"
_VERSION = 1


@dataclass(frozen=True, slots=True)
class Unfinished:
    """A training that was begun. ``fingerprint`` is of the model it began with, ``done`` and ``steps`` say how far it is
    (no step is done while states are collected), ``busy`` whether a process is at it now."""

    folder: Path
    request: OwnRequest
    training_id: str
    fingerprint: str
    split: str
    documents: tuple[str, ...]
    steps: int
    done: int
    busy: bool

    @property
    def states(self) -> Path:
        return self.folder / _STATES


def in_training() -> Path:
    """The folder of all trainings that were begun."""
    return home() / "saes-in-training"


def keep_request(request: OwnRequest, chunks: OwnChunks, fingerprint: str, steps: int) -> Unfinished:
    """Write down what is to be trained. Raises BadRequest if a training of this name was begun already."""
    folder = in_training() / request.name
    if (folder / _REQUEST).is_file():
        raise BadRequest(
            f"A training called {request.name!r} was begun already: resume it, discard it, or choose another name."
        )
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    documents = tuple(dict.fromkeys((*chunks.train.sources, *chunks.held_out.sources)))
    number = {name: place for place, name in enumerate(documents)}
    tensors = {}
    for part, of_part in (("train", chunks.train), ("held_out", chunks.held_out)):
        tensors[part] = of_part.ids.to(torch.int32)
        tensors[f"{part}_document"] = torch.tensor([number[name] for name in of_part.sources], dtype=torch.int32)
    save_file(tensors, folder / _CHUNKS)
    digest = hashlib.blake2b((folder / _CHUNKS).read_bytes(), digest_size=16)
    digest.update(json.dumps([request.as_dict(), fingerprint]).encode())
    content = {
        "version": _VERSION,
        "request": request.as_dict(),
        "training_id": digest.hexdigest(),
        "fingerprint": fingerprint,
        "split": chunks.split,
        "documents": documents,
        "steps": steps,
    }
    partial = folder / f"{_REQUEST}.part"
    partial.write_text(json.dumps(content), encoding="utf-8")
    partial.replace(folder / _REQUEST)
    return _read(folder)


def unfinished(name: str | None = None) -> tuple[Unfinished, ...]:
    """The trainings that were begun, by name (or the one of that name); what cannot be read is left out."""
    place = in_training()
    folders = sorted(place.iterdir()) if place.is_dir() else []
    found = []
    for folder in folders:
        if (folder / _REQUEST).is_file() and name in (None, folder.name):
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                found.append(_read(folder))
    return tuple(found)


def read_chunks(begun: Unfinished) -> tuple[Chunks, Chunks]:
    """Chunks to train on and held out. Raises BadRequest if the file is damaged."""
    parts = []
    try:
        with safe_open(begun.folder / _CHUNKS, framework="pt") as file:
            for part in ("train", "held_out"):
                names = tuple(begun.documents[int(i)] for i in file.get_tensor(f"{part}_document"))
                parts.append(Chunks(file.get_tensor(part).long(), names))
    except (OSError, SafetensorError, IndexError) as error:
        raise BadRequest(
            f"The text of the training {begun.request.name!r} is damaged: {str(error)[:120]}; discard it."
        ) from None
    return parts[0], parts[1]


def live_log(name: str) -> pd.DataFrame:
    """The log so far of a training that was begun; empty if there is none yet."""
    try:
        return pd.read_csv(in_training() / name / LOG)
    except (OSError, ValueError):
        return pd.DataFrame()


def discard(name: str) -> None:
    """Throw away a training that was begun. Raises BadRequest if there is none, or a process is at it now."""
    found = unfinished(name)
    if not found:
        raise BadRequest(f"No training is called {name[:80]!r}.")
    with locked(found[0].folder, name):
        (found[0].folder / _REQUEST).unlink(missing_ok=True)
        shutil.rmtree(found[0].folder, ignore_errors=True)


def _read(folder: Path) -> Unfinished:
    content: dict[str, Any] = json.loads((folder / _REQUEST).read_text(encoding="utf-8"))
    if content["version"] != _VERSION or content["request"]["name"] != folder.name:
        raise ValueError("it is of another version, or was renamed")
    return Unfinished(
        folder=folder,
        request=OwnRequest(**content["request"]),
        training_id=str(content["training_id"]),
        fingerprint=str(content["fingerprint"]),
        split=str(content["split"]),
        documents=tuple(str(name) for name in content["documents"]),
        steps=int(content["steps"]),
        done=steps_done(folder),
        busy=is_locked(folder),
    )
