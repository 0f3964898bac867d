"""Claim: alpha follows a law in the number of parameters (core.md 1.6)."""

from __future__ import annotations

import numpy as np

from analysis.inference import complete_mean
from analysis.scaling import MIN_FOR_P, MIN_MODELS, ScalingFit, scaling_fit
from probes.claims.alpha_groups import alpha_groups, shortest
from probes.claims.bench import Bench
from probes.claims.claim import Claim, Outcome, Untestable, finite

__all__ = ["claim", "judged", "test"]

claim = Claim(
    name="scaling",
    title="Alpha of reasoning falls with the size of the model",
    paper="Spectral Geometry of Thought, arXiv 2604.15350",
    reported="Alpha of reasoning falls by .074 for each factor e of parameters over 4 Qwen base models (R2 = .46, which with "
    "four models is p = .32).",
    tested="Mean alpha of the reasoning prompts over prompts and points in each model, by least squares on the logarithm "
    "of its number of parameters. All models are cut to the same number of tokens, the shortest prompt of any.",
    rule="Holds if the 95 % interval of the slope over at least 3 models lies below 0.",
    distrust="Models of one family share data and recipe. Each model reads its own tokens, so the same number of them is not "
    "the same text. Below 5 models there is no p.",
    prompts="factual-reasoning",
    version=2,
)


def test(bench: Bench) -> Outcome:
    """Measure every model at hand."""
    names = (bench.model, *bench.others)
    if len(names) < MIN_MODELS:
        raise Untestable(f"It takes at least {MIN_MODELS} models of different size; {len(names)} is at hand.")
    benches = [bench.within(i / len(names), (i + 1) / len(names)).on(name) for i, name in enumerate(names)]
    n_tokens = min(shortest(one) for one in benches)
    sizes, alphas = [], []
    for one in benches:
        found = alpha_groups(one, n_tokens).alpha
        (reasoning,), _ = complete_mean(found.first)
        sizes.append(float(sum(part.numel() for part in one.loaded().hf.parameters())))
        alphas.append(float(reasoning.mean()))
    return judged(names, np.array(sizes), np.array(alphas))


def judged(names: tuple[str, ...], sizes: np.ndarray, alphas: np.ndarray) -> Outcome:
    """The verdict on the line of alpha over size. Raises Untestable where there is none."""
    fit: ScalingFit = scaling_fit(sizes, alphas)
    if finite(fit.slope) is None:
        raise Untestable(f"A slope takes at least {MIN_MODELS} models of different size ({fit.status}).")
    p = f"p = {fit.p:.2g}" if fit.n_models >= MIN_FOR_P else f"no p below {MIN_FOR_P} models"
    rows = zip(names, sizes, alphas, strict=True)
    return Outcome(
        verdict="holds" if fit.high < 0 else "does not hold",
        reason=f"The slope over {fit.n_models} models is {fit.slope:.3g} (R2 = {fit.r2:.2g}, {p}).",
        effect=fit.slope, low=finite(fit.low), high=finite(fit.high), unit="alpha by factor e of parameters",
        control=0.0, control_is="no dependence", n=fit.n_models, of="models",
        details=tuple({"model": name, "parameters": size, "alpha": finite(alpha)} for name, size, alpha in rows),
    )  # fmt: skip
