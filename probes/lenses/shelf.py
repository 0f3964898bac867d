"""Lenses and trainings as people find them: what was begun, what is installed, and a folder added from elsewhere."""

import contextlib
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open

from probes.errors import BadRequest
from probes.lenses.folder import config_of, lenses_folder, load_lens, save_lens
from probes.lenses.work import CHECKPOINT, Begun, begun, check_name, in_training
from probes.model.loaded import LoadedModel
from probes.training_lock import is_locked, locked

__all__ = ["Unfinished", "add_lens", "discard", "unfinished"]


@dataclass(frozen=True, eq=False)
class Unfinished:
    """A training that was begun. ``log`` holds the mean KL (nats, over all points) of the steps of its checkpoint; ``busy``
    says whether a process is at it now."""

    work: Begun
    log: tuple[float, ...]
    busy: bool

    @property
    def done(self) -> int:
        return len(self.log)


def unfinished(name: str | None = None) -> tuple[Unfinished, ...]:
    """The trainings that were begun, by name (or the one of that name); what cannot be read is left out."""
    place = in_training()
    folders = sorted(place.iterdir()) if place.is_dir() else []
    found = []
    for folder in folders:
        if name in (None, folder.name):
            with contextlib.suppress(BadRequest):
                found.append(Unfinished(begun(folder.name), _log(folder), is_locked(folder)))
    return tuple(found)


def discard(name: str) -> None:
    """Throw away a training that was begun. Raises BadRequest if there is none, or a process is at it now."""
    work = begun(name)
    with locked(work.folder, name):
        shutil.rmtree(work.folder, ignore_errors=True)


def add_lens(folder: Path, model: LoadedModel, name: str | None = None) -> Path:
    """Install the lens of a folder for this model: checked whole, then written anew, so that no byte of a pickle is copied.

    Raises BadRequest if it cannot be read, was trained with another unembedding, or its name is taken.
    """
    called = folder.resolve().name if name is None else name
    check_name(called)
    out = lenses_folder() / called
    if out.exists():
        raise BadRequest(f"There is a tuned lens called {called!r} already; choose another name by --name.")
    translators = load_lens(folder, model)
    made = lenses_folder() / f".{called}.part"
    shutil.rmtree(made, ignore_errors=True)
    save_lens(made, translators, config_of(model))
    os.rename(made, out)
    return out


def _log(folder: Path) -> tuple[float, ...]:
    try:
        with safe_open(folder / CHECKPOINT, framework="pt") as file:
            rows = json.loads(file.metadata()["state"])["log"]
        return tuple(sum(row) / len(row) for row in rows)
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, ZeroDivisionError):
        return ()
