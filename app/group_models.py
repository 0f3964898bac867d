"""One prompt set in two models: the change from A to B prompt by prompt, and whether a group difference turns round."""

import dataclasses
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64

from analysis.groups import MAX_LENGTH_RATIO, Groups
from analysis.inference import complete_mean
from analysis.paired import PairedComparison, compare_paired
from analysis.reversal import Reversal, reversal
from app.groups import GroupAsk, measured
from app.services import Services
from probes.errors import BadRequest

__all__ = ["ModelComparison", "compared_models", "in_model"]


@dataclass(frozen=True, eq=False)
class ModelComparison:
    """B less A over the same prompts. ``by_layer``: both have the same number of points; otherwise ``change`` has one row,
    each prompt's mean over the model's own points. ``turned`` is None where a group has no prompt in both. ``refusal``:
    the models cut the prompts into too different numbers of tokens for a test (core.md 1.2)."""

    change: PairedComparison
    turned: Reversal | None
    by_layer: bool
    n_prompts: int
    refusal: str | None


def in_model(ask: GroupAsk, model: str) -> GroupAsk:
    """The same comparison asked of another model."""
    like = dataclasses.replace(ask.asked.like, model=model)
    return dataclasses.replace(ask, asked=dataclasses.replace(ask.asked, like=like))


def compared_models(held: Services, ask: GroupAsk, other: str) -> ModelComparison:
    """The model of ``ask`` (A) against ``other`` (B). Raises BadRequest where fewer than 2 prompts were run on both."""
    a, b = measured(held, ask), measured(held, in_model(ask, other))
    shared = [one for one in a.ids if one in set(b.ids)]
    if len(shared) < 2:
        raise BadRequest(f"Two models are compared over at least 2 prompts run on both, not {len(shared)}.")
    rows_a, rows_b = ([own.ids.index(one) for one in shared] for own in (a, b))
    first, second = a.values.values[rows_a], b.values.values[rows_b]
    by_layer = first.shape[1] == second.shape[1]
    if not by_layer:
        (first,), (second,) = complete_mean(first)[0], complete_mean(second)[0]
    groups = np.array([a.groups[row] for row in rows_a])
    tokens_a, tokens_b = (
        np.full(len(shared), ask.n) if ask.n else own.values.tokens[rows] for own, rows in ((a, rows_a), (b, rows_b))
    )
    sides = groups == ask.first, groups == ask.second
    turned = None
    if all(side.any() for side in sides):
        turned = reversal(_grouped(first, tokens_a, *sides), _grouped(second, tokens_b, *sides))
    means = sorted(float(tokens.mean()) for tokens in (tokens_a, tokens_b))
    ratio, refusal = means[1] / means[0], None
    if ratio > MAX_LENGTH_RATIO:
        apart = 100 * (ratio - 1)
        refusal = (
            f"the models' numbers of tokens differ by {apart:.1f} % (at most 10 %): compare them at a matched length"
        )
    return ModelComparison(compare_paired(first, second), turned, by_layer, len(shared), refusal)


def _grouped(
    values: Float64[np.ndarray, "prompts points"],
    tokens: np.ndarray,
    first: Bool[np.ndarray, " prompts"],
    second: Bool[np.ndarray, " prompts"],
) -> Groups:
    return Groups(values[first], values[second], tokens[first], tokens[second])
