"""Training a tuned lens: begun, broken off, taken up again, measured on text it has not seen, and installed."""

import dataclasses
import json
import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float32, Float64
from torch import Tensor

from analysis.lens import mean_corrected
from analysis.tuned_lens import LAYERS_AT_ONCE, Coordinates, Translators, TunedLensConfig, TunedLensTrainer, kl_to_final
from probes.errors import BadRequest, NonFinite, PlanRefused
from probes.lenses.folder import config_of, lenses_folder, save_lens
from probes.lenses.states import every_position, sampled_positions, states_at
from probes.lenses.work import CHUNKS_A_STEP, POSITIONS, Begun, LensRequest, begun, keep, restore, store
from probes.model.loaded import LoadedModel
from probes.plan import memory_limit
from probes.progress import Cancelled, Progress
from probes.saes.activations import CONTEXT
from probes.saes.fitting import Stopped
from probes.saes.own_request import Text
from probes.saes.own_text import chunk_texts
from probes.saes.training import duration
from probes.training_lock import locked

__all__ = ["REPORT", "begin", "held_out_kl", "proceed", "read_report"]

REPORT = "training.json"
EVERY = 60.0  # seconds between checkpoints
_MEASURED = 16  # held-out chunks at most: all their positions under three lenses
_FIRST = 32  # chunks whose states say how large each dimension is
_ROWS = 64  # of one unembedding
_LEARNING, _MEASURING = 0.85, 1.0


def begin(request: LensRequest, texts: Sequence[Text], model: LoadedModel) -> Begun:
    """Cut the text and write down what is to be trained; :func:`proceed` then does it.

    Raises BadRequest if the name is taken or there is too little text, PlanRefused if memory would not do.
    """
    facts = model.facts
    if facts.context < CONTEXT:
        raise BadRequest(f"{facts.name} reads {facts.context} tokens at most; training needs chunks of {CONTEXT}.")
    weights = facts.n_layers * facts.d_model * (facts.d_model + 1) * 4
    rows = CHUNKS_A_STEP * POSITIONS
    needed, (limit, says) = 5 * weights + 5 * LAYERS_AT_ONCE * rows * facts.d_vocab * 4, memory_limit()
    if needed > limit:
        raise PlanRefused(
            f"A tuned lens of {facts.name} needs about {needed >> 20:,} MB of memory to train, but {limit >> 20:,} MB may be "
            f"used ({says}); take a smaller model."
        )
    chunks = chunk_texts(texts, model.tokenizer, facts.bos_id, request.tokens, request.seed)
    return keep(request, chunks, facts.fingerprint)


def proceed(name: str, model: LoadedModel, progress: Progress, every: float = EVERY) -> Path:
    """Train until it is done, from wherever it was left; the folder of the lens, which is installed then.

    Raises BadRequest if there is no such training, it runs already, its name was taken or the model has changed;
    NonFinite if a loss is not finite; Stopped (a Cancelled) with a checkpoint to go on from.
    """
    work = begun(name)
    with locked(work.folder, work.request.name):
        if model.facts.fingerprint != work.fingerprint:
            raise BadRequest(f"The training {name!r} began with other weights of {work.request.model}.")
        out = lenses_folder() / name
        if out.exists():
            raise BadRequest(f"There is a tuned lens called {name!r} already; remove its folder first.")
        trainer, seconds = _learn(work, model, progress.part(0.0, _LEARNING), every)
        made = work.folder / "result"
        shutil.rmtree(made, ignore_errors=True)
        save_lens(made, trainer.translators, config_of(model))
        count = len(work.held_out)
        held = work.held_out[torch.linspace(0, count - 1, min(count, _MEASURED)).long()]  # of many documents
        try:
            kl = held_out_kl(model, trainer.translators, held, progress.part(_LEARNING, _MEASURING))
        except Cancelled:
            raise Stopped(trainer.step, work.steps) from None  # trained; only the measuring is done again
        report = {
            "request": dataclasses.asdict(work.request),
            "fingerprint": work.fingerprint,
            "split": work.split,
            "chunks": len(work.train),
            "context": CONTEXT,
            "positions_a_chunk": POSITIONS,
            "steps": work.steps,
            "seconds": seconds,
            "held_out_positions": len(held) * (CONTEXT - 1),
            "kl": {variant: values.tolist() for variant, values in kl.items()},
            "log": trainer.log.mean(dim=1).tolist(),
        }
        (made / REPORT).write_text(json.dumps(report), encoding="utf-8")
        out.parent.mkdir(parents=True, exist_ok=True)
        os.rename(made, out)
        shutil.rmtree(work.folder, ignore_errors=True)
    return out


