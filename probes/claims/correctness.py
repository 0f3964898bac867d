"""Claim: alpha before the answer tells right answers from wrong ones (core.md 1.6)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from jaxtyping import Bool, Float64

from analysis.answer_span import tokens_before_answer
from analysis.matched import matched_alpha
from analysis.prediction import MIN_ITEMS, MIN_PER_CLASS, PredictorTable, compare_predictors, refusal
from probes.claims.bench import Bench
from probes.claims.claim import Claim, Outcome, Untestable, finite
from probes.claims.responses import Response, answers_it, responses
from probes.model.loaded import LoadedModel

__all__ = ["claim", "judged", "test"]

_ALPHA = "alpha"
_SHUFFLES = 5

claim = Claim(
    name="correctness",
    title="Alpha before the answer tells right from wrong",
    paper="Spectral Geometry of Thought, arXiv 2604.15350",
    reported="Alpha of the states before the answer predicts whether it is right, with a ROC-AUC of up to 1.000; reviews "
    "note layers chosen on the same data and .44 to .60 on other data.",
    tested="Alpha by point of the prompt's states, all of which stand before the answer, into a logistic regression with "
    "five folds, the point chosen inside the training part. A response is right if its first line holds the answer. "
    "Baselines in the same folds: length, mean loss of the prompt, entropy at its last position, and its group.",
    rule="Holds if the gain in AUC over every baseline has a 95 % interval above 0.",
    distrust="Without a gain over the group the states only say what kind of question it is. With 128 items an AUC of .6 is "
    "compatible with chance. Whether an answer is right is judged by its words.",
    prompts="factual-reasoning",
    shuffles="which answer belongs to which prompt (right and wrong)",
)


def test(bench: Bench) -> Outcome:
    """Predict whether the model is right."""
    items = [item for item in bench.items() if item.prompt.answer is not None]
    if len(items) < MIN_ITEMS:
        raise Untestable(f"{len(items)} prompts of {bench.prompts.name} have an answer; it takes {MIN_ITEMS}.")
    answered = responses(bench.within(0.0, 0.8), items)
    right = bench.paired([answers_it(one.text, str(one.item.prompt.answer)) for one in answered])
    labels = np.array(right, dtype=bool)
    problems = np.arange(len(labels))
    why = refusal(labels, problems)
    if why is not None:
        raise Untestable(
            f"The model is right in {int(labels.sum())} of {len(labels)} responses; it takes {MIN_ITEMS} items and "
            f"{MIN_PER_CLASS} of each kind."
        )
    model = bench.loaded()
    alphas = []
    for place, one in enumerate(answered):
        bench.told(place, len(answered), "spectra of")
        resid = bench.resid(one.item)
        keep = torch.ones(resid.shape[1], dtype=torch.bool)
        alphas.append([point.value for point in matched_alpha(resid, resid.shape[1], keep, normed=True, draws=1)])
    features = {_ALPHA: np.array(alphas, dtype=np.float64)[:, :, None]}
    table = compare_predictors(
        features, _baselines(bench, model, answered), labels, problems, shuffles=_SHUFFLES, seed=bench.seed
    )
    cut = sum(tokens_before_answer([one.text]) == 0 for one in answered)
    return judged(table, int(labels.sum()), len(labels), cut)


def judged(found: PredictorTable, n_right: int, n: int, stated: int = 0) -> Outcome:
    """The verdict on alpha beside its baselines; ``stated`` responses announce their answer in so many words."""
    alpha = found.table.set_index("name").loc[_ALPHA]
    auc, low, high = (finite(float(alpha[name])) for name in ("auc", "low", "high"))
    if auc is None:
        raise Untestable(f"The AUC is not defined ({alpha['status']}).")
    gains = found.gains
    best = found.table[found.table["baseline"]].sort_values("auc", ascending=False).iloc[0]
    beaten = gains[gains["low"] > 0]["baseline"].tolist()
    shuffled = float(found.shuffled["mean"].iloc[0]) if len(found.shuffled) else float("nan")
    holds = len(gains) > 0 and bool((gains["low"] > 0).all())
    rows = [{"predictor": str(row["name"]), "auc": finite(float(row["auc"])), "low": finite(float(row["low"])),
             "high": finite(float(row["high"]))} for row in found.table.to_dict("records")]  # fmt: skip
    rows += [{"predictor": f"gain over {row['baseline']}", "auc": finite(float(row["gain"])),
              "low": finite(float(row["low"])), "high": finite(float(row["high"]))}
             for row in gains.to_dict("records")]  # fmt: skip
    said = f" {stated} responses announce their answer." if stated else ""
    return Outcome(
        verdict="holds" if holds else "does not hold",
        reason=f"{n_right} of {n} answers are right. The AUC gains clearly over {', '.join(beaten) or 'no baseline'}; the best "
        f"baseline, {best['name']}, has {float(best['auc']):.2f}; labels shuffled give {shuffled:.2f}.{said}",
        effect=auc, low=low, high=high, unit="ROC-AUC",
        control=finite(float(best["auc"])), control_is=f"the best baseline: {best['name']}", n=n, details=tuple(rows),
    )  # fmt: skip


def _baselines(
    bench: Bench, model: LoadedModel, answered: list[Response]
) -> Mapping[str, Float64[np.ndarray, "items _"]]:
    losses = bench.mean_losses([one.item for one in answered])
    names = sorted({str(one.item.prompt.group) for one in answered})
    entropies = []
    for one in answered:
        log_p = model.unembed(bench.capture(one.item).resid(model.facts.n_layers)[-1:]).log_softmax(dim=-1)
        entropies.append(float(-(log_p.exp() * log_p).sum()))
    lengths = np.array([len(one.prompt_ids) for one in answered], dtype=np.float64)
    found = {
        "length": lengths[:, None],
        "loss of the prompt": losses[:, None],
        "entropy of the next token": np.array(entropies)[:, None],
    }
    if len(names) > 1:
        groups: Bool[np.ndarray, "items _"] = np.array(
            [[str(one.item.prompt.group) == name for name in names[1:]] for one in answered]
        )
        found["group"] = groups.astype(np.float64)
    return found
