"""Massive activations planted in noise."""

import math

import numpy as np
import pandas as pd
import pytest
import torch

from analysis.massive import (
    birth_origin,
    constancy,
    life_spans,
    massive_entries,
    rogue_dimensions,
    top_writers,
)


@pytest.fixture
def noise() -> torch.Tensor:
    return torch.randn(128, 64, generator=torch.Generator().manual_seed(0))


def flagged(H: torch.Tensor, criterion: str) -> list[tuple[int, int]]:
    entries = massive_entries(H).entries
    return list(entries.loc[entries[criterion], ["pos", "dim"]].itertuples(index=False, name=None))


def test_one_planted_entry_is_the_only_massive_one(noise):
    noise[3, 17] = -2000
    for criterion in ("strict", "relative", "robust"):
        assert flagged(noise, criterion) == [(3, 17)]
    point = massive_entries(noise)
    assert point.n_flagged == {"strict": 1, "relative": 1, "robust": 1}
    largest = point.entries.iloc[0]
    assert largest["value"] == -2000
    assert largest["median"] == point.median == np.median(noise.abs().numpy())
    assert largest["ratio"] == pytest.approx(2000 / point.median)
    assert len(point.entries) == 3
    assert point.top.tolist() == noise.abs().flatten().sort(descending=True).values[:3].tolist()


def test_small_model_is_relative_only(noise):
    H = noise * 0.05 / noise.abs().median()
    H[0, 5] = 99
    assert flagged(H, "strict") == []
    assert flagged(H, "relative") == [(0, 5)]


def test_robust_without_the_ratio(noise):
    noise[9, 2] = 300
    assert flagged(noise, "robust") == [(9, 2)]
    assert flagged(noise, "relative") == []


def test_robust_leaves_the_entrys_own_dimension_out(noise):
    H = noise[:, :16].clone()
    H[:, 4] = 500
    assert len(flagged(H, "robust")) == 128
    H[:, 5] = 500
    assert flagged(H, "robust") == []


def test_robust_equals_the_quantile_it_is_defined_by():
    generator = torch.Generator().manual_seed(1)
    for n_tokens, d_model in ((1, 5), (3, 2), (40, 30), (300, 12)):
        H = torch.randn(n_tokens, d_model, generator=generator) ** 7
        magnitude = H.abs().double().numpy()
        expected = np.zeros(H.shape, dtype=bool)
        for dim in range(d_model):
            others = np.delete(magnitude, dim, axis=1)
            expected[:, dim] = magnitude[:, dim] > 20 * np.quantile(others, 0.999)
        entries = massive_entries(H).entries
        found = np.zeros(H.shape, dtype=bool)
        robust = entries[entries["robust"]]
        found[robust["pos"], robust["dim"]] = True
        assert (found == expected).all()


def test_one_dimension_is_never_robust():
    assert massive_entries(torch.tensor([[1.0], [5000.0]])).n_flagged["robust"] == 0


def test_median_0_is_not_applicable():
    H = torch.zeros(10, 8)
    H[0, 0] = 5000
    point = massive_entries(H)
    assert point.status == "not_applicable"
    assert point.top[0] == 5000
    assert sum(point.n_flagged.values()) == 0
    assert point.entries["ratio"].isna().all()


@pytest.mark.parametrize("bad", [math.inf, -math.inf, math.nan])
def test_non_finite_entries_are_named(noise, bad):
    noise[5, 9] = noise[6, 1] = bad
    point = massive_entries(noise)
    assert (point.status, point.non_finite) == ("non_finite", (5, 9))
    assert point.entries.empty
    assert point.top.isnan().all()


def test_fewer_entries_than_listed():
    point = massive_entries(torch.tensor([[1.0, 2.0]]))
    assert point.top[:2].tolist() == [2, 1]
    assert point.top[2].isnan()


def test_the_list_is_bounded_and_the_count_is_not():
    H = torch.full((100, 100), 1e-3)
    H[:45] = 500
    point = massive_entries(H)
    assert point.n_flagged["strict"] == 4500
    assert len(point.entries) == 1000


def entry(layer: int, pos: int, dim: int, strict: bool = True, relative: bool = True) -> dict[str, object]:
    return {"layer": layer, "pos": pos, "dim": dim, "strict": strict, "relative": relative, "robust": True}


