"""Claim: from prompt to response the spectrum moves (core.md 1.6)."""

from __future__ import annotations

import numpy as np
import torch

from analysis.matched import matched_alpha
from analysis.measured import Measured
from analysis.response_shift import EQUILIBRIUM, ResponseShift, response_shift
from analysis.windows import MIN_WINDOW
from probes.claims.bench import Bench
from probes.claims.claim import Claim, Outcome, Untestable, finite, plain_rows

__all__ = ["claim", "judged", "test"]

_MIN_PROMPTS = 5

claim = Claim(
    name="response-shift",
    title="Alpha shifts from prompt to response",
    paper="Spectral Geometry of Thought, arXiv 2604.15350",
    reported="Alpha falls from prompt to response in Qwen and Phi instruct models (-.46), rises in Pythia and Llama (+.40), "
    "and stays in DeepSeek-R1.",
    tested="Alpha of the response less alpha of the prompt, both cut to the smaller one's number of tokens, mean over "
    "points of each prompt. The model writes up to 32 tokens, greedily.",
    rule="Holds if the shift, and the shift less that from the first to the second half of the same prompt, are both at "
    "least .10 in size, the same way, with 95 % intervals that exclude 0. Which way is said; the paper has both.",
    distrust="What a small model writes repeats itself, which lowers the rank and by itself makes alpha larger. Prompts whose "
    "response is shorter than a window take no part. The .10 is a convention.",
    prompts="factual-reasoning",
    version=2,
)


def test(bench: Bench) -> Outcome:
    """Compare prompts with responses."""
    both = [one for one in bench.responses() if np.isfinite(one.response_alpha).any()]
    answered = [one for one in both if one.start > 2 * MIN_WINDOW]
    if len(answered) < _MIN_PROMPTS:
        raise Untestable(
            f"{len(answered)} responses have {MIN_WINDOW} tokens or more, and prompts twice as many; it takes {_MIN_PROMPTS} "
            "to compare with their prompts."
        )
    halves = []
    for place, one in enumerate(answered):
        bench.told(place, len(answered), "halves of")
        sides = _halves(bench.resid(one)[:, : one.start], bench.seed)
        halves.append([[point.value for point in side] for side in sides])
    early, late = np.array(halves, dtype=np.float64).transpose(1, 0, 2)
    prompt, response = (
        np.stack([getattr(one, name) for one in answered]) for name in ("prompt_alpha", "response_alpha")
    )
    return judged(
        response_shift(prompt, response, seed=bench.seed),
        response_shift(early, late, seed=bench.seed),
        response_shift(prompt + late - early, response, seed=bench.seed),
        len(bench.prompts.prompts),
    )


def judged(shift: ResponseShift, halves: ResponseShift, beyond: ResponseShift, of: int) -> Outcome:
    """The verdict on the shift over prompts, that from the first to the second half of the prompts, and the former less the
    latter; ``of`` prompts in all."""
    overall, control = shift.comparison.overall, float(halves.comparison.overall["difference"])
    effect, low, high = (finite(float(overall[name])) for name in ("difference", "low", "high"))
    more = {name: float(beyond.comparison.overall[name]) for name in ("difference", "low", "high")}
    if shift.overall is None or beyond.overall is None or effect is None:
        raise Untestable(f"The shift is not defined ({overall['status']}).")
    words = {
        "flatter": "flatter (the paper's expansion)",
        "steeper": "steeper (the paper's compression)",
        "equilibrium": f"at equilibrium (below {EQUILIBRIUM} in size, or 0 inside the interval)",
    }
    n = int(overall["n"])
    rows = shift.table[["layer", "shift", "low", "high", "p_bh"]]
    return Outcome(
        verdict="does not hold" if shift.overall == "equilibrium" or beyond.overall != shift.overall else "holds",
        reason=f"Responses are {words[shift.overall]} over the {n} of {of} prompts whose response is long enough; from the "
        f"first to the second half of the prompts themselves alpha moves by {control:+.3g}, and by {more['difference']:+.3g} "
        f"[{more['low']:.3g}, {more['high']:.3g}] more from prompt to response.",
        effect=effect, low=low, high=high, unit="alpha, response less prompt",
        control=finite(control), control_is="second half of the prompt less the first", n=n,
        details=plain_rows(rows),
    )  # fmt: skip


def _halves(resid: torch.Tensor, seed: int) -> tuple[list[Measured], list[Measured]]:
    """Alpha by point of the first and of the second half of a prompt, without position 0."""
    n = (resid.shape[1] - 1) // 2
    keep = torch.ones(n, dtype=torch.bool)
    return (
        matched_alpha(resid[:, 1 : n + 1], n, keep, normed=True, draws=1, seed=seed),
        matched_alpha(resid[:, n + 1 : 2 * n + 1], n, keep, normed=True, draws=1, seed=seed),
    )
