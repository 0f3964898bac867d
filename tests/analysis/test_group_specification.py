"""The sign of a group difference over all conventions, prompts as the unit."""

from functools import cache

import numpy as np
import pandas as pd
import pytest
import torch

from analysis.alpha import ESTIMATORS, WINDOWS
from analysis.group_specification import CONVENTION, group_specification
from analysis.matched import alpha_of, matched_spectra, mean_over_draws

D = 80


def states(tokens: int, exponent: float, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, tokens, D, generator=generator) * torch.arange(1, D + 1) ** -exponent


def conventions(resid: torch.Tensor, n: int, keeps: dict[str, torch.Tensor]) -> pd.DataFrame:
    """Alpha of one prompt at n tokens under every preparation given, rank window and estimator, at every point."""
    rows = []
    for prep, keep in keeps.items():
        spectra = matched_spectra(resid, n, keep, normed=prep == "normed", draws=3)
        for window in WINDOWS:
            for estimator in ESTIMATORS:
                for layer, point in enumerate(spectra):
                    rows.append(
                        (layer, prep, window, estimator, mean_over_draws(point, alpha_of(window, estimator)).value)
                    )
    return pd.DataFrame(rows, columns=["layer", *CONVENTION, "alpha"])


@cache
def group(exponent: float, offset: int, n: int = 48) -> pd.DataFrame:
    frames = []
    for prompt in range(5):
        tokens = 50 + 3 * prompt
        keep = torch.ones(tokens, dtype=torch.bool)
        no_first = keep.clone()
        no_first[0] = False
        frame = conventions(states(tokens, exponent, offset + prompt)[1:], n, {"normed": keep, "raw_no_bos": no_first})
        frames.append(frame.assign(prompt=prompt, n_tokens=n))
    return pd.concat(frames)


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
