"""Claim: the residual stream converges faster on right completions (core.md 4.1)."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float32, Float64
from torch import Tensor

from analysis.lens_depth import convergence
from analysis.roc import Roc, roc
from probes.claims.bench import Bench, Item
from probes.claims.claim import Claim, Outcome, Untestable, finite
from probes.model.loaded import LoadedModel

__all__ = ["claim", "judged", "test"]

_MIN_PER_CLASS = 10
_SHUFFLES = 200
_SCORES = ("loss at the output", "area, mean-corrected lens", "area, raw lens")
_MORE = {
    1: ": the trajectory says more than the output",
    0: ": no clear difference between them",
    -1: ": the trajectory says less than the output",
}

claim = Claim(
    name="idiom-convergence",
    title="Right completions converge earlier",
    paper="Iterative Inference Hypothesis, arXiv 2412.05768",
    reported="The residual stream steps towards the prediction layer by layer; the loss of the output and the area under its "
    "trajectory tell right from wrong idiom completions (GPT-2 XL, AUC .92, from a summary).",
    tested="At the last token of each prompt the loss of the model's own prediction, read at every point with the logit lens. "
    "A completion is right if the prediction is the first token of the answer. AUC of the negative area under that "
    "trajectory over relative depth (mean-corrected lens), beside that of the raw lens and of the negative loss at the output.",
    rule="Holds if the AUC of the area has a 95 % interval (prompts drawn again) above .5, is above the 95 % level of "
    "shuffled answers, and its gain over the AUC of the loss at the output has an interval above 0.",
    distrust="A prediction that is sure is more often right whatever the layers do, which is why the area must gain over "
    "the output; the paper asked for no gain. Idioms are remembered, not inferred.",
    prompts="idioms",
    version=2,
    shuffles="which answer belongs to which prompt (right and wrong)",
)


def test(bench: Bench) -> Outcome:
    """Read the lens at the end of every idiom."""
    model = bench.loaded()
    items = [item for item in bench.items() if item.prompt.answer is not None]
    means = model.mean_bank(bench.progress.part(0.45, 0.5)).means
    found = []
    for place, item in enumerate(items):
        bench.told(place, len(items), "the lens at the end of")
        found.append(_read(bench, model, item, means))
    right = bench.paired([one[0] for one in found])
    scores = np.array([one[1:] for one in found], dtype=np.float64).reshape(len(found), len(_SCORES))
    return judged(np.array(right, dtype=bool), scores, bench.seed)


def judged(right: Bool[np.ndarray, " n"], losses: Float64[np.ndarray, "n 3"], seed: int = 0) -> Outcome:
    """The verdict on the loss at the output and both areas of each prompt. Raises Untestable with too few of a kind."""
    n_right, n = int(right.sum()), len(right)
    if min(n_right, n - n_right) < _MIN_PER_CLASS:
        raise Untestable(f"{n_right} of {n} completions are right; it takes {_MIN_PER_CLASS} right and as many wrong.")
    output, area, raw = (roc(-column, right, seed=seed) for column in losses.T)
    rng = np.random.default_rng(seed)
    shuffled = [roc(-losses[:, 1], rng.permutation(right), resamples=1).auc for _ in range(_SHUFFLES)]
    level = float(np.quantile(shuffled, 0.95, method="higher"))
    gain = _gain(output, area)
    rows = [{"score": name, "auc": one.auc, "low": one.low, "high": one.high}
            for name, one in zip(_SCORES, (output, area, raw), strict=True)]  # fmt: skip
    return Outcome(
        verdict="holds" if area.low > 0.5 and area.auc > level and gain > 0 else "does not hold",
        reason=f"{n_right} of {n} completions are right. The area under the trajectory has an AUC of {area.auc:.2f}, the loss "
        f"at the output alone {output.auc:.2f}{_MORE[gain]}. With the raw lens the area has {raw.auc:.2f}.",
        effect=area.auc, low=finite(area.low), high=finite(area.high), unit="ROC-AUC of the area",
        control=level, control_is="answers shuffled over prompts, 95 % level of 200", n=n, details=tuple(rows),
    )  # fmt: skip


def _gain(output: Roc, area: Roc) -> int:
    """1 where the area tells clearly more than the output, -1 where clearly less, 0 where neither is clear."""
    low, high = (float(np.nanquantile(area.draws - output.draws, q)) for q in (0.025, 0.975))
    return int(low > 0) - int(high < 0)


def _read(
    bench: Bench, model: LoadedModel, item: Item, means: Float32[Tensor, "points d_model"]
) -> tuple[bool, float, float, float]:
    """Whether the prediction is right, its loss at the output, and the areas under its trajectories, nats."""
    capture = bench.capture(item)
    states = bench.resid(item)[:, -1]
    vocabulary = min(model.facts.d_vocab, len(model.tokenizer))
    areas, top, output = [], 0, 0.0
    for corrected in (states, states - means + means[-1]):
        log_p = model.unembed(corrected)[:, :vocabulary].double().log_softmax(dim=-1).cpu()
        top = int(log_p[-1].argmax())
        loss = -log_p[:, top]
        output = float(loss[-1])
        kl = (log_p[-1].exp() * (log_p[-1] - log_p)).sum(dim=-1).clamp_min(0.0)
        areas.append(convergence(loss, kl).area.value)
    space = "" if capture.tokens[-1][-1:].isspace() else " "
    answer = model.tokenizer(space + str(item.prompt.answer), add_special_tokens=False)["input_ids"]
    return top == answer[0], output, areas[1], areas[0]
