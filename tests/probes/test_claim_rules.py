"""The rule of every claim on planted numbers: what holds, what does not, and what cannot be told."""

import re

import numpy as np
import pandas as pd
import pytest

from analysis.cascade_fit import Decay
from analysis.cascade_nulls import ShiftNull
from analysis.groups import GroupComparison, Groups, compare_groups
from analysis.prediction import compare_predictors
from analysis.response_shift import response_shift
from analysis.reversal import reversal as reversed_groups
from probes.claims import (
    cascade,
    correctness,
    dimension_loss,
    fixed_dimensions,
    idiom_convergence,
    mlp_origin,
    punctuation,
    reasoning_alpha,
    reversal,
    scaling,
    shuffled_dimension,
    sink_bos,
)  # fmt: skip
from probes.claims import (
    response_shift as response_claim,
)
from probes.claims.claim import Outcome, Untestable

RNG = np.random.default_rng(0)


def groups(shift: float, *, n: int = 24, seed: int = 0) -> Groups:
    """Two groups of prompts at 5 points, the first moved by ``shift``."""
    rng = np.random.default_rng(seed)
    first, second = (rng.normal(1.0, 0.05, (n, 5)) for _ in range(2))
    tokens = np.full(n, 40)
    return Groups(first + shift, second, tokens, tokens)


def compared(shift: float, seed: int = 0) -> GroupComparison:
    return compare_groups(groups(shift, seed=seed), permutations=400)


@pytest.mark.parametrize(
    ("shift", "null", "verdict"),
    [
        (-0.2, 0.0, "holds"),
        (0.2, 0.0, "does not hold"),
        (0.0, 0.0, "does not hold"),
        (-0.2, -0.4, "does not hold"),  # as much of it is in the null
    ],
)
def test_reasoning_alpha(shift: float, null: float, verdict: str) -> None:
    outcome = reasoning_alpha.judged(compared(shift), compared(null, seed=1), 40)
    assert outcome.verdict == verdict
    assert outcome.effect == pytest.approx(shift, abs=0.03)
    assert outcome.control == pytest.approx(null, abs=0.03)
    assert len(outcome.details) == 5
    assert outcome.n == 48


def test_groups_of_other_lengths_cannot_be_compared() -> None:
    own = groups(-0.2)
    longer = Groups(own.first, own.second, np.full(24, 60), np.full(24, 40))
    with pytest.raises(Untestable, match="differ by"):
        reasoning_alpha.judged(compare_groups(longer), compared(0.0), 40)


@pytest.mark.parametrize(("base", "tuned", "verdict"), [(-0.2, 0.2, "holds"), (-0.2, -0.1, "does not hold")])
def test_reversal(base: float, tuned: float, verdict: str) -> None:
    found = reversed_groups(groups(base), groups(tuned, seed=1))
    outcome = reversal.judged(found, "a", "a-instruct")
    assert outcome.verdict == verdict
    assert outcome.effect == pytest.approx(tuned - base, abs=0.04)


def test_a_pair_is_found_by_its_names() -> None:
    assert reversal.pair_of("Qwen2.5-3B", ("SmolLM2-135M", "Qwen2.5-3B-Instruct")) == (
        "Qwen2.5-3B",
        "Qwen2.5-3B-Instruct",
    )
    assert reversal.pair_of("llama-3-8b-instruct", ("llama-3-8b",)) == ("llama-3-8b", "llama-3-8b-instruct")
    with pytest.raises(Untestable, match="no base model of smollm2-135m-instruct is installed"):
        reversal.pair_of("smollm2-135m-instruct", ("pythia-70m",))
    with pytest.raises(Untestable, match="More than one instruct model"):
        reversal.pair_of("pythia-70m", ("pythia-70m-chat", "pythia-70m-instruct"))


def test_scaling() -> None:
    sizes = np.array([1e8, 3e8, 1e9, 3e9, 1e10])
    alphas = 2 - 0.07 * np.log(sizes) + 0.001 * np.array([1, -1, 1, -1, 0])
    falls = scaling.judged(("a", "b", "c", "d", "e"), sizes, alphas)
    assert (falls.verdict, falls.n) == ("holds", 5)
    assert falls.effect == pytest.approx(-0.07, abs=1e-3)
    assert scaling.judged(("a", "b", "c", "d", "e"), sizes, -alphas).verdict == "does not hold"
    with pytest.raises(Untestable, match="at least 3 models"):
        scaling.judged(("a", "b"), sizes[:2], alphas[:2])


def decay(tau: float, low: float, high: float) -> Decay:
    return Decay(tau, low, high, 0.9, 0.9, 12, "ok")


