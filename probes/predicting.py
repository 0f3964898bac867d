"""Can what the model's states show before an answer tell whether the answer will be right (core.md 1.6, 1.8, 4.1)?

Every number is of the tokens before the answer: the prompt and what the response says first. Alpha is taken of the same
number of tokens in every prompt (the last ones), so that length cannot speak through it; length is a baseline of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float32, Float64
from torch import Tensor

from analysis.detection import Detection, time_to_detection
from analysis.matched import matched_alpha
from analysis.measured import Status
from analysis.prediction import PredictorTable, compare_predictors, refusal
from analysis.stream_features import stream_features, summarise
from analysis.windows import MIN_WINDOW
from probes.claims.bench import Bench
from probes.errors import BadRequest
from probes.model.loaded import LoadedModel
from probes.responses import Response

__all__ = ["ALPHA", "STREAM", "TRAJECTORY", "Predicted", "predict_correctness"]

ALPHA = "alpha by point"
STREAM = "stream of window spectra"
TRAJECTORY = "lens trajectory"
_STREAM_POINTS = 6  # points a stream is read at: a window's eleven features cost as much at each


@dataclass(frozen=True, eq=False)
class Predicted:
    """Predictors of right answers in the same folds, beside their baselines and shuffled labels.

    ``status`` is why nothing was predicted (one class, too few), else ``ok``; ``table`` then is None. ``n_tokens`` is the
    length alpha was taken at; ``early`` how soon a stream tells, None where no stream was long enough. ``ids`` and
    ``right`` are of the prompts with an answer that were answered.
    """

    ids: tuple[str, ...]
    right: Bool[np.ndarray, " prompts"]
    status: Status
    table: PredictorTable | None
    n_tokens: int
    early: Detection | None
    left_out: tuple[str, ...]


def predict_correctness(bench: Bench) -> Predicted:
    """Answer every prompt of the set greedily, then predict which answers are right.

    A predictor or baseline that is undefined for a prompt is left out and named. Raises BadRequest for a set without
    answers, and what generating raises.
    """
    if not any(prompt.answer is not None for prompt in bench.prompts.prompts):
        raise BadRequest(f"No prompt of {bench.prompts.name} has an answer, so none can be right or wrong.")
    answered = [one for one in bench.within(0.0, 0.5).responses() if one.right is not None]
    ids = tuple(one.prompt.id for one in answered)
    right = np.array(bench.paired([one.right for one in answered]), dtype=bool)
    problems = np.arange(len(answered))
    status = refusal(right, problems) if len(answered) else "too_few_prompts"
    n = min((one.answer_at for one in answered), default=0)
    if status is None and n < MIN_WINDOW:
        status = "too_few_tokens"
    if status is not None:
        return Predicted(ids, right, status, None, n, None, ())
    features, streams = _features(bench, answered, n)
    baselines = _baselines(bench, answered)
    left_out = sorted(name for name, values in {**features, **baselines}.items() if not _complete(values))
    table = compare_predictors(
        {name: values for name, values in features.items() if _complete(values)},
        {name: values for name, values in baselines.items() if _complete(values)},
        right, problems, seed=bench.seed,
    )  # fmt: skip
    early = time_to_detection(streams, right, problems, seed=bench.seed) if streams else None
    return Predicted(ids, right, "ok", table, n, early, tuple(left_out))


def _complete(values: Float64[np.ndarray, "items *_"]) -> bool:
    """Whether a predictor is defined for every prompt, at one layer at least where it has layers."""
    defined = np.isfinite(values)
    return bool(defined.all(axis=(0, 2)).any() if values.ndim == 3 else defined.all())


def _features(
    bench: Bench, answered: Sequence[Response], n: int
) -> tuple[dict[str, Float64[np.ndarray, "items _ _"]], list[Float64[np.ndarray, "_ features"]]]:
    """Alpha by point, summaries of the stream by some points, and the lens trajectory at the last token; and the streams
    of the middle one of those points, for how early they tell."""
    model = bench.loaded()
    last = model.facts.n_layers
    points = np.unique(np.linspace(0, last, _STREAM_POINTS).round().astype(int))
    means = model.mean_bank(bench.progress.part(0.5, 0.5)).means
    alphas, summaries, trajectories, streams = [], [], [], []
    for place, one in enumerate(answered):
        bench.told(place, len(answered), "states before the answer of")
        resid = bench.resid(one)[:, : one.answer_at]
        every = torch.ones(n, dtype=torch.bool)
        alphas.append([point.value for point in matched_alpha(resid[:, -n:], n, every, normed=True, draws=1)])
        keep = torch.ones(resid.shape[1], dtype=torch.bool)
        own = [stream_features(resid[point], keep, normed=True) for point in points]
        streams.append(own[len(own) // 2])
        summaries.append([summarise(stream) for stream in own])
        trajectories.append([_trajectory(model, resid[:, -1], means)])
    features = {
        ALPHA: np.array(alphas, dtype=np.float64)[:, :, None],
        STREAM: np.array(summaries, dtype=np.float64),
        TRAJECTORY: np.array(trajectories, dtype=np.float64),
    }
    return features, streams if min(map(len, streams)) > 0 else []


def _trajectory(
    model: LoadedModel, states: Float32[Tensor, "points d_model"], means: Float32[Tensor, "points d_model"]
) -> list[float]:
    """-ln p of what the model says in the end, at each point of the mean-corrected lens, nats."""
    vocabulary = min(model.facts.d_vocab, len(model.tokenizer))
    log_p = model.unembed(states - means + means[-1])[:, :vocabulary].double().log_softmax(dim=-1).cpu()
    losses: list[float] = (-log_p[:, int(log_p[-1].argmax())]).tolist()
    return losses


def _baselines(bench: Bench, answered: Sequence[Response]) -> Mapping[str, Float64[np.ndarray, "items _"]]:
    """What can be known without spectra: number of tokens, how likely and how sure the text before the answer was, the
    loss at the output, and which group the prompt is of."""
    model = bench.loaded()
    columns: dict[str, list[float]] = {
        "tokens": [],
        "loss of the text": [],
        "entropy of the next token": [],
        "loss at the output": [],
    }
    for one in answered:
        states = bench.capture(one).resid(model.facts.n_layers)[: one.answer_at]
        ids = bench.capture(one).token_ids[: one.answer_at].cpu()
        log_p = model.unembed(states).log_softmax(dim=-1).cpu()
        columns["tokens"].append(float(one.answer_at))
        columns["loss of the text"].append(float(-log_p[:-1].gather(1, ids[1:, None]).mean()))
        columns["entropy of the next token"].append(float(-(log_p[-1].exp() * log_p[-1]).sum()))
        columns["loss at the output"].append(float(-log_p[-1].max()))
    found = {name: np.array(values, dtype=np.float64)[:, None] for name, values in columns.items()}
    groups = sorted({str(one.prompt.group) for one in answered})
    if len(groups) > 1:
        found["group"] = np.array(
            [[one.prompt.group == name for name in groups[1:]] for one in answered], dtype=np.float64
        )
    return found
