"""Gradient descent in token space: its terms against plain formulas, and words found where a judge makes one right."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from analysis.token_descent import DescentRules, descend, divergence, entropy, token_loss

WORDS, TEXTS = 40, 24
FIRES = torch.arange(TEXTS) % 2 == 0
UNIFORM = torch.full((WORDS,), -math.log(WORDS))


def planted(right: int, seed: int = 0) -> Tensor:
    """Log-odds of every word on every text: noise, but for the right word, which tells the texts apart."""
    odds = 0.3 * torch.randn(TEXTS, WORDS, generator=torch.Generator().manual_seed(seed))
    odds[:, right] = torch.where(FIRES, 3.0, -3.0)
    return odds


def judge(odds: Tensor):
    return lambda p, rows: odds[rows] @ p


def test_entropy_and_divergence_are_the_plain_sums() -> None:
    p = [0.5, 0.25, 0.125, 0.125]
    q = [0.1, 0.2, 0.3, 0.4]
    log_p, log_q = torch.tensor(p).double().log(), torch.tensor(q).double().log()
    assert float(entropy(log_p)) == pytest.approx(1.75 * math.log(2))
    expected = sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
    assert float(divergence(log_p, log_q)) == pytest.approx(expected)
    assert float(divergence(log_p, log_p)) == 0.0
    one = torch.tensor([50.0, 0.0, 0.0]).double().log_softmax(0)
    assert float(entropy(one)) == pytest.approx(0.0, abs=1e-18 + 1e-16)
    assert float(entropy(UNIFORM)) == pytest.approx(math.log(WORDS), rel=1e-6)


def test_the_loss_is_its_three_terms() -> None:
    odds, rows = planted(3).double(), torch.tensor([0, 1, 5])
    v = torch.linspace(-1, 1, WORDS).double()
    p = v.softmax(0)
    said = (odds[rows] @ p).tolist()
    cross = sum(math.log1p(math.exp(-z if FIRES[row] else z)) for z, row in zip(said, rows.tolist(), strict=True)) / 3
    by_hand = cross + 0.07 * float(-(p * p.log()).sum()) + 0.02 * float((p * (p.log() - UNIFORM)).sum())
    loss = token_loss(v, judge(odds), rows, FIRES[rows], UNIFORM.double(), 0.07, 0.02)
    assert float(loss) == pytest.approx(by_hand, rel=1e-6)


@pytest.mark.parametrize("right", [3, 31])
def test_the_word_that_is_right_is_found(right: int) -> None:
    found = descend(judge(planted(right)), FIRES, UNIFORM)
    assert found[0].word == right
    assert found[0].probability > 0.9
    assert found[0].cross_entropy == pytest.approx(math.log1p(math.exp(-3.0)), rel=1e-5)
    assert [one.cross_entropy for one in found] == sorted(one.cross_entropy for one in found)
    assert len({one.word for one in found}) == len(found)


def test_with_shuffled_labels_the_right_word_is_no_better_than_others() -> None:
    odds = planted(3)
    shuffled = FIRES[torch.randperm(TEXTS, generator=torch.Generator().manual_seed(5))]
    assert descend(judge(odds), shuffled, UNIFORM)[0].word != 3


def test_words_near_the_end_are_looked_at_alone() -> None:
    odds = planted(3)
    odds[:, 8] = odds[:, 3] * 0.9
    rules = DescentRules(steps=30, restarts=1)
    few, more = (descend(judge(odds), FIRES, UNIFORM, replace(rules, words=words)) for words in (1, 4))
    assert (len(few), len(more)) == (1, 4)
    assert few[0] in more
    assert more[0].word == 3


def test_the_prior_decides_between_words_that_are_equally_right() -> None:
    odds = planted(3)
    odds[:, 8] = odds[:, 3]
    prior = UNIFORM.clone()
    prior[8] += 4.0
    rules = replace(DescentRules(), kl=0.3, spread=0.1)
    rules = replace(rules, words=1)
    assert {one.word for one in descend(judge(odds), FIRES, prior.log_softmax(0), rules)} == {8}


def test_the_entropy_weight_makes_one_word_of_many() -> None:
    odds = planted(3)
    odds[:, :10] = odds[:, 3:4]
    rules = DescentRules(kl=0.0, restarts=1, spread=0.01)
    mixed = descend(judge(odds), FIRES, UNIFORM, replace(rules, entropy_first=0.0, entropy_last=0.0))
    pure = descend(judge(odds), FIRES, UNIFORM, replace(rules, entropy_first=0.1, entropy_last=1.0))
    assert mixed[0].probability < 0.5 < pure[0].probability


def test_the_same_seed_gives_the_same_words_and_a_search_can_be_stopped() -> None:
    odds = planted(3)
    rules = DescentRules(steps=20)
    assert descend(judge(odds), FIRES, UNIFORM, rules) == descend(judge(odds), FIRES, UNIFORM, rules)
    told: list[float] = []

    def watch(fraction: float) -> None:
        told.append(fraction)
        if len(told) == 30:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        descend(judge(odds), FIRES, UNIFORM, rules, watch)
    assert told == sorted(told)
    assert told[0] == 0.0
    assert 0.2 < told[-1] < 0.4


def test_one_kind_of_example_is_refused() -> None:
    with pytest.raises(ValueError, match="not 24 that fire of 24"):
        descend(judge(planted(3)), torch.ones(TEXTS, dtype=torch.bool), UNIFORM)