@torch.no_grad()
def held_out_kl(
    model: LoadedModel, lens: Translators, chunks: Tensor, progress: Progress
) -> dict[str, Float64[Tensor, " layers"]]:
    """Mean KL(p_L || p_l) in nats of points 0..L-1 at every position but 0, by variant: raw, mean-corrected, tuned."""
    bank, last = model.mean_bank(progress.part(0.0, 0.2)), model.facts.n_layers
    total = {variant: torch.zeros(last, dtype=torch.float64) for variant in ("raw", "mean", "tuned")}
    rows = 0
    for index, chunk in enumerate(chunks):
        states = states_at(model, chunk[None], every_position(1, len(chunk)))
        rows += states.shape[1]
        for first in range(0, states.shape[1], _ROWS):
            part = states[:, first : first + _ROWS]
            done = (index + first / states.shape[1]) / len(chunks)
            progress.step(0.2 + 0.8 * done, f"measuring on held-out text, chunk {index + 1} of {len(chunks)}")
            final = model.unembed(part[last])
            for layer in range(last):
                read = {
                    "raw": part[layer],
                    "mean": mean_corrected(part[layer], bank.means[layer], bank.means[last]),
                    "tuned": lens.translate(part[layer], layer),
                }
                for variant, state in read.items():
                    total[variant][layer] += kl_to_final(model.unembed(state), final).double().sum().cpu()
    return {variant: values / rows for variant, values in total.items()}


def read_report(folder: Path) -> dict[str, object]:
    """What training left beside a lens; empty for one that was trained elsewhere."""
    try:
        said = json.loads((folder / REPORT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return said if isinstance(said, dict) else {}


def _learn(work: Begun, model: LoadedModel, progress: Progress, every: float) -> tuple[TunedLensTrainer, float]:
    """All steps, and the seconds they took with what was spent before."""
    config = TunedLensConfig(model.facts.n_layers, model.facts.d_model, work.steps, work.request.learning_rate)
    order = work.order()
    found = restore(work, config)
    if found is None:
        try:
            found = TunedLensTrainer(config, _coordinates(work, model, order, progress)), 0.0
        except Cancelled:
            raise Stopped(0, work.steps) from None
    trainer, before = found
    first = trainer.step
    started = saved = time.monotonic()
    try:
        while trainer.step < work.steps:
            _tell(progress, trainer, (time.monotonic() - started) / max(1, trainer.step - first), trainer.step > first)
            chosen = work.train[order[trainer.step * CHUNKS_A_STEP :][:CHUNKS_A_STEP]]
            states = _states(work, model, chosen, trainer.step)
            final = model.unembed(states[-1])
            trainer.update(states[:-1], final.to(states.device), lambda h: model.logits_of(h).to(h.device))
            if time.monotonic() - saved > every:
                saved = time.monotonic()
                store(work, trainer, before + saved - started)
    except Cancelled:
        store(work, trainer, before + time.monotonic() - started)
        raise Stopped(trainer.step, work.steps) from None
    except ValueError as error:
        raise NonFinite(f"Training broke off: {error}; a lower learning rate may help.") from None
    seconds = before + time.monotonic() - started
    store(work, trainer, seconds)
    return trainer, seconds


def _states(work: Begun, model: LoadedModel, chosen: Tensor, step: int) -> Float32[Tensor, "points rows d_model"]:
    seed = work.request.seed * 1_000_003 + step
    return states_at(model, chosen, sampled_positions(len(chosen), CONTEXT, POSITIONS, seed))


def _coordinates(work: Begun, model: LoadedModel, order: Tensor, progress: Progress) -> Coordinates:
    """Of the first chunks that will be learnt from, and the means the mean-corrected lens has: it starts as that lens."""
    bank = model.mean_bank(progress.part(0.0, 0.01))
    progress.step(0.01, "looking at the first states")
    return Coordinates.of(_states(work, model, work.train[order[:_FIRST]], 0), bank.means)


def _tell(progress: Progress, trainer: TunedLensTrainer, pace: float, known: bool) -> None:
    step, steps = trainer.step, trainer.config.steps
    said = f"step {step:,} of {steps:,}"
    if known:
        kl = float(trainer.log[-1].mean())
        said += f", KL {kl:.2f} nats (mean of all layers), about {duration(pace * (steps - step))} left"
    progress.step(step / steps, said)