def test_births_and_deaths():
    rows = [entry(layer, 0, 507) for layer in range(12, 30)]
    rows += [entry(11, 0, 507, strict=False), entry(30, 0, 507, strict=False)]
    rows += [entry(layer, 4, 3) for layer in (2, 3, 7, 30)]
    spans = life_spans(pd.DataFrame(rows), n_points=31)
    expected = [[4, 3, 2, 4], [4, 3, 7, 8], [0, 507, 12, 30], [4, 3, 30, None]]
    assert [[None if pd.isna(x) else x for x in row] for row in spans.to_numpy(dtype=object)] == expected
    relative = life_spans(pd.DataFrame(rows), n_points=31, criterion="relative")
    assert relative.loc[relative["dim"] == 507, "birth"].tolist() == [11]


def test_no_births():
    assert life_spans(pd.DataFrame([entry(1, 0, 0, strict=False)]), n_points=3).empty


def test_unknown_criterion():
    with pytest.raises(ValueError, match="strict, relative, robust"):
        life_spans(pd.DataFrame([entry(1, 0, 0)]), 3, "massive")


def test_origin_shares_the_growth():
    before, attn, mlp = torch.randn(3, 16)
    attn[7], mlp[7] = -10, 30
    origin = birth_origin(before, attn, mlp, before + attn + mlp, 7)
    assert (origin.attn_delta, origin.mlp_delta, origin.mlp_share.value) == (-10, 30, 0.75)


def test_origin_without_growth_is_undefined():
    zero = torch.zeros(4)
    assert birth_origin(torch.ones(4), zero, zero, torch.ones(4), 0).mlp_share.status == "not_applicable"


@pytest.mark.parametrize("factor", [1.0, 2.0])
def test_origin_needs_parts_that_add_up(factor):
    before, attn, mlp = torch.zeros(3, 4)
    after = torch.tensor([0.0, 0, 0, 1000])
    mlp[3] = 1000 - factor * 0.0999
    if factor == 1:
        assert birth_origin(before, attn, mlp, after, 3).mlp_delta == pytest.approx(999.9, abs=1e-3)
    else:
        with pytest.raises(ValueError, match="do not add up"):
            birth_origin(before, attn, mlp, after, 3)


def test_non_finite_parts_do_not_add_up():
    with pytest.raises(ValueError, match="do not add up"):
        birth_origin(torch.ones(2), torch.full((2,), math.nan), torch.ones(2), torch.ones(2), 0)


def test_top_writers_keep_their_sign():
    table = top_writers(torch.tensor([1.0, -3, 0, 2]), torch.tensor([1.0, 5, 9, -4]), n=3)
    assert table.to_numpy().tolist() == [[1, -15], [3, -8], [0, 1]]


def test_rogue_dimension_is_large_at_every_token(noise):
    noise[:, 9] = 40 + noise[:, 9]
    noise[0, 30] = 5000
    rogue = rogue_dimensions(noise, torch.ones(128, dtype=torch.bool), massive_entries(noise).median)
    assert rogue.share[9] == 1
    assert (rogue.share > 0).sum() == 2
    assert rogue.share[30] == 1 / 128
    assert rogue.mean[9].item() == pytest.approx(40, abs=0.5)
    assert rogue.sd[9].item() == pytest.approx(1, abs=0.2)


def test_rogue_dimensions_use_the_kept_tokens(noise):
    noise[:64, 9] = 1000
    keep = torch.arange(128) >= 64
    assert rogue_dimensions(noise, keep, 0.67).share[9] == 0
    assert rogue_dimensions(noise, ~keep, 0.67).share[9] == 1


@pytest.mark.parametrize(
    ("H", "n_kept", "status"),
    [
        (torch.ones(4, 3), 1, "too_few_tokens"),
        (torch.zeros(4, 3), 4, "not_applicable"),
        (torch.full((4, 3), math.inf), 4, "non_finite"),
    ],
)
def test_rogue_dimensions_that_cannot_be_measured(H, n_kept, status):
    rogue = rogue_dimensions(H, torch.arange(4) < n_kept, massive_entries(H).median)
    assert rogue.status == status
    assert rogue.share.isnan().all()


def test_constancy_over_prompts():
    entries = pd.DataFrame(
        [("a", 507, 100.0), ("a", 507, -40.0), ("b", 507, 110.0), ("c", 507, 120.0), ("a", 3, -7.0)],
        columns=["prompt", "dim", "value"],
    )
    table = constancy(entries, n_prompts=4).set_index("dim")
    assert table.index.tolist() == [507, 3]
    assert table["share"].tolist() == [0.75, 0.25]
    assert table.loc[507, "mean"] == 110
    assert table.loc[507, "constancy"] == pytest.approx(10 / 110)
    assert math.isnan(table.loc[3, "constancy"])


def test_constancy_counts_prompts_without_entries():
    with pytest.raises(ValueError, match="at least 2, not 1"):
        constancy(pd.DataFrame({"prompt": ["a", "b"], "dim": [1, 1], "value": [1.0, 1.0]}), 1)
