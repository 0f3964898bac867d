"""Claim: the spectra of reasoning prompts are flatter than those of factual ones (core.md 1.6)."""

from __future__ import annotations

from analysis.groups import GroupComparison
from analysis.inference import MIN_CONFIDENT
from probes.claims.alpha_groups import compared_alpha
from probes.claims.bench import Bench
from probes.claims.claim import Claim, Outcome, Untestable, finite, plain_rows

__all__ = ["claim", "judged", "test"]

claim = Claim(
    name="reasoning-alpha",
    title="Reasoning has a lower alpha than recall",
    paper="Spectral Geometry of Thought, arXiv 2604.15350",
    reported="In 9 of 11 models alpha is significantly lower for reasoning than for factual recall (the paper: compression), "
    "the more so the stronger the model.",
    tested="Alpha of singular values (all usable ranks, states divided by their RMS and centred) of each prompt and "
    "point, at the length of the shortest prompt, as the mean over contiguous windows; the mean over points of each "
    "prompt, reasoning less factual, by Welch's t.",
    rule="Holds if the 95 % interval of the difference lies below 0, labels permuted at random give p < .05, and the "
    "difference is larger in size than that of the column-permuted null.",
    distrust="Groups differ in words and topic too, so a difference need not be one of reasoning. The convention decides "
    "the number: look at the sign over conventions. Below 20 prompts a group it is exploratory.",
    prompts="factual-reasoning",
    shuffles="the groups of the prompts",
)


def test(bench: Bench) -> Outcome:
    """Compare the groups of the set."""
    alpha, null, n_tokens = compared_alpha(bench)
    return judged(alpha, null, n_tokens)


def judged(alpha: GroupComparison, null: GroupComparison, n_tokens: int) -> Outcome:
    """The verdict on a comparison of reasoning with factual alpha, beside that of the null. Raises Untestable."""
    overall, control = alpha.overall, float(null.overall["difference"])
    if alpha.refusal is not None or finite(float(overall["low"])) is None:
        raise Untestable(f"The groups cannot be compared: {alpha.refusal or overall['status']}.")
    effect, low, high = (float(overall[name]) for name in ("difference", "low", "high"))
    p = float(overall["p_permuted"])
    holds = high < 0 and p < 0.05 and abs(effect) > abs(control)
    says = "below 0" if high < 0 else "above 0, the other way round" if low > 0 else "with 0 inside"
    sizes = int(overall["n_first"]), int(overall["n_second"])
    exploratory = f" Exploratory: fewer than {MIN_CONFIDENT} prompts in a group." if alpha.exploratory else ""
    layers = alpha.table
    clear = layers["p_bh"] < 0.05
    rows = layers[["layer", "mean_first", "mean_second", "difference", "low", "high", "p_bh"]]
    rows = rows.rename(columns={"mean_first": "reasoning", "mean_second": "factual"})
    return Outcome(
        verdict="holds" if holds else "does not hold",
        reason=f"{sizes[0]} reasoning and {sizes[1]} factual prompts at {n_tokens} tokens differ by an interval {says} "
        f"(permuted p = {p:.2g}); {int((clear & (layers['difference'] < 0)).sum())} of {len(layers)} points are clearly "
        f"lower and {int((clear & (layers['difference'] > 0)).sum())} clearly higher after correction.{exploratory}",
        effect=effect, low=low, high=high, unit="alpha (singular values)",
        control=finite(control), control_is="the same difference of the null: columns permuted over tokens",
        n=sum(sizes),
        details=plain_rows(rows),
    )  # fmt: skip
