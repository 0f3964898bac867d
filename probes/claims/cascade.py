"""Claim: gradients of alpha cascade over layers (core.md 1.5)."""

from __future__ import annotations

import numpy as np
import torch

from analysis.cascade import MIN_WINDOWS, cascade, stacked
from analysis.cascade_fit import Decay, fit_decay
from analysis.cascade_nulls import ShiftNull, time_shift_null, turned_null
from probes.claims.bench import WINDOW, Bench, Item
from probes.claims.claim import Claim, Outcome, Untestable, finite

__all__ = ["claim", "judged", "test"]

_PROMPTS = 48  # spread over a larger set
_DISTANCE = 9  # where the paper reports its correlation
_MIN_PROMPTS = 3

claim = Claim(
    name="cascade",
    title="Changes of alpha cascade over layers",
    paper="Spectral Geometry of Thought, arXiv 2604.15350",
    reported="While a model writes, changes of the per-token alpha go together between layers, rho = .84 at a distance of 9, "
    "and fall off as exp(-distance / 19.8); less so for reasoning.",
    tested="Alpha of windows of 32 tokens, its steps correlated between all pairs of points, rho by distance, and the "
    "length tau of rho = A exp(-distance / tau) over up to 48 prompts of the set. Beside it tau of the same blocks' updates, "
    "each turned by a random rotation of its own (tokens keep their angles within it), and rho with every layer shifted in "
    "time by itself.",
    rule="Holds if rho at distance 9 (or the farthest there is) is above the circular shifts (p < .05) and the interval of "
    "tau over prompts lies above tau of the turned updates.",
    distrust="A residual stream carries each layer into the next, so rho decays without any computation: tau alone says "
    "nothing. Windows overlap, so only the circular shift gives a p.",
    prompts="passages",
    version=2,
)


def test(bench: Bench) -> Outcome:
    """Measure cascades of prompts that are long enough."""
    items = spread([item for item in bench.items() if long_enough(bench, item)], _PROMPTS)
    if len(items) < _MIN_PROMPTS:
        raise Untestable(
            f"{len(items)} prompts have the {WINDOW + MIN_WINDOWS - 1} tokens that {MIN_WINDOWS} windows of {WINDOW} take; it "
            f"takes {_MIN_PROMPTS}."
        )
    alphas = bench.within(0.0, 0.75).alphas(items)
    cascades = [cascade(alpha) for alpha in alphas]
    rho, pairs = stacked(cascades)
    if len(rho) < _MIN_PROMPTS:
        raise Untestable(f"No cascade is defined here ({cascades[0].status}): it takes 6 layers that move.")
    walks = []
    for place, item in enumerate(items):
        bench.told(len(items) + place, 2 * len(items), "turned updates beside")
        resid = bench.resid(item)
        keep = torch.ones(resid.shape[1], dtype=torch.bool)
        walks.append(turned_null(resid, WINDOW, keep, normed=True, seed=bench.seed + place))
    walked = fit_decay(np.stack(walks), pairs, seed=bench.seed)
    shifted = time_shift_null(alphas, [0] * len(alphas), seed=bench.seed)
    return judged(fit_decay(rho, pairs, seed=bench.seed), walked, rho, np.stack(walks), shifted)


def judged(decay: Decay, walked: Decay, rho: np.ndarray, walks: np.ndarray, shifted: ShiftNull) -> Outcome:
    """The verdict on the decay of rho [prompts, distances], beside the turned updates and the shifts."""
    distance = min(_DISTANCE, rho.shape[1])
    p = float(shifted.p[distance - 1])
    mean, by_walk = np.nanmean(rho, axis=0), np.nanmean(walks, axis=0)
    holds = p < 0.05 and decay.low > walked.tau
    tau = "does not decay" if not decay.decays else f"decays over {decay.tau:.1f} layers"
    nothing = " (a length that is infinite, or undefined, is left out)" if finite(decay.tau) is None else ""
    at = sorted({1, 3, distance, min(15, rho.shape[1]), rho.shape[1]})
    rows = [
        {"distance": d, "rho": finite(float(mean[d - 1])), "updates turned": finite(float(by_walk[d - 1])),
         "shifted in time": finite(float(shifted.mean[d - 1])), "p": finite(float(shifted.p[d - 1]))}
        for d in at
    ]  # fmt: skip
    found = finite(decay.tau)
    return Outcome(
        verdict="holds" if holds and found is not None else "does not hold",
        reason=f"The correlation {tau}; at distance {distance} it is {mean[distance - 1]:.2f} (p = {p:.2g} by circular "
        f"shifts) against {by_walk[distance - 1]:.2f} of updates turned at random, which decays over {walked.tau:.1f} "
        f"layers{nothing}.",
        effect=found, low=finite(decay.low), high=finite(decay.high), unit="tau, layers",
        control=finite(walked.tau), control_is="the same updates, each turned by a random rotation",
        n=decay.n_prompts, details=tuple(rows),
    )  # fmt: skip


def long_enough(bench: Bench, item: Item) -> bool:
    """Whether a prompt has the windows a cascade takes."""
    return bench.capture(item).n_tokens >= WINDOW + MIN_WINDOWS - 1


def spread(items: list[Item], n: int) -> list[Item]:
    """At most n of them, evenly spread over their order."""
    chosen = np.linspace(0, len(items) - 1, min(n, len(items))).round().astype(int)
    return [items[int(place)] for place in chosen]
