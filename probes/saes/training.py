"""Training an SAE on own text: begun, broken off, taken up again, and at the end an installed SAE with its card."""

import json
import os
import shutil
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path

from analysis.sae_metrics import corpus_variance
from analysis.topk_sae import TopKConfig
from probes.errors import BadRequest, NonFinite
from probes.model.loaded import LoadedModel
from probes.progress import Cancelled, Progress
from probes.saes.activations import CONTEXT, collect_states
from probes.saes.fitting import EVERY, Stopped, densities, fit, input_scale, measure
from probes.saes.folder import CONFIG, saes_folder
from probes.saes.own_card import OwnReport, write_own
from probes.saes.own_folder import Unfinished, in_training, keep_request, read_chunks, unfinished
from probes.saes.own_plan import Forward, TrainingPlan, batch_of, plan_training, refuse_what_does_not_fit, steps_of
from probes.saes.own_request import STATES_A_CHUNK, OwnRequest, Text, check_name
from probes.saes.own_text import Split, chunk_texts
from probes.training_lock import locked

__all__ = ["Interrupted", "begin", "duration", "proceed", "shape_of"]

_PART = 32  # chunks in a part on disk: what is lost of collecting when the process is killed
_LOGGED = 200
_WINDOW = 20.0  # seconds over which the pace is taken


class Interrupted(Cancelled):
    """Cancelled while states were collected; those on disk are used when it is resumed."""

    def __init__(self) -> None:
        Exception.__init__(self, "Stopped while states were collected; it can be resumed from there.")


def shape_of(model: LoadedModel) -> Forward:
    """What the time of a pass depends on."""
    weights = sum(parameter.numel() for parameter in model.sites.blocks[0].block.parameters())
    return Forward(model.facts.n_layers, model.facts.d_model, weights)


def begin(request: OwnRequest, texts: Sequence[Text], model: LoadedModel) -> Unfinished:
    """Cut the text and write down what is to be trained; :func:`proceed` then does it.

    Raises:
        BadRequest: the name is taken, the request does not fit the model, or there is too little text.
        PlanRefused: disk or memory would not do.
    """
    facts = model.facts
    check_name(request.name)
    request.check(facts.n_layers, facts.d_model)
    if facts.context < CONTEXT:
        raise BadRequest(f"{facts.name} reads {facts.context} tokens at most; training needs chunks of {CONTEXT}.")
    chunks = chunk_texts(texts, model.tokenizer, facts.bos_id, request.tokens, request.seed)
    plan = plan_training(request, len(chunks.train.ids) * STATES_A_CHUNK, shape_of(model))
    refuse_what_does_not_fit(plan, in_training() / request.name)
    return keep_request(request, chunks, facts.fingerprint, plan.steps)


def proceed(name: str, model: LoadedModel, progress: Progress, every: float = EVERY) -> Path:
    """Train until it is done, from wherever it was left; the folder of the SAE, which is installed then.

    Cancelling keeps all that was done. A training whose SAE was installed but not yet cleared away is cleared away.

    Raises:
        BadRequest: there is no such training, it runs already, its name was taken meanwhile, or the model has changed.
        PlanRefused: disk or memory would not do.
        NonFinite: states or loss are not finite.
        Cancelled: :class:`Interrupted` or :class:`Stopped`.
    """
    found = unfinished(name)
    if not found:
        raise BadRequest(f"No training is called {name[:80]!r}.")
    begun = found[0]
    with locked(begun.folder, begun.request.name):
        out = saes_folder() / name
        if _training_id(out) == begun.training_id:
            shutil.rmtree(begun.folder, ignore_errors=True)
            return out
        check_name(name)
        if model.facts.fingerprint != begun.fingerprint:
            raise BadRequest(f"The training {name!r} began with other weights of {begun.request.model}; discard it.")
        try:
            report = _train(begun, model, progress, every)
        except Stopped:
            raise
        except Cancelled:
            raise Interrupted from None
        out.parent.mkdir(parents=True, exist_ok=True)
        os.rename(report, out)  # refused by the system where a folder with content has come to be
        shutil.rmtree(begun.folder, ignore_errors=True)
    return out


def _train(begun: Unfinished, model: LoadedModel, progress: Progress, every: float) -> Path:
    """Collect, fit, measure, and write the folder; nothing is installed yet."""
    request = begun.request
    train, held_out = read_chunks(begun)
    plan = plan_training(request, len(train.ids) * STATES_A_CHUNK, shape_of(model))
    refuse_what_does_not_fit(plan, begun.folder)
    share = _share(plan)
    collecting = _timed(progress, 0.0, share, plan.fitting)
    n_all = len(train.ids) + len(held_out.ids)
    split = len(train.ids) / n_all
    states = collect_states(model, train, request.point, begun.states / "train", collecting.part(0.0, split), _PART)
    unseen = collect_states(
        model, held_out, request.point, begun.states / "held-out", collecting.part(split, 1.0), _PART
    )
    scale, sample = input_scale(states.resid)
    variance = corpus_variance(sample.float())
    if not variance < float("inf"):
        raise NonFinite(f"The states of {request.model} at point {request.point} are too large for half precision.")
    batch = batch_of(len(states.resid))
    steps = steps_of(len(states.resid), request.epochs, batch)
    config = TopKConfig(
        d_in=model.facts.d_model,
        d_sae=plan.d_sae,
        k=request.k,
        steps=steps,
        learning_rate=request.learning_rate,
        log_every=max(1, steps // _LOGGED),
        seed=request.seed,
    )
    fitted = fit(config, states.resid, batch, scale, _timed(progress, share, 0.98, 0.0), begun.folder, every)
    progress.step(0.98, "measuring on held-out text")
    sae = fitted.sae.with_input_scale(scale)
    split_kind: Split = "documents" if begun.split == "documents" else "last tenth"
    report = OwnReport(
        request=request,
        training_id=begun.training_id,
        facts=model.facts,
        config=config,
        batch=batch,
        scale=scale,
        corpus_variance=variance,
        n_train=len(states.resid),
        n_held_out=len(unseen.resid),
        n_massive=states.n_massive + unseen.n_massive,
        split=split_kind,
        documents=begun.documents,
        quality=measure(sae, unseen.resid, variance),
        density=densities(sae, states.resid),
        log=fitted.log,
        seconds=fitted.seconds,
    )
    made = begun.folder / "result"
    shutil.rmtree(made, ignore_errors=True)
    write_own(sae, report, made)
    return made


def _share(plan: TrainingPlan) -> float:
    """The part of the bar that collecting takes."""
    return min(0.9, max(0.05, 0.98 * plan.collecting / plan.seconds))


def _timed(progress: Progress, start: float, end: float, beyond: float) -> Progress:
    """A part of the progress that says how long the work will still take: at the pace of the last seconds, and
    ``beyond`` seconds after it."""
    seen: deque[tuple[float, float]] = deque()

    def step(fraction: float, what: str) -> None:
        now = time.monotonic()
        seen.append((now, fraction))
        while len(seen) > 2 and now - seen[0][0] > _WINDOW:
            seen.popleft()
        spent, done = now - seen[0][0], fraction - seen[0][1]
        if spent > 2.0 and done > 0:
            what = f"{what}, about {duration(spent / done * (1.0 - fraction) + beyond)} left"
        progress.step(start + (end - start) * fraction, what)

    return Progress(step)


def duration(seconds: float) -> str:
    """Seconds as people say them."""
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


def _training_id(folder: Path) -> str | None:
    try:
        found = json.loads((folder / CONFIG).read_text(encoding="utf-8"))["metadata"]["training_id"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return str(found)
