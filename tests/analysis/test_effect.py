"""The five effect measures: by hand on small distributions, at their bounds, and on logits no float32 exponent holds."""

import math

import pytest
import torch

from analysis.effect import MEASURES, Effect, effect

HALF, QUARTER = (0.5, 0.5), (0.25, 0.75)


def logits(*rows: tuple[float, ...]) -> torch.Tensor:
    """Logits of these probabilities, each row moved by a constant that must not matter."""
    return torch.tensor(rows).log() + torch.arange(len(rows))[:, None] * 3.0


def one(clean: tuple[float, ...], changed: tuple[float, ...], target: int | None = None) -> dict[str, float]:
    found = effect(logits(clean), logits(changed) - 7.0, None if target is None else torch.tensor([target]))
    return {name: getattr(found, name).item() for name in MEASURES}


def random(seed: int, scale: float = 3.0) -> torch.Tensor:
    return torch.randn(50, 97, generator=torch.Generator().manual_seed(seed)) * scale


def test_two_tokens_by_hand() -> None:
    middle = (0.375, 0.625)
    found = one(HALF, QUARTER, target=0)
    assert found["dlp"] == pytest.approx(math.log(2), rel=1e-6)
    assert found["kl"] == pytest.approx(0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.75), rel=1e-5)
    distance = (math.sqrt(0.5) - math.sqrt(0.25)) ** 2 + (math.sqrt(0.5) - math.sqrt(0.75)) ** 2
    assert found["hellinger"] == pytest.approx(math.sqrt(distance / 2), rel=1e-5)
    to_middle = [sum(a * math.log(a / m) for a, m in zip(p, middle, strict=True)) for p in (HALF, QUARTER)]
    assert found["jsd"] == pytest.approx(sum(to_middle) / 2 / math.log(2), rel=1e-5)


def test_the_direction_is_from_clean_to_changed() -> None:
    there, back = one((0.9, 0.1), (0.5, 0.5)), one((0.5, 0.5), (0.9, 0.1), target=0)
    assert there["kl"] == pytest.approx(0.9 * math.log(1.8) + 0.1 * math.log(0.2), rel=1e-5)
    assert back["kl"] == pytest.approx(0.5 * math.log(0.5 / 0.9) + 0.5 * math.log(5.0), rel=1e-5)
    assert there["dlp"] == pytest.approx(-back["dlp"], rel=1e-6)
    assert there["dlp"] > 0
    for symmetric in ("hellinger", "jsd"):
        assert there[symmetric] == pytest.approx(back[symmetric], rel=1e-5)


def test_the_target_is_the_clean_best_unless_one_is_named() -> None:
    clean, changed = (0.2, 0.7, 0.1), (0.6, 0.3, 0.1)
    assert one(clean, changed)["dlp"] == pytest.approx(math.log(0.7 / 0.3), rel=1e-5)
    assert one(clean, changed, target=0)["dlp"] == pytest.approx(math.log(0.2 / 0.6), rel=1e-5)
    assert one(clean, changed, target=2)["dlp"] == pytest.approx(0.0, abs=1e-6)


def test_a_flip_is_another_most_likely_token() -> None:
    found = effect(
        logits((0.6, 0.4), (0.6, 0.4), (0.1, 0.9)), logits((0.4, 0.6), (0.9, 0.1), (0.2, 0.8)), torch.tensor([0, 1, 0])
    )
    assert found.flip.tolist() == [True, False, False]


@pytest.mark.parametrize("scale", [0.1, 3.0, 100.0, 1e4])
def test_identical_is_exactly_nothing(scale: float) -> None:
    found = effect(random(0, scale), random(0, scale))
    for name in MEASURES:
        assert not getattr(found, name).any(), name


@pytest.mark.parametrize("wide", [100.0, 1e4])
def test_disjoint_is_one(wide: float) -> None:
    clean, changed = torch.tensor([[wide, 0.0, -wide]]), torch.tensor([[-wide, 0.0, wide]])
    found = effect(clean, changed)
    assert found.jsd.item() == pytest.approx(1.0, abs=1e-6)
    assert found.hellinger.item() == pytest.approx(1.0, abs=1e-6)
    assert found.kl.item() == found.dlp.item() == pytest.approx(2 * wide, rel=1e-5)
    assert found.flip.item()


@pytest.mark.parametrize("scale", [0.01, 1.0, 10.0, 60.0, 1e3, 1e4])
def test_every_value_is_finite_and_in_its_range(scale: float) -> None:
    for clean, changed in (
        (random(1, scale), random(2, scale)),
        (random(1, scale), random(1, scale) + random(3, 1e-3)),
    ):
        found: Effect = effect(clean, changed)
        for name in ("dlp", "kl", "hellinger", "jsd"):
            assert getattr(found, name).isfinite().all(), name
        assert (found.kl >= 0).all()
        assert ((found.hellinger >= 0) & (found.hellinger <= 1)).all()
        assert ((found.jsd >= 0) & (found.jsd <= 1)).all()


@pytest.mark.parametrize("scale", [0.1, 3.0, 30.0])
def test_random_rows_equal_float64(scale: float) -> None:
    clean, changed = random(4, scale), random(5, scale)
    p, q = clean.double().softmax(-1), changed.double().softmax(-1)
    m = (p + q) / 2
    found = effect(clean, changed)
    torch.testing.assert_close(found.kl.double(), (p * (p / q).log()).sum(-1), rtol=1e-4, atol=1e-6)
    js = ((p * (p / m).log()).sum(-1) + (q * (q / m).log()).sum(-1)) / 2 / math.log(2)
    torch.testing.assert_close(found.jsd.double(), js, rtol=1e-4, atol=1e-6)
    hellinger = (1 - (p * q).sqrt().sum(-1)).sqrt()
    torch.testing.assert_close(found.hellinger.double(), hellinger, rtol=1e-4, atol=1e-5)


def test_a_token_at_the_edge_of_float32_costs_nothing() -> None:
    """exp(-103.4) is the smallest float32 there is; half of it is 0, whose logarithm would make the divergence 1."""
    clean, changed = torch.tensor([[0.0, -103.4]]), torch.tensor([[0.0, -400.0]])
    assert clean.softmax(-1)[0, 1] > 0
    found = effect(clean, changed)
    for name in ("kl", "hellinger", "jsd"):
        assert getattr(found, name).item() < 1e-6, name


def test_a_row_depends_on_no_other_row() -> None:
    clean, changed = random(6), random(7)
    whole, part = effect(clean, changed), effect(clean[10:11], changed[10:11])
    for name in MEASURES:
        torch.testing.assert_close(getattr(whole, name)[10:11], getattr(part, name))
