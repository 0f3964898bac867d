"""What a training will take, said before it starts: steps, bytes on disk and in memory, seconds; refused if too much."""

import shutil
import time
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch

from probes.errors import PlanRefused
from probes.plan import memory_limit
from probes.saes.activations import CONTEXT
from probes.saes.own_request import OwnRequest

__all__ = ["Forward", "TrainingPlan", "batch_of", "plan_training", "refuse_what_does_not_fit", "steps_of"]

_HALF, _FLOAT, _INDEX = 2, 4, 8
_BATCH, _FEW_STEPS = 1024, 16
_FREE_SHARE = 0.95
# Assumed: what a pass and a step reach of the speed of one large product. The time left, while it runs, is measured.
_PASS_EFFICIENCY, _STEP_EFFICIENCY = 0.6, 0.65
_HELD_OUT = 1.15


@dataclass(frozen=True, slots=True)
class Forward:
    """The shape of a model as far as the time of a pass depends on it: blocks, d_model, and weights in a block."""

    n_layers: int
    d_model: int
    block_weights: int


@dataclass(frozen=True, slots=True)
class TrainingPlan:
    """Predicted from the request and the number of tokens there are. ``collecting`` and ``fitting`` are seconds."""

    d_sae: int
    tokens: int
    batch: int
    steps: int
    disk_bytes: int
    memory_bytes: int
    collecting: float
    fitting: float

    @property
    def seconds(self) -> float:
        return self.collecting + self.fitting


def plan_training(request: OwnRequest, found: int, shape: Forward) -> TrainingPlan:
    """The plan for a text of ``found`` tokens. Raises BadRequest where the request does not fit the model."""
    d_sae = request.check(shape.n_layers, shape.d_model)
    tokens = min(request.tokens, found)
    batch = batch_of(tokens)
    steps = steps_of(tokens, request.epochs, batch)
    weights = 2 * shape.d_model * d_sae + d_sae + shape.d_model
    states = round(_HELD_OUT * tokens) * (_HALF * shape.d_model + _INDEX)
    rate = _flops(int(time.monotonic() // 60))
    pass_flops = 2 * shape.block_weights * request.point + 4 * CONTEXT * shape.d_model * request.point
    return TrainingPlan(
        d_sae=d_sae,
        tokens=tokens,
        batch=batch,
        steps=steps,
        disk_bytes=states + 7 * weights * _FLOAT,  # two checkpoints of three tensors a weight, and the SAE
        memory_bytes=2 * states + 5 * weights * _FLOAT + 6 * batch * d_sae * _FLOAT,
        collecting=_HELD_OUT * tokens * pass_flops / (rate * _PASS_EFFICIENCY),
        fitting=steps * batch * 12 * shape.d_model * d_sae / (rate * _STEP_EFFICIENCY),
    )


def refuse_what_does_not_fit(plan: TrainingPlan, place: Path) -> None:
    """Raises PlanRefused, naming the number and the knob, where disk or memory would not do; what lies in ``place``
    already need not be had again."""
    knobs = "train on fewer tokens or at a smaller width"
    there = next(folder for folder in (place, *place.parents) if folder.is_dir())
    free = int(shutil.disk_usage(there).free * _FREE_SHARE)
    held = sum(file.stat().st_size for file in place.rglob("*.safetensors"))
    if plan.disk_bytes > free + held:
        raise PlanRefused(
            f"Training on {plan.tokens:,} tokens at {plan.d_sae:,} latents needs about {plan.disk_bytes >> 20:,} MB on disk, "
            f"but {free >> 20:,} MB are free below {place.name}; {knobs}."
        )
    limit, says = memory_limit()
    if plan.memory_bytes > limit:
        raise PlanRefused(
            f"Training on {plan.tokens:,} tokens at {plan.d_sae:,} latents needs about {plan.memory_bytes >> 20:,} MB of memory, "
            f"but {limit >> 20:,} MB may be used ({says}); {knobs}."
        )


def batch_of(states: int) -> int:
    """States in a step: 1,024, or fewer, down to 64, where an epoch would have less than 16 steps."""
    batch = _BATCH
    while batch > 64 and states < _FEW_STEPS * batch:
        batch //= 2
    return batch


def steps_of(states: int, epochs: float, batch: int) -> int:
    return max(1, round(epochs * states / batch))


@lru_cache(maxsize=1)
def _flops(minute: int) -> float:
    """Multiplications and additions a second of a product of the size training makes, as busy as the machine is in this
    ``minute``; takes a tenth of a second."""
    a, b = torch.ones(_BATCH, 512), torch.ones(512, 4096)
    a @ b
    started, products = time.perf_counter(), 0
    while time.perf_counter() - started < 0.1:
        a @ b
        products += 1
    return products * 2.0 * a.numel() * b.shape[1] / (time.perf_counter() - started)
