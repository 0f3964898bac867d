"""Boundaries in text, jumps of alpha, and whether they meet more often than chance."""

import numpy as np
import pytest

from analysis.punctuation import alpha_events, boundaries, punctuation


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        (["Step", " 3", ":", " add"], [0]),
        ([" 2", "+", "3", " =", " 5"], [3]),
        (["It", " is", " 3", ".", "14", ".", " Then", " stop", "."], [5, 6, 8]),
        (["The", "re", "fore", " it", " works"], [0]),
        ([" sofa", " nextdoor", " also", " Hence", "forth"], []),
        (["one", "\n", "two", "\n", "\n", "three"], [3]),
        (["one", "\n\n", "two"], [1]),
        (['He said "no', '."', " And", " left"], [1]),
        (["BECAUSE", " so", "", " finally"], [0, 1, 3]),
        ([], []),
    ],
)
def test_boundaries_begin_in_their_token(tokens: list[str], expected: list[int]) -> None:
    assert np.flatnonzero(boundaries(tokens)).tolist() == expected


def jumping(at: list[int], points: int = 3, tokens: int = 240, seed: int = 0) -> np.ndarray:
    steps = np.random.default_rng(seed).normal(0, 0.01, size=(points, tokens))
    steps[:, at] += 0.2
    alpha = np.pad(np.cumsum(steps[:, :-1], axis=1), ((0, 0), (1, 0)))
    alpha[:, :9] = np.nan
    return alpha


def marked(at: list[int], tokens: int = 240) -> np.ndarray:
    marks = np.zeros(tokens, dtype=bool)
    marks[at] = True
    return marks


EVERY_30 = list(range(20, 230, 30))


def test_planted_jumps_are_events_at_their_token() -> None:
    events = alpha_events(jumping(EVERY_30))
    assert events[:, EVERY_30].all()
    assert np.diff(np.flatnonzero(events[0])).min() >= 3


def test_jumps_at_boundaries_are_found_and_jumps_elsewhere_are_not() -> None:
    near = punctuation([jumping(EVERY_30)], [marked([t + 1 for t in EVERY_30])])
    assert (near.table["lift"] > 1.5).all()
    assert near.overall["p"] < 0.02
    assert near.overall["events"] == near.table["events"].sum()
    far = punctuation([jumping(EVERY_30)], [marked([t + 12 for t in EVERY_30])])
    assert far.overall["lift"] < near.overall["lift"]
    assert far.overall["p"] > 0.05


def test_hits_and_rates_by_hand() -> None:
    alpha, mark = jumping([40, 100], points=1, tokens=200), marked([42, 150], 200)
    events = np.flatnonzero(alpha_events(alpha)[0])
    hits = sum(int(abs(t - b) <= 2) for t in events for b in (42, 150))
    found = punctuation([alpha], [mark]).table.iloc[0]
    assert (found["events"], found["hits"]) == (len(events), hits)
    assert found["base_rate"] == pytest.approx(10 / 190)
    assert found["lift"] == pytest.approx(hits / len(events) / (10 / 190))


def test_p_values_without_a_relation_are_uniform() -> None:
    rng, p = np.random.default_rng(3), []
    for seed in range(80):
        mark = marked(rng.choice(240, 25, replace=False).tolist())
        p.append(punctuation([jumping([], seed=seed + 10)], [mark], shifts=100, seed=seed).overall["p"])
    assert (np.array(p) < 0.05).mean() == pytest.approx(0.05, abs=0.05)
    assert np.mean(p) == pytest.approx(0.5, abs=0.12)


def test_prompts_add_up() -> None:
    alphas, marks = [jumping(EVERY_30), jumping([50, 90], seed=1)], [marked(EVERY_30), marked([10])]
    both = punctuation(alphas, marks)
    parts = [punctuation([alpha], [mark]) for alpha, mark in zip(alphas, marks, strict=True)]
    for name in ("events", "hits"):
        assert both.table[name].tolist() == (parts[0].table[name] + parts[1].table[name]).tolist()
    assert both.n_prompts == 2


def test_nothing_to_test_is_not_applicable() -> None:
    none = punctuation([jumping(EVERY_30)], [marked([])])
    assert set(none.table["status"]) == {"not_applicable"}
    assert none.table[["lift", "p", "p_bh", "hit_rate"]].isna().all(axis=None)
    everywhere = punctuation([jumping(EVERY_30)], [marked(list(range(240)))])
    assert everywhere.overall["status"] == "not_applicable"
    flat = jumping(EVERY_30)
    flat[1], flat[2] = 0.7, np.nan
    found = punctuation([flat], [marked(EVERY_30)]).table
    assert found["events"].tolist()[1:] == [0, 0]
    assert found["status"].tolist() == ["ok", "not_applicable", "not_applicable"]
    with pytest.raises(ValueError, match="boundaries of 239 tokens do not fit alphas of 240"):
        punctuation([flat], [marked([], 239)])
