"""Claim: alpha before the answer tells right answers from wrong ones (core.md 1.6)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float64

from analysis.matched import matched_alpha
from analysis.prediction import MIN_ITEMS, MIN_PER_CLASS, PredictorTable, compare_predictors, refusal
from analysis.windows import MIN_WINDOW
from probes.claims.bench import Bench, Item
from probes.claims.claim import Claim, Outcome, Untestable, finite
from probes.responses import Response

__all__ = ["claim", "judged", "test"]

_ALPHA = "alpha"
_SHUFFLES = 5

claim = Claim(
    name="correctness",
    title="Alpha before the answer tells right from wrong",
    paper="Spectral Geometry of Thought, arXiv 2604.15350",
    reported="Alpha alone predicts before the answer whether it will be right: mean AUC .893 over 6 models, 1.000 in late "
    "layers of one. Second-hand: layers chosen on the same data, .44 to .60 on other data.",
    tested="Alpha by point of the prompt's states, all of which stand before the answer, at the number of tokens of the "
    "shortest prompt (the last ones), into a logistic regression with five folds, the point chosen inside the training part. "
    "Prompts are in the model's chat template where it has one. It writes up to 32 tokens, greedily, and is right by a "
    "written rule of words and numbers. Baselines in the same folds: length, mean loss of the prompt, entropy of the next "
    "token, mean log-probability of the response, and the group.",
    rule="Holds if every baseline is defined and the gain in AUC over each has a 95 % interval above 0.",
    distrust="Prompts without a response (the model ends at once) take no part: it says how many. Without a gain over the "
    "group the states only say what kind of question it is. With 128 items an AUC of .6 is compatible with chance. Whether an "
    "answer is right is judged by its words.",
    prompts="factual-reasoning",
    shuffles="which answer belongs to which prompt (right and wrong)",
    version=2,
)


def test(bench: Bench) -> Outcome:
    """Predict whether the model is right."""
    n_answers = sum(prompt.answer is not None for prompt in bench.prompts.prompts)
    if n_answers < MIN_ITEMS:
        raise Untestable(f"{n_answers} prompts of {bench.prompts.name} have an answer; it takes {MIN_ITEMS}.")
    bench = dataclasses.replace(bench, chat=bool(bench.loaded().tokenizer.chat_template))
    runs = {item.prompt.id: item for item in bench.within(0.0, 0.2).items()}
    answered = [one for one in bench.within(0.2, 1.0).responses() if one.right is not None]
    labels = np.array(bench.paired([one.right for one in answered]), dtype=bool)
    problems = np.arange(len(labels))
    if refusal(labels, problems) is not None:
        raise Untestable(
            f"The model is right in {int(labels.sum())} of {len(labels)} responses; it takes {MIN_ITEMS} items and "
            f"{MIN_PER_CLASS} of each kind."
        )
    items = [runs[one.prompt.id] for one in answered]
    shortest = min(bench.capture(item).n_tokens for item in items)
    if shortest < MIN_WINDOW:
        raise Untestable(f"A prompt has {shortest} tokens; alpha takes {MIN_WINDOW}.")
    alphas = []
    for place, item in enumerate(items):
        bench.told(place, len(items), "spectra of")
        resid = bench.resid(item)
        keep = torch.ones(shortest, dtype=torch.bool)
        points = matched_alpha(resid[:, -shortest:], shortest, keep, normed=True, draws=1)
        alphas.append([point.value for point in points])
    features = {_ALPHA: np.array(alphas, dtype=np.float64)[:, :, None]}
    known = _baselines(bench, items, answered)
    baselines = {name: values for name, values in known.items() if np.isfinite(values).all()}
    table = compare_predictors(features, baselines, labels, problems, shuffles=_SHUFFLES, seed=bench.seed)
    without = [name for name in known if name not in baselines]
    return judged(table, int(labels.sum()), len(labels), n_answers, without)


def judged(found: PredictorTable, n_right: int, n: int, of: int, without: Sequence[str] = ()) -> Outcome:
    """The verdict on alpha beside its baselines, over n of ``of`` prompts; ``without`` are baselines that are not defined for
    all of them. Raises Untestable where there is no AUC."""
    alpha = found.table.set_index("name").loc[_ALPHA]
    auc, low, high = (finite(float(alpha[name])) for name in ("auc", "low", "high"))
    if auc is None:
        raise Untestable(f"The AUC is not defined ({alpha['status']}).")
    gains = found.gains
    best = found.table[found.table["baseline"]].sort_values("auc", ascending=False).iloc[0]
    beaten = gains[gains["low"] > 0]["baseline"].tolist()
    shuffled = float(found.shuffled["mean"].iloc[0]) if len(found.shuffled) else float("nan")
    missing = f" Not defined for every prompt, so not compared: {', '.join(without)}." if without else ""
    left = f" ({of - n} more are left out: the model ends at once, or the prompt is too long)" if of > n else ""
    holds = len(gains) > 0 and not without and bool((gains["low"] > 0).all())
    rows = [{"predictor": str(row["name"]), "auc": finite(float(row["auc"])), "low": finite(float(row["low"])),
             "high": finite(float(row["high"]))} for row in found.table.to_dict("records")]  # fmt: skip
    rows += [{"predictor": f"gain over {row['baseline']}", "auc": finite(float(row["gain"])),
              "low": finite(float(row["low"])), "high": finite(float(row["high"]))}
             for row in gains.to_dict("records")]  # fmt: skip
    return Outcome(
        verdict="holds" if holds else "does not hold",
        reason=f"{n_right} of {n} answers are right{left}. The AUC gains clearly over {', '.join(beaten) or 'no baseline'}; "
        f"the best baseline, {best['name']}, has {float(best['auc']):.2f}; labels shuffled give {shuffled:.2f}.{missing}",
        effect=auc, low=low, high=high, unit="ROC-AUC",
        control=finite(float(best["auc"])), control_is=f"the best baseline: {best['name']}", n=n, details=tuple(rows),
    )  # fmt: skip


def _baselines(
    bench: Bench, items: Sequence[Item], answered: Sequence[Response]
) -> Mapping[str, Float64[np.ndarray, "items _"]]:
    """What can be known of a prompt and its response without the spectra."""
    model = bench.loaded()
    entropies = []
    for item in items:
        log_p = model.unembed(bench.capture(item).resid(model.facts.n_layers)[-1:]).log_softmax(dim=-1)
        entropies.append(float(-(log_p.exp() * log_p).sum()))
    columns = {
        "length": [len(bench.capture(item).tokens) for item in items],
        "loss of the prompt": bench.mean_losses(items).tolist(),
        "entropy of the next token": entropies,
        "log-probability of the response": [one.logprob for one in answered],
    }
    found = {name: np.array(values, dtype=np.float64)[:, None] for name, values in columns.items()}
    names = sorted({str(item.prompt.group) for item in items})
    if len(names) > 1:
        found["group"] = np.array(
            [[item.prompt.group == name for name in names[1:]] for item in items], dtype=np.float64
        )
    return found
