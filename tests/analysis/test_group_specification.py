"""The sign of a group difference over all conventions, prompts as the unit."""

from functools import cache

import numpy as np
import pandas as pd
import pytest
import torch

from analysis.alpha import ESTIMATORS, WINDOWS
from analysis.group_specification import CONVENTION, group_specification, matched_conventions
from analysis.matched import matched_alpha

D = 80


def states(tokens: int, exponent: float, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, tokens, D, generator=generator) * torch.arange(1, D + 1) ** -exponent


@cache
def group(exponent: float, offset: int, n: int = 48) -> pd.DataFrame:
    frames = []
    for prompt in range(5):
        tokens = 50 + 3 * prompt
        keep = torch.ones(tokens, dtype=torch.bool)
        no_first = keep.clone()
        no_first[0] = False
        frame = matched_conventions(
            states(tokens, exponent, offset + prompt)[1:], n, {"normed": keep, "raw_no_bos": no_first}, draws=3
        )
        frames.append(frame.assign(prompt=prompt, n_tokens=n))
    return pd.concat(frames)


def test_every_convention_of_a_prompt_stands_once_at_one_n() -> None:
    keep = torch.ones(60, dtype=torch.bool)
    frame = matched_conventions(states(60, 0.5, 0), 48, {"normed": keep, "raw_all": keep})
    assert len(frame) == 2 * 2 * len(WINDOWS) * len(ESTIMATORS)
    assert not frame.duplicated(["layer", *CONVENTION]).any()
    plain = frame[(frame["prep"] == "normed") & (frame["window"] == "all") & (frame["estimator"] == "slope")]
    assert plain["alpha"].tolist() == [one.value for one in matched_alpha(states(60, 0.5, 0), 48, keep, normed=True)]


def test_a_real_difference_keeps_its_sign_everywhere() -> None:
    found = group_specification(group(0.7, 0), group(0.3, 100))
    assert (found.same_sign, found.signs.survives, found.clear_other) == (1.0, True, 0)
    assert found.signs.n_used == found.clear_same == len(found.table)
    assert found.table["difference"].is_monotonic_increasing
    assert (found.table["name"] == "headline").sum() == 1
    assert (found.table[["low", "g"]] > 0).all(axis=None)


def test_the_share_is_against_the_headline_and_counts_what_is_clear() -> None:
    first, second = group(0.5, 0), group(0.5, 0)
    planted = {"normed": 0.3, "raw_no_bos": -0.2}
    first = first.assign(alpha=first["alpha"] + first["prep"].map(planted))
    jitter = np.random.default_rng(0).normal(0, 0.01, len(second))
    found = group_specification(first, second.assign(alpha=second["alpha"] + jitter))
    each = len(found.table) // 2
    assert found.same_sign == 0.5
    assert (found.signs.steeper, found.signs.flatter) == (each, each)
    assert (found.clear_same, found.clear_other) == (each, each)
    assert not found.signs.survives


def test_conventions_without_a_value_and_groups_of_other_lengths_say_so() -> None:
    short = group(0.5, 0, n=24)
    found = group_specification(short, group(0.3, 100, n=24))
    undefined = found.table[found.table["difference"].isna()]
    assert set(undefined["window"]) == {"11_100", "11_500"}
    assert set(undefined["status"]) == {"too_few_prompts"}
    assert found.signs.n_used == len(found.table) - len(undefined)
    refused = group_specification(short, group(0.3, 100, n=48))
    assert refused.refusal is not None
    assert refused.table[["low", "p"]].isna().all(axis=None)
    assert (refused.clear_same, refused.clear_other) == (0, 0)


def test_layers_that_were_not_chosen_are_refused() -> None:
    twice = pd.concat([group(0.5, 0), group(0.5, 0)])
    with pytest.raises(ValueError, match="pick one layer"):
        group_specification(twice, group(0.3, 100))
