"""Absorption: a toy where one latent is silenced on a subset whose letter another latent writes instead."""

import math

import pytest
import torch

from analysis.absorption import absorbed_words, absorption_rate, letter_probe, silent
from analysis.splitting import k_sparse_probe

D, PER_LETTER, SUBSET = 48, 80, 12


class Toy:
    """Words of three letters: latent l tells letter l, latent 10 is one word kind of letter 0, others are noise.

    Latent 10 fires on a subset of letter 0, where latent 0 is silent; its decoder holds the direction of letter 0.
    """

    def __init__(self, absorbing: bool = True) -> None:
        generator = torch.Generator().manual_seed(0)
        basis = torch.linalg.qr(torch.randn(D, D, generator=generator))[0]
        self.letter = [one for one in "abc" for _ in range(PER_LETTER)]
        n = len(self.letter)
        self.subset = torch.arange(n) < SUBSET
        self.f = torch.zeros(n, 30)
        for index in range(3):
            self.f[index * PER_LETTER : (index + 1) * PER_LETTER, index] = 4.0
        self.f[:, 11:] = torch.rand(n, 19, generator=generator) * (torch.rand(n, 19, generator=generator) < 0.3)
        self.decoder = basis[:30].clone()
        self.f[self.subset, 10] = 4.0
        if absorbing:
            self.f[self.subset, 0] = 0.0
            self.decoder[10] += basis[0]
        self.direction = basis[0]
        self.states = self.f @ self.decoder + 0.05 * torch.randn(n, D, generator=generator)
        self.held_out = torch.arange(n) % 4 == 3

    def found(self) -> set[int]:
        """The words that count as absorbed, by the whole chain."""
        probe = letter_probe(self.states, self.letter, self.held_out)
        assert probe.mean_f1 > 0.95
        own = torch.tensor([one == "a" for one in self.letter])
        main = k_sparse_probe(self.f, own, self.held_out, ks=(1,)).main
        assert main == (0,)
        right = own & probe.said[:, 0]
        rows = torch.nonzero(right & silent(self.f, main))[:, 0]
        effects = -self.f[rows] * (self.decoder @ self.direction) * 2  # the logit is twice the letter's direction
        table = absorbed_words(effects, probe.directions[0], self.decoder)
        return {int(rows[row]) for row in table.loc[table["absorbed"], "row"]}


def test_exactly_the_subset_is_absorbed() -> None:
    assert Toy().found() == set(range(SUBSET))


def test_nothing_is_absorbed_where_the_main_latent_fires() -> None:
    assert Toy(absorbing=False).found() == set()


def test_one_latent_alone_must_hurt_and_point_along_the_probe() -> None:
    direction, decoder = torch.tensor([1.0, 0.0]), torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    effects = torch.tensor([[-3.0, 0.0, -1.9], [0.0, -3.0, 0.0], [-3.0, 0.0, -2.5], [1.0, 2.0, 3.0], [-1.0, 0.0, 0.0]])
    table = absorbed_words(effects, direction, decoder)
    assert table["latent"].tolist() == [0, 1, 0, 0, 0]
    assert table["margin"].tolist() == pytest.approx([1.1, 3.0, 0.5, 1.0, 1.0])
    assert table["absorbed"].tolist() == [True, False, False, False, True]


def test_silent_means_all_main_latents() -> None:
    f = torch.tensor([[0.0, 0.0, 1.0], [0.0, 1e-3, 0.0], [0.0, 1e-9, 0.0]])
    assert silent(f, (0, 1)).tolist() == [True, False, True]
    assert silent(f, ()).all()


def test_the_rate_is_over_the_words_the_probe_reads() -> None:
    assert absorption_rate(3, 10, 20, 60).value == pytest.approx(3 / 0.5 / 60)
    assert absorption_rate(0, 0, 0, 60).value == 0
    assert absorption_rate(0, 0, 20, 60).status == "not_requested"
    assert absorption_rate(0, 0, 0, 0).status == "not_applicable"
    assert math.isnan(absorption_rate(0, 0, 0, 0).value)


def test_a_probe_needs_every_letter_on_both_sides() -> None:
    states, held_out = torch.randn(6, 4), torch.tensor([False, False, True, True, True, True])
    with pytest.raises(ValueError, match="every letter"):
        letter_probe(states, list("aabbcc"), held_out)


def test_states_that_tell_no_letter_have_a_low_f1() -> None:
    generator = torch.Generator().manual_seed(2)
    letter = [one for one in "abcd" for _ in range(50)]
    probe = letter_probe(torch.randn(200, 8, generator=generator), letter, torch.arange(200) % 3 == 0)
    assert probe.mean_f1 < 0.6