@pytest.mark.parametrize(
    ("own", "p", "verdict"),
    [
        (decay(20.0, 16.0, 25.0), 0.001, "holds"),
        (decay(20.0, 16.0, 25.0), 0.4, "does not hold"),
        (decay(8.0, 5.0, 12.0), 0.001, "does not hold"),  # no longer than a walk
        (decay(np.inf, 30.0, np.inf), 0.001, "does not hold"),
    ],
)
def test_cascade(own: Decay, p: float, verdict: str) -> None:
    distance = np.arange(1, 13)
    rho = np.tile(np.exp(-distance / 20), (12, 1))
    flat = np.zeros(12)
    shifted = ShiftNull(flat, flat - 0.1, flat + 0.1, np.full(12, p), 12)
    outcome = cascade.judged(own, decay(9.0, 8.0, 10.0), rho, rho**2, shifted)
    assert outcome.verdict == verdict
    assert outcome.control == 9
    assert (outcome.effect is None) == np.isinf(own.tau)


def jumping(n_prompts: int, *, at_marks: bool) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Texts of 160 tokens with a boundary every 16; alphas that jump there, or anywhere."""
    rng = np.random.default_rng(1)
    alphas, marks = [], []
    for _ in range(n_prompts):
        mark = np.zeros(160, dtype=bool)
        mark[5::16] = True
        steps = rng.normal(0, 0.01, (4, 160))
        places = np.flatnonzero(mark) if at_marks else rng.choice(160, 10, replace=False)
        steps[:, places] += 0.3 * rng.choice([-1, 1], len(places))
        alphas.append(1 + steps.cumsum(axis=1))
        marks.append(mark)
    return alphas, marks


def test_punctuation() -> None:
    there = punctuation.judged(*jumping(6, at_marks=True))
    assert there.verdict == "holds"
    assert there.low is not None
    assert there.low > 1.5
    assert there.control == pytest.approx(1.0, abs=0.3)
    assert punctuation.judged(*jumping(6, at_marks=False)).verdict == "does not hold"
    alphas, marks = jumping(3, at_marks=True)
    with pytest.raises(Untestable, match="No boundary"):
        punctuation.judged(alphas, [np.zeros(160, dtype=bool) for _ in marks])


@pytest.mark.parametrize(("told", "verdict"), [("alpha", "holds"), ("length", "does not hold"), ("", "does not hold")])
def test_correctness(told: str, verdict: str) -> None:
    rng = np.random.default_rng(3)
    labels = rng.random(120) < 0.5
    signal = labels[:, None] + rng.normal(0, 0.4, (120, 1))
    noise = rng.normal(size=(120, 3))
    alpha = np.where(told == "alpha", signal, noise) + 0.0
    length = signal if told == "length" else rng.normal(size=(120, 1))
    table = compare_predictors({"alpha": alpha[:, :, None]}, {"length": length}, labels, np.arange(120), shuffles=2)
    outcome = correctness.judged(table, int(labels.sum()), 120, 128)
    assert outcome.verdict == verdict
    assert "8 more are left out" in outcome.reason
    undefined = correctness.judged(table, int(labels.sum()), 120, 120, ["entropy"])
    assert undefined.verdict == "does not hold"
    assert "not compared: entropy" in undefined.reason
    assert outcome.control_is == "the best baseline: length"


@pytest.mark.parametrize(
    ("shift", "drift", "verdict"),
    [
        (-0.3, 0.0, "holds"),
        (0.3, 0.0, "holds"),
        (0.02, 0.0, "does not hold"),
        (0.3, 0.28, "does not hold"),  # the prompts themselves drift as much
        (0.3, 0.6, "does not hold"),  # or more
    ],
)
def test_response_shift(shift: float, drift: float, verdict: str) -> None:
    rng = np.random.default_rng(4)
    prompt = rng.normal(1, 0.05, (20, 4))
    early, late, response = (prompt + moved + rng.normal(0, 0.05, (20, 4)) for moved in (0, drift, shift))
    outcome = response_claim.judged(
        response_shift(prompt, response),
        response_shift(early, late),
        response_shift(prompt + late - early, response),
        24,
    )
    assert outcome.verdict == verdict
    assert outcome.control == pytest.approx(drift, abs=0.05)
    assert "20 of 24 prompts" in outcome.reason


def sinks(n: int, cosine: float, low_meaning: int = 2) -> list[sink_bos.PromptSinks]:
    rng = np.random.default_rng(5)
    return [
        sink_bos.PromptSinks(
            (3, 5), low_meaning, (cosine + rng.normal(0, 0.02), 0.5, 0.4), (0.2 + rng.normal(0, 0.02), 0.0, 0.0)
        )
        for _ in range(n)
    ]


def test_intermediate_sinks() -> None:
    nothing = (float("nan"),) * 3
    none = [sink_bos.PromptSinks((), 0, nothing, nothing)] * 10
    assert sink_bos.judged(sinks(8, 0.9) + none).verdict == "holds"
    assert sink_bos.judged(sinks(8, 0.9) + none).effect == pytest.approx(0.9, abs=0.03)
    assert sink_bos.judged(sinks(8, 0.5) + none).verdict == "does not hold"
    assert sink_bos.judged(sinks(8, 0.9, low_meaning=0) + none).verdict == "does not hold"
    few = sink_bos.judged(sinks(2, 0.9) + none)
    assert (few.verdict, few.effect) == ("does not hold", None)
    assert "2 of 12 prompts" in few.reason
    with pytest.raises(Untestable, match="below which there are no sinks"):
        sink_bos.judged(sinks(3, 0.9))


def test_mlp_origin() -> None:
    high, middle = np.full(8, 0.98) + RNG.normal(0, 0.01, 8), np.full(8, 0.55) + RNG.normal(0, 0.01, 8)
    born = [[11], [11], [11, 12], *[[11]] * 5]
    assert mlp_origin.judged(high, middle, born, 20).verdict == "holds"
    assert mlp_origin.judged(1 - high, middle, born, 20).verdict == "does not hold"
    assert mlp_origin.judged(middle, high, born, 20).verdict == "does not hold"
    assert mlp_origin.judged(high, middle, born, 20).details[0] == {"block": 11, "prompts with a birth": 8}
    none = mlp_origin.judged(np.zeros(0), np.zeros(0), [], 20)
    assert none.verdict == "cannot be tested here"
    assert "0 of 20 prompts" in none.reason


def test_fixed_dimensions() -> None:
    rng = np.random.default_rng(6)
    same = pd.DataFrame([(p, d, 900.0) for p in range(12) for d in (7, 40)], columns=["prompt", "dim", "value"])
    even = np.ones(64)
    fixed = fixed_dimensions.judged(same, 14, even)
    assert (fixed.verdict, fixed.effect, fixed.n) == ("holds", 1.0, 12)
    assert fixed.control is not None
    assert fixed.control < 0.6
    rows = [(p, int(d), 900.0) for p in range(12) for d in rng.choice(64, 2, replace=False)]
    assert (
        fixed_dimensions.judged(pd.DataFrame(rows, columns=["prompt", "dim", "value"]), 14, even).verdict
        == "does not hold"
    )
    with pytest.raises(Untestable, match="Every token holds a massive activation"):
        fixed_dimensions.judged(same, 14, np.zeros(64))
    large = even + 1e6 * np.isin(np.arange(64), (7, 40))
    assert fixed_dimensions.judged(same, 14, large).verdict == "does not hold", "they are always the largest"
    few = fixed_dimensions.judged(same[same["prompt"] < 3], 14, even)
    assert few.verdict == "cannot be tested here"


def test_idiom_convergence() -> None:
    rng = np.random.default_rng(7)
    right = rng.random(80) < 0.4
    losses = np.column_stack(
        [rng.normal(2, 0.5, 80) - 0.3 * right, rng.normal(8, 1, 80) - 3 * right, rng.normal(9, 1, 80)]
    )
    there = idiom_convergence.judged(right, losses)
    assert there.verdict == "holds"
    assert there.effect is not None
    assert there.effect > 0.8
    surer = np.column_stack([rng.normal(2, 0.5, 80) - 3 * right, losses[:, 1:]])
    assert idiom_convergence.judged(right, surer).verdict == "does not hold", "the output says as much"
    assert idiom_convergence.judged(rng.permutation(right), losses).verdict == "does not hold"
    with pytest.raises(Untestable, match=re.escape("0 of 80 completions are right")):
        idiom_convergence.judged(np.zeros(80, dtype=bool), losses)


def test_dimension_loss() -> None:
    rng = np.random.default_rng(8)
    losses, tokens = rng.normal(3, 0.5, 40), rng.integers(100, 300, 40)
    controls = np.column_stack([tokens, rng.random(40)])
    metric = np.column_stack([rng.normal(5, 1, 40), 10 + 2 * losses + rng.normal(0, 0.3, 40), rng.normal(6, 1, 40)])
    there = dimension_loss.judged(metric, losses, controls)
    assert there.verdict == "holds"
    assert "At point 1" in there.reason
    assert there.control is not None
    assert 0.1 < there.control < 0.6
    assert dimension_loss.judged(metric, rng.permutation(losses), controls).verdict == "does not hold"
    with pytest.raises(Untestable, match="too_few_prompts"):
        dimension_loss.judged(metric[:20], losses[:20], controls[:20])


def test_shuffled_dimension() -> None:
    rng = np.random.default_rng(9)
    curves = rng.normal(10, 0.3, (8, 3, 3, 6))
    assert shuffled_dimension.judged(curves).verdict == "does not hold"
    curves[:, 1:, 0] += 3
    there = shuffled_dimension.judged(curves)
    assert there.verdict == "holds"
    assert there.effect == pytest.approx(3, abs=0.3)
    curves[:, :, 0] = np.nan
    with pytest.raises(Untestable, match="undefined at every point"):
        shuffled_dimension.judged(curves)


def test_numbers_of_an_outcome_are_finite_or_missing() -> None:
    with pytest.raises(ValueError, match="finite"):
        Outcome("does not hold", "why", effect=float("inf"))
    with pytest.raises(ValueError, match="has an effect"):
        Outcome("holds", "why")
    whole = Outcome("holds", "why", 1.0, 0.5, 1.5, details=({"a": 1},))
    assert Outcome.from_document(whole.as_document()) == whole
