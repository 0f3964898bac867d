"""Claim: instruction tuning turns the difference between reasoning and recall round (core.md 1.6)."""

from __future__ import annotations

import re

import numpy as np

from analysis.groups import Groups
from analysis.inference import complete_mean
from analysis.reversal import Reversal, reversal
from probes.claims.alpha_groups import AlphaGroups, alpha_groups
from probes.claims.bench import Bench
from probes.claims.claim import Claim, Outcome, Untestable, finite

__all__ = ["claim", "judged", "pair_of", "test"]

_TUNED = re.compile(r"(?:^|[-_./])(?:instruct|chat|it|sft|dpo)(?:$|[-_./@])", re.IGNORECASE)

claim = Claim(
    name="reversal",
    title="Instruction tuning reverses the difference",
    paper="Spectral Geometry of Thought, arXiv 2604.15350",
    reported="Reasoning has the lower alpha in the base model and the higher one in its instruct model (Qwen2.5-3B: "
    "-.318 against +.121).",
    tested="The difference of alpha between reasoning and factual prompts in both models of a pair, on the same prompts as "
    "plain text without a chat template, and how each prompt's alpha moves from base to instruct (the interaction).",
    rule="Holds if the two differences have opposite signs and both 95 % intervals exclude 0.",
    distrust="A clear interaction is no reversal. A pair is told by its names alone: that the one was tuned from the other "
    "is for you to know.",
    prompts="factual-reasoning",
    shuffles="the groups of the prompts",
)


def test(bench: Bench) -> Outcome:
    """Measure both models of a pair."""
    base, tuned = pair_of(bench.model, bench.others)
    sides = [alpha_groups(bench.within(i / 2, (i + 1) / 2).on(name)) for i, name in enumerate((base, tuned))]
    first, second = (_by_prompt(side) for side in sides)
    if first.first.shape != second.first.shape or first.second.shape != second.second.shape:
        raise Untestable(f"{base} and {tuned} do not take the same prompts of {bench.prompts.name}.")
    if sides[0].n_tokens != sides[1].n_tokens:
        raise Untestable(
            f"{base} and {tuned} read the prompts as different tokens ({sides[0].n_tokens} and {sides[1].n_tokens} at "
            "the matched length)."
        )
    return judged(reversal(first, second, seed=bench.seed), base, tuned)


def pair_of(model: str, others: tuple[str, ...]) -> tuple[str, str]:
    """Base and instruct model by their names: one of them is ``model``. Raises Untestable where there is no pair."""
    tuned = bool(_TUNED.search(model))
    candidates = [name for name in others if bool(_TUNED.search(name)) != tuned and _stem(name) == _stem(model)]
    if len(candidates) != 1:
        wanted = "base" if tuned else "instruct"
        raise Untestable(
            f"It takes a pair of base and instruct model; no {wanted} model of {model} is installed."
            if not candidates
            else f"More than one {wanted} model of {model} is at hand ({', '.join(candidates)}): name one with --with."
        )
    return (candidates[0], model) if tuned else (model, candidates[0])


def judged(found: Reversal, base: str, tuned: str) -> Outcome:
    """The verdict on a pair. Raises Untestable where the groups cannot be compared."""
    if found.reverses is None:
        raise Untestable(f"The groups cannot be compared: {found.refusal or found.base.overall['status']}.")
    rows = []
    for name, one in ((base, found.base), (tuned, found.instruct), ("interaction", found.interaction)):
        numbers = {end: finite(float(one.overall[end])) for end in ("difference", "low", "high")}
        rows.append({"model": name, **numbers})
    moved = found.interaction.overall
    return Outcome(
        verdict="holds" if found.reverses else "does not hold",
        reason=f"Reasoning less factual is {rows[0]['difference']:.3g} in {base} and {rows[1]['difference']:.3g} in {tuned}.",
        effect=float(moved["difference"]), low=finite(float(moved["low"])), high=finite(float(moved["high"])),
        unit="change of the difference in alpha, base to instruct",
        control=0.0, control_is="no change", n=int(moved["n_first"] + moved["n_second"]), details=tuple(rows),
    )  # fmt: skip


def _by_prompt(side: AlphaGroups) -> Groups:
    """One column, the mean over points: the models may have other depths."""
    (first, second), _ = complete_mean(side.alpha.first, side.alpha.second)
    return Groups(np.asarray(first), np.asarray(second), side.alpha.first_tokens, side.alpha.second_tokens)


def _stem(name: str) -> str:
    """A model's name without what says that it was tuned."""
    folder = name.rstrip("/").rsplit("/", 1)[-1].lower()
    return re.sub(r"[-_.](?:base|instruct|chat|it|sft|dpo)(?=$|[-_.@])", "", folder)
