"""A tuned lens in training: what was asked, the text it learns from, and where it stands, in ``lenses-in-training/NAME``.

``request.json`` is written last, so a folder without it is none; ``chunks.safetensors`` holds the token ids, so the text is
not needed again; ``checkpoint.safetensors`` the translators and Adam's moments. Every file is written beside and renamed.
"""

import dataclasses
import hashlib
import json
import math
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int64
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from analysis.tuned_lens import TunedLensConfig, TunedLensTrainer
from cache.home import home
from probes.errors import BadRequest
from probes.lenses.folder import lenses_folder
from probes.saes.activations import CONTEXT
from probes.saes.own_request import MIN_CHUNKS
from probes.saes.own_text import OwnChunks

__all__ = [
    "CHECKPOINT",
    "CHUNKS_A_STEP",
    "LEARNING_RATE",
    "POSITIONS",
    "Begun",
    "LensRequest",
    "begun",
    "check_name",
    "in_training",
    "keep",
    "restore",
    "store",
]

CHUNKS_A_STEP, POSITIONS = 4, 16
LEARNING_RATE = 1e-3
_REQUEST, _CHUNKS, CHECKPOINT = "request.json", "chunks.safetensors", "checkpoint.safetensors"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_MAX_TOKENS = 20_000_000


@dataclass(frozen=True, slots=True)
class LensRequest:
    """A lens to train: ``tokens`` are read at most once each, in chunks of 128, of which 16 positions each are scored.

    Raises BadRequest naming what does not fit.
    """

    name: str
    model: str
    tokens: int = 200_000
    learning_rate: float = LEARNING_RATE
    seed: int = 0

    def __post_init__(self) -> None:
        check_name(self.name)
        if not MIN_CHUNKS * CONTEXT <= self.tokens <= _MAX_TOKENS:
            raise BadRequest(f"tokens must lie in {MIN_CHUNKS * CONTEXT:,}..{_MAX_TOKENS:,}, not {self.tokens:,}.")
        if not (math.isfinite(self.learning_rate) and 1e-6 <= self.learning_rate <= 0.1):
            raise BadRequest(f"learning rate must lie in 1e-06..0.1, not {self.learning_rate:g}.")
        if not 0 <= self.seed < 2**31:
            raise BadRequest(f"seed must lie in 0..{2**31 - 1}, not {self.seed}.")


@dataclass(frozen=True, slots=True, eq=False)
class Begun:
    """A training that was begun with a model of this fingerprint."""

    folder: Path
    request: LensRequest
    fingerprint: str
    split: str
    train: Int64[Tensor, "chunks context"]
    held_out: Int64[Tensor, "held context"]

    @property
    def steps(self) -> int:
        return max(1, len(self.train) // CHUNKS_A_STEP)

    def order(self) -> Int64[Tensor, " chunks"]:
        """The chunks in the order they are learnt from, each once."""
        return torch.randperm(len(self.train), generator=torch.Generator().manual_seed(self.request.seed))


def check_name(name: str) -> None:
    """Raises BadRequest unless a lens may be called so."""
    if _NAME.fullmatch(name) is None or name.endswith(".") or name == "auto":
        raise BadRequest(
            "name must be 1..64 letters, digits, '.', '_' or '-', begin with a letter or digit, not end with '.', and "
            f"not be auto; {name[:80]!r} is not."
        )


def in_training() -> Path:
    """The folder of all trainings that were begun."""
    return home() / "lenses-in-training"


def keep(request: LensRequest, chunks: OwnChunks, fingerprint: str) -> Begun:
    """Write down what is to be trained. Raises BadRequest if a lens or a training of this name is there already."""
    folder = in_training() / request.name
    if (lenses_folder() / request.name).exists():
        raise BadRequest(
            f"There is a tuned lens called {request.name!r} already; choose another name, or remove its folder first."
        )
    if (folder / _REQUEST).is_file():
        raise BadRequest(
            f"A training called {request.name!r} was begun already: resume it, choose another name, or remove {folder}."
        )
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    ids = {"train": chunks.train.ids.to(torch.int32), "held_out": chunks.held_out.ids.to(torch.int32)}
    save_file(ids, folder / _CHUNKS)
    said = {"request": dataclasses.asdict(request), "fingerprint": fingerprint, "split": chunks.split}
    part = folder / f"{_REQUEST}.part"
    part.write_text(json.dumps(said), encoding="utf-8")
    part.replace(folder / _REQUEST)
    return begun(request.name)


def begun(name: str) -> Begun:
    """The training of that name. Raises BadRequest if there is none, or its files cannot be read."""
    folder = in_training() / name
    if _NAME.fullmatch(name) is None or not (folder / _REQUEST).is_file():
        raise BadRequest(f"No training of a tuned lens is called {name[:80]!r}.")
    try:
        said: dict[str, Any] = json.loads((folder / _REQUEST).read_text(encoding="utf-8"))
        ids = load_file(folder / _CHUNKS)
        request = LensRequest(**said["request"])
        fingerprint, split = str(said["fingerprint"]), str(said["split"])
        return Begun(folder, request, fingerprint, split, ids["train"].long(), ids["held_out"].long())
    except (OSError, ValueError, KeyError, TypeError, SafetensorError):
        raise BadRequest(f"The training {name!r} cannot be read; remove {folder}.") from None


def store(work: Begun, trainer: TunedLensTrainer, seconds: float) -> None:
    """Write a checkpoint; ``seconds`` is the time spent so far. Raises OSError if it cannot be written."""
    part = work.folder / f"{CHECKPOINT}.part"
    said = {"key": _key(work, trainer.config), "state": trainer.as_json(), "seconds": repr(seconds)}
    try:
        save_file(trainer.tensors(), part, metadata=said)
    except SafetensorError as error:
        raise OSError(f"The checkpoint could not be written: {str(error)[:200]}.") from None
    part.replace(work.folder / CHECKPOINT)


def restore(work: Begun, config: TunedLensConfig) -> tuple[TunedLensTrainer, float] | None:
    """The trainer as it was left and the seconds it took; None where there is no whole checkpoint of this training."""
    try:
        with safe_open(work.folder / CHECKPOINT, framework="pt") as file:
            said = file.metadata()
            if said["key"] == _key(work, config):
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  not a mapping
                return TunedLensTrainer.restored(config, tensors, said["state"]), float(said["seconds"])
    except (OSError, SafetensorError, KeyError, TypeError, ValueError):
        pass
    return None


def _key(work: Begun, config: TunedLensConfig) -> str:
    text = hashlib.blake2b(work.train.numpy().tobytes(), digest_size=16).hexdigest()
    return repr((config, work.request, work.fingerprint, text, CHUNKS_A_STEP, POSITIONS))
