"""A training that can be put down and taken up: checkpoints while it runs, the same weights to the bit afterwards.

A checkpoint is one safetensors file with its JSON in the header, written beside the old one and renamed: a process that
is killed at any moment leaves a whole one. Beside it stands the log so far, as CSV, for those who watch.
"""

import hashlib
import math
import time
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
from jaxtyping import Float16, Float64
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from analysis.sae_metrics import ReconstructionQuality, density, reconstruction_quality
from analysis.topk_sae import TopKConfig, TopKSAE, TopKTrainer
from probes.errors import NonFinite
from probes.progress import Cancelled, Progress
from probes.saes.activations import random_batches

__all__ = ["CHECKPOINT", "LOG", "Fitted", "Stopped", "densities", "fit", "input_scale", "measure", "steps_done"]

CHECKPOINT, LOG = "checkpoint.safetensors", "training_log.csv"
EVERY = 60.0  # seconds between checkpoints
_SAMPLE = 50_000
_MEASURE_BATCH = 2048
_LOG_EVERY = 1.0


class Stopped(Cancelled):
    """Cancelled between two steps, with a checkpoint to go on from."""

    def __init__(self, step: int, steps: int) -> None:
        Exception.__init__(self, f"Stopped after step {step:,} of {steps:,}; it can be resumed from there.")


@dataclass(frozen=True, eq=False)
class Fitted:
    """A trained SAE in the units of its scaled input, the log, and the seconds it took, pauses left out."""

    sae: TopKSAE
    log: pd.DataFrame
    seconds: float


def input_scale(states: Float16[Tensor, "states d_model"]) -> tuple[float, Float16[Tensor, "sample d_model"]]:
    """The factor that brings a sample of states to a mean norm of sqrt(d_model), and that sample."""
    sample = states[:: max(1, len(states) // _SAMPLE)]
    return math.sqrt(states.shape[1]) / sample.float().norm(dim=1).mean().item(), sample


def fit(
    config: TopKConfig,
    states: Float16[Tensor, "states d_model"],
    batch: int,
    scale: float,
    progress: Progress,
    folder: Path,
    every: float = EVERY,
) -> Fitted:
    """Train on states in random batches, from the checkpoint in ``folder`` if there is one of this very training.

    A checkpoint is written every ``every`` seconds and when the work is cancelled, and taken away at the end.

    Raises:
        Stopped: cancelled; the checkpoint is there.
        NonFinite: the states or the loss are not finite.
    """
    key = repr((config, batch, scale, hashlib.blake2b(states.contiguous().numpy().data, digest_size=16).hexdigest()))
    trainer, spent = _restored(folder / CHECKPOINT, config, key)
    started = saved = shown = time.monotonic()
    started -= spent
    batches = random_batches(states, batch, scale, config.seed, 0 if trainer is None else trainer.step)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        x = None
        if trainer is None:
            x = next(batches)
            trainer = TopKTrainer(config, x)
        while trainer.step < config.steps:
            explained = trainer.update(next(batches) if x is None else x)
            x, now = None, time.monotonic()
            if now - shown > _LOG_EVERY or trainer.step == 1:
                shown = now
                _write_log(trainer.log, folder)
            if now - saved > every:
                saved = now
                _save(trainer, folder, key, time.monotonic() - started)
            if trainer.step < config.steps:
                _step(progress, trainer, explained)
    except Cancelled:
        assert trainer is not None
        _save(trainer, folder, key, time.monotonic() - started)
        _write_log(trainer.log, folder)
        raise Stopped(trainer.step, config.steps) from None
    except ValueError as error:
        raise NonFinite(
            f"Training broke off: {error}; a lower learning rate than {config.learning_rate:g} may help."
        ) from None
    (folder / CHECKPOINT).unlink(missing_ok=True)
    _write_log(trainer.log, folder)
    return Fitted(trainer.sae.detached(), trainer.log, time.monotonic() - started)


def steps_done(folder: Path) -> int:
    """Steps the checkpoint in a folder has behind it, 0 if there is none; no weight is read."""
    try:
        with safe_open(folder / CHECKPOINT, framework="pt") as file:
            return int(file.metadata()["step"])
    except (OSError, SafetensorError, KeyError, TypeError, ValueError):
        return 0


@torch.no_grad()
def measure(sae: TopKSAE, states: Float16[Tensor, "states d_model"], variance: float) -> ReconstructionQuality:
    """Quality of an SAE on a sample of states, all of them kept."""
    rebuilt, counts = [], []
    for x in torch.split(states, _MEASURE_BATCH):
        activations = sae.encode(x.float())
        rebuilt.append(sae.decode(activations))
        counts.append((activations > 0).sum(dim=1))
    keep = torch.ones(len(states), dtype=torch.bool)
    return reconstruction_quality(states.float(), torch.cat(rebuilt), torch.cat(counts), keep, variance)


@torch.no_grad()
def densities(sae: TopKSAE, states: Float16[Tensor, "states d_model"]) -> Float64[Tensor, "latents"]:
    """Share of the states each latent is active on."""
    parts = [density(sae.encode(x.float())) * len(x) for x in torch.split(states, _MEASURE_BATCH)]
    return torch.stack(parts).sum(dim=0) / len(states)


def _step(progress: Progress, trainer: TopKTrainer, explained: float) -> None:
    done, steps = trainer.step, trainer.config.steps
    progress.step(done / steps, f"step {done:,} of {steps:,}, explained variance {explained:.3f}")


def _save(trainer: TopKTrainer, folder: Path, key: str, seconds: float) -> None:
    partial = folder / f"{CHECKPOINT}.part"
    metadata = {"key": key, "state": trainer.as_json(), "step": str(trainer.step), "seconds": repr(seconds)}
    try:
        save_file(trainer.tensors(), partial, metadata=metadata)
    except SafetensorError as error:
        raise OSError(f"The checkpoint could not be written: {str(error)[:200]}.") from None
    partial.replace(folder / CHECKPOINT)


def _restored(path: Path, config: TopKConfig, key: str) -> tuple[TopKTrainer | None, float]:
    """The trainer of a checkpoint and the seconds it took; None if there is none, or it is damaged or of other work."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata()
            if metadata["key"] != key:
                return None, 0.0
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  not a mapping
        return TopKTrainer.restored(config, tensors, metadata["state"]), float(metadata["seconds"])
    except (OSError, SafetensorError, KeyError, TypeError, ValueError):
        return None, 0.0


def _write_log(log: pd.DataFrame, folder: Path) -> None:
    partial = folder / f"{LOG}.part"
    log.to_csv(partial, index=False)
    partial.replace(folder / LOG)
