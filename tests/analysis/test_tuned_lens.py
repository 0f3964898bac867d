"""The tuned lens: zero translators are the logit lens, planted maps are recovered, training can be put down (core.md 4.3)."""

import math

import pytest
import torch

from analysis.tuned_lens import (
    Coordinates,
    Translators,
    TunedLensConfig,
    TunedLensTrainer,
    kl_to_final,
    learning_rate_at,
)

D, VOCAB, LAYERS = 8, 30, 2


class World:
    """A final norm and unembedding; each layer's state is the final one, turned and moved by a map of its own."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self.unembedding = 0.7 * torch.randn(VOCAB, D, generator=generator)
        turns = [torch.matrix_exp(_skew(generator)) for _ in range(LAYERS)]
        self.maps = [(turn * (2.0 + layer), torch.randn(D, generator=generator)) for layer, turn in enumerate(turns)]
        self.generator = generator

    def logits(self, state: torch.Tensor) -> torch.Tensor:
        normed = state * torch.rsqrt(state.square().mean(-1, keepdim=True) + 1e-6)
        return normed @ self.unembedding.T

    def batch(self, rows: int = 64) -> tuple[torch.Tensor, torch.Tensor]:
        last = torch.randn(rows, D, generator=self.generator)
        hidden = torch.stack([last @ turn + shift for turn, shift in self.maps])
        return hidden, self.logits(last)


def _skew(generator: torch.Generator) -> torch.Tensor:
    free = 0.5 * torch.randn(D, D, generator=generator)
    return free - free.T


def test_zero_translators_are_the_logit_lens() -> None:
    world = World()
    hidden, _ = world.batch()
    lens = Translators.zero(LAYERS, D)
    for layer in range(LAYERS):
        torch.testing.assert_close(
            world.logits(lens.translate(hidden[layer], layer)), world.logits(hidden[layer]), rtol=0, atol=1e-6
        )


def test_at_the_last_point_there_is_nothing_to_translate() -> None:
    lens = Translators(torch.randn(LAYERS, D, D), torch.randn(LAYERS, D))
    state = torch.randn(5, D)
    assert torch.equal(lens.translate(state, LAYERS), state)


def test_a_planted_affine_map_is_recovered() -> None:
    world = World()
    trainer = TunedLensTrainer(TunedLensConfig(LAYERS, D, steps=600, learning_rate=5e-2))
    for _ in range(600):
        hidden, final = world.batch(128)
        trainer.update(hidden, final, world.logits)
    hidden, final = world.batch(500)
    lens = trainer.translators
    for layer in range(LAYERS):
        before = kl_to_final(world.logits(hidden[layer]), final).mean()
        after = kl_to_final(world.logits(lens.translate(hidden[layer], layer)), final).mean()
        assert before > 1.0
        assert after < 1e-3


def test_coordinates_are_another_way_to_write_the_same_affine_map() -> None:
    generator = torch.Generator().manual_seed(3)
    hidden = 5 * torch.randn(LAYERS + 1, 40, D, generator=generator) + 20 * torch.randn(
        LAYERS + 1, 1, D, generator=generator
    )
    hidden[0, :, 2] = 7.0  # a dimension that stands still
    at = Coordinates.of(hidden)
    weight, bias = torch.randn(LAYERS, D, D, generator=generator), torch.randn(LAYERS, D, generator=generator)
    lens = at.folded(weight, bias)
    for layer in range(LAYERS):
        x = (hidden[layer] - at.centre[layer]) / at.scale[layer]
        expected = hidden[layer] + at.shift[layer] + at.size[layer] * (x @ weight[layer].T + bias[layer])
        torch.testing.assert_close(lens.translate(hidden[layer], layer), expected, rtol=1e-4, atol=1e-3)
        moving = [i for i in range(D) if (layer, i) != (0, 2)]
        torch.testing.assert_close(x.square().mean(0)[moving], torch.ones(len(moving)))
    assert torch.isfinite(lens.weight).all()
    untrained = TunedLensTrainer(TunedLensConfig(LAYERS, D, steps=1), at).translators
    means = hidden.mean(1)
    assert not untrained.weight.any()
    torch.testing.assert_close(untrained.bias, means[-1] - means[:-1])


def test_a_planted_map_of_badly_scaled_states_is_recovered_in_their_coordinates() -> None:
    world = World()
    sizes = torch.logspace(-2, 0.5, D)
    world.maps = [(turn * sizes, 30 * shift) for turn, shift in world.maps]
    hidden, _ = world.batch(500)
    last = torch.randn(500, D, generator=world.generator)
    at = Coordinates.of(torch.cat([hidden, last[None]]))
    trainer = TunedLensTrainer(TunedLensConfig(LAYERS, D, steps=600, learning_rate=5e-2), at)
    for _ in range(600):
        trainer.update(*world.batch(128), world.logits)
    hidden, final = world.batch(500)
    for layer in range(LAYERS):
        read = world.logits(trainer.translators.translate(hidden[layer], layer))
        assert kl_to_final(read, final).mean() < 1e-2  # as they are it stays at 1


def test_the_loss_is_the_divergence_of_the_final_distribution_from_the_lens() -> None:
    world = World()
    hidden, final = world.batch(20)
    trainer = TunedLensTrainer(TunedLensConfig(LAYERS, D, steps=5))
    losses = trainer.update(hidden, final, world.logits)
    p = torch.softmax(final.double(), -1)
    for layer in range(LAYERS):
        q = torch.log_softmax(world.logits(hidden[layer]).double(), -1)
        expected = (p * (p.log() - q)).sum(-1)
        assert float(losses[layer]) == pytest.approx(float(expected.mean()), rel=1e-4)
        torch.testing.assert_close(
            kl_to_final(world.logits(hidden[layer]), final).double(), expected, rtol=1e-4, atol=1e-5
        )
    torch.testing.assert_close(trainer.log[0], losses)


def test_one_step_moves_no_weight_further_than_the_learning_rate_and_the_rate_falls_to_0() -> None:
    world = World()
    config = TunedLensConfig(LAYERS, D, steps=10, learning_rate=1e-3)
    trainer = TunedLensTrainer(config)
    trainer.update(*world.batch(), world.logits)
    assert float(trainer.translators.weight.abs().max()) == pytest.approx(1e-3, rel=1e-2)
    rates = [learning_rate_at(config, step) for step in range(11)]
    assert rates[0] == 1e-3
    assert rates[5] == pytest.approx(5e-4)
    assert rates[10] == pytest.approx(0)
    assert rates == sorted(rates, reverse=True)


def test_training_put_down_and_taken_up_ends_at_the_same_weights() -> None:
    config = TunedLensConfig(LAYERS, D, steps=8, learning_rate=1e-2)

    def trained(broken_at: int | None) -> TunedLensTrainer:
        world = World()
        trainer = TunedLensTrainer(config, Coordinates.of(torch.randn(LAYERS + 1, 50, D, generator=world.generator)))
        for step in range(8):
            if step == broken_at:
                kept = {name: tensor.clone() for name, tensor in trainer.tensors().items()}
                trainer = TunedLensTrainer.restored(config, kept, trainer.as_json())
            trainer.update(*world.batch(), world.logits)
        return trainer

    whole = trained(None)
    for broken_at in (0, 5):
        again = trained(broken_at)
        assert torch.equal(whole.translators.weight, again.translators.weight)
        assert torch.equal(whole.translators.bias, again.translators.bias)
        assert torch.equal(whole.log, again.log)


def test_what_cannot_be_trained_is_refused() -> None:
    for bad in ({"steps": 0}, {"learning_rate": 0.0}, {"learning_rate": math.nan}, {"clip": 0.0}):
        with pytest.raises(ValueError, match="must"):
            TunedLensConfig(**{"layers": 2, "d_model": 4, "steps": 3, **bad})
    world = World()
    trainer = TunedLensTrainer(TunedLensConfig(LAYERS, D, steps=3))
    hidden, final = world.batch()
    hidden[1, 0, 0] = torch.nan
    with pytest.raises(ValueError, match="layer 1 became nan at step 0"):
        trainer.update(hidden, final, world.logits)
    config = TunedLensConfig(LAYERS, D, steps=3)
    tensors = TunedLensTrainer(config).tensors()
    with pytest.raises(ValueError, match=r"1\.bias"):
        TunedLensTrainer.restored(config, {k: v for k, v in tensors.items() if k != "1.bias"}, '{"step": 0, "log": []}')
    with pytest.raises(ValueError, match=r"0\.\.3"):
        TunedLensTrainer.restored(config, tensors, '{"step": 4, "log": [[0], [0], [0], [0]]}')
