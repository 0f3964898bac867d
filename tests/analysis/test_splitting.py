"""Splitting: children by direction and by firing, and the number of latents a class needs."""

import pytest
import torch

from analysis.splitting import SparseProbe, children, k_sparse_probe, split_count


def test_children_write_alike_and_fire_together() -> None:
    small = torch.eye(3)
    large = torch.stack([small[0], small[0] + 0.5 * small[1], small[0] + 2 * small[1], small[1], -small[2]])
    r = torch.zeros(3, 5, dtype=torch.float64)
    r[0] = torch.tensor([0.9, 0.4, 0.9, 0.0, 0.0])
    r[1, 3] = 0.2  # the same direction, but they do not fire together
    r[2, 4] = 1.0  # fire together, but write the opposite
    found = children(small, large, r)
    assert found[["latent", "child"]].to_numpy().tolist() == [[0, 0], [0, 1]]
    assert found["cosine"].tolist() == pytest.approx([1, 1 / 1.25**0.5])
    assert found["correlation"].tolist() == pytest.approx([0.9, 0.4])


def test_an_sae_is_its_own_only_child() -> None:
    rows = torch.randn(20, 16, generator=torch.Generator().manual_seed(0))
    found = children(rows, rows, torch.eye(20, dtype=torch.float64))
    assert found["latent"].tolist() == found["child"].tolist() == list(range(20))
    assert found["cosine"].to_numpy() == pytest.approx(1)


@pytest.mark.parametrize(
    ("f1", "count"),
    [
        ((0.9, 0.91, 0.92, 0.93), 1),
        ((0.5, 0.9, 0.91, 0.92), 2),
        ((0.5, 0.6, 0.6, 0.7), 20),
        ((0.9, 0.8, 0.84, 0.84), 3),
        ((0.90, 0.93, 0.96, 0.99), 1),
    ],
)
def test_the_split_count_is_the_last_jump(f1: tuple[float, ...], count: int) -> None:
    assert split_count((1, 2, 3, 20), f1) == count


def test_a_class_told_by_two_latents_is_split_in_two() -> None:
    generator = torch.Generator().manual_seed(1)
    kind = torch.randint(0, 6, (900,), generator=generator)  # kinds 0 and 1 are the class
    activations = torch.rand(900, 12, generator=generator) * 0.1
    for latent, which in ((7, 0), (3, 1), (5, 2), (9, 3)):
        activations[kind == which, latent] += 2
    held_out = torch.arange(900) % 3 == 0
    probe = k_sparse_probe(activations, kind <= 1, held_out)
    assert set(probe.main) == {3, 7}
    assert probe.f1[0] < 0.8 < 0.99 < probe.f1[1]
    whole = k_sparse_probe(activations, kind == 2, held_out)
    assert whole.main == (5,)


def test_no_latent_that_differs_means_no_main_latent() -> None:
    member, held_out = torch.arange(40) % 2 == 0, torch.arange(40) % 4 < 2
    assert k_sparse_probe(torch.zeros(40, 6), member, held_out).main == ()
    assert SparseProbe((), (), ()).main == ()
    with pytest.raises(ValueError, match="both classes"):
        k_sparse_probe(torch.zeros(40, 6), torch.ones(40, dtype=torch.bool), held_out)
    with pytest.raises(ValueError, match="one F1 for each k"):
        split_count((1, 2), (0.5,))
