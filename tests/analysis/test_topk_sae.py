"""TopK SAE training: a planted dictionary comes back, AuxK reaches silent latents, scale folds exactly."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from analysis.topk_sae import TopKConfig, TopKSAE, TopKTrainer, learning_rate_at, train_topk_sae

D_IN, DIRECTIONS, ACTIVE, BATCH = 64, 128, 4, 512


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def _planted(seed: int) -> tuple[torch.Tensor, Iterator[torch.Tensor]]:
    """Unit directions, and batches of states with four of them active at U(.5, 1.5) plus a constant offset."""
    generator = torch.Generator().manual_seed(seed)
    directions = torch.randn(DIRECTIONS, D_IN, generator=generator)
    directions /= directions.norm(dim=1, keepdim=True)
    offset = 0.5 * torch.randn(D_IN, generator=generator)

    def batches() -> Iterator[torch.Tensor]:
        while True:
            active = torch.rand(BATCH, DIRECTIONS, generator=generator).topk(ACTIVE, dim=1).indices
            values = torch.rand(BATCH, ACTIVE, generator=generator) + 0.5
            yield torch.zeros(BATCH, DIRECTIONS).scatter(1, active, values) @ directions + offset

    return directions, batches()


def _explained_variance(sae: TopKSAE, x: torch.Tensor) -> float:
    error = (x - sae.decode(sae.encode(x))).double().square().sum()
    return 1 - (error / (x - x.mean(0)).double().square().sum()).item()


def _random_sae(seed: int = 0) -> TopKSAE:
    generator = torch.Generator().manual_seed(seed)
    w_dec = torch.randn(24, 8, generator=generator)
    return TopKSAE(w_dec.T.clone(), torch.randn(24, generator=generator), w_dec, torch.ones(8), k=3)


def test_planted_dictionary_is_found() -> None:
    directions, batches = _planted(0)
    sae, log = train_topk_sae(TopKConfig(D_IN, DIRECTIONS, ACTIVE, steps=700, learning_rate=3e-3), batches)
    held_out = next(batches)
    best_match = (directions @ sae.w_dec.T).max(dim=1).values
    assert _explained_variance(sae, held_out) > 0.88
    assert best_match.mean() > 0.93
    assert (sae.encode(held_out) > 0).sum(dim=1).max() <= ACTIVE
    assert torch.allclose(sae.w_dec.norm(dim=1), torch.ones(DIRECTIONS), atol=1e-5)
    assert log.explained_variance.iloc[-1] > max(0.9, log.explained_variance.iloc[0])
    assert log.step.iloc[-1] == 699


def test_only_the_auxiliary_loss_moves_latents_that_did_not_fire() -> None:
    def rows_moved(coefficient: float) -> int:
        _, batches = _planted(1)
        batch = next(batches)[:4]  # 4 states with k = 1: at most 4 of 128 latents fire
        start = TopKConfig(D_IN, DIRECTIONS, k=1, steps=1, aux_coefficient=coefficient, dead_after=0)
        sae, _ = train_topk_sae(start, iter([batch]))
        untrained, _ = train_topk_sae(replace(start, learning_rate=1e-12), iter([batch]))
        return int(((sae.w_dec - untrained.w_dec).abs().amax(dim=1) > 1e-5).sum())

    assert rows_moved(0.0) <= 4
    assert rows_moved(1.0) > 20


def test_training_is_the_same_for_the_same_seed() -> None:
    config = TopKConfig(D_IN, 32, k=2, steps=5)
    first, _ = train_topk_sae(config, _planted(2)[1])
    again, _ = train_topk_sae(config, _planted(2)[1])
    assert torch.equal(first.w_dec, again.w_dec)


def test_put_down_and_taken_up_from_a_file_it_ends_with_the_same_bits(tmp_path: Path) -> None:
    config = TopKConfig(D_IN, 1024, k=1, steps=30, dead_after=3, log_every=4)
    whole, log = train_topk_sae(config, _planted(2)[1])
    batches = _planted(2)[1]
    first = next(batches)
    trainer = TopKTrainer(config, first)
    for step in range(config.steps):
        if step in (0, 1, 17, 29):
            save_file(trainer.tensors(), tmp_path / "at.safetensors")
            text = trainer.as_json()
            trainer = TopKTrainer.restored(config, load_file(tmp_path / "at.safetensors"), text)
        trainer.update(first if step == 0 else next(batches))
    for name in ("w_enc", "b_enc", "w_dec", "b_dec"):
        assert torch.equal(getattr(trainer.sae, name), getattr(whole, name))
    assert trainer.log.equals(log)
    assert list(log.step) == [0, 4, 8, 12, 16, 20, 24, 28, 29]
    assert log.dead_share.max() > 0  # so the silent counters mattered


def test_state_of_another_shape_or_beyond_the_schedule_is_refused() -> None:
    config = TopKConfig(D_IN, 32, k=2, steps=3)
    trainer = TopKTrainer(config, next(_planted(2)[1]))
    state = trainer.tensors()
    with pytest.raises(ValueError, match="b_enc must have the shape"):
        TopKTrainer.restored(config, {**state, "b_enc": torch.zeros(31)}, trainer.as_json())
    with pytest.raises(ValueError, match=r"w_dec\.?.* must have the shape|w_dec must have the shape"):
        TopKTrainer.restored(config, {k: v for k, v in state.items() if k != "w_dec"}, trainer.as_json())
    with pytest.raises(ValueError, match=r"step must lie in 0\.\.3, not 4"):
        TopKTrainer.restored(config, state, '{"step": 4, "log": []}')


def test_training_is_what_a_plain_loop_with_adam_gives() -> None:
    """The trainer is bookkeeping around the loop it replaced: the same numbers, not nearly the same."""
    config = TopKConfig(D_IN, 48, k=3, steps=12, dead_after=10**6)
    sae, log = train_topk_sae(config, _planted(5)[1])
    batches = _planted(5)[1]
    x = next(batches)
    w_dec = torch.randn(48, D_IN, generator=torch.Generator().manual_seed(0))
    w_dec /= w_dec.norm(dim=1, keepdim=True)
    weights = [w.clone().requires_grad_() for w in (w_dec.T.contiguous(), torch.zeros(48), w_dec, x.mean(dim=0))]
    optimiser = torch.optim.Adam(weights, lr=config.learning_rate)
    for step in range(config.steps):
        x = x if step == 0 else next(batches)
        for group in optimiser.param_groups:
            group["lr"] = learning_rate_at(config, step)
        pre = (x - weights[3]) @ weights[0] + weights[1]
        values, chosen = pre.topk(3, dim=1)
        rebuilt = torch.zeros_like(pre).scatter(1, chosen, values.relu()) @ weights[2] + weights[3]
        loss = (x - rebuilt).square().sum() / (x - x.mean(dim=0)).square().sum()
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimiser.step()
        with torch.no_grad():
            weights[2].div_(weights[2].norm(dim=1, keepdim=True))
    for ours, theirs in zip((sae.w_enc, sae.b_enc, sae.w_dec, sae.b_dec), weights, strict=True):
        assert torch.equal(ours, theirs)
    assert log.loss.iloc[-1] == loss.item()


@pytest.mark.parametrize("scale", [0.14, 7.0])
def test_folding_the_input_scale_changes_units_only(scale: float) -> None:
    sae, x = _random_sae(), torch.randn(50, 8, generator=torch.Generator().manual_seed(3))
    folded = sae.with_input_scale(scale)
    activations = sae.encode(scale * x)
    assert torch.allclose(folded.encode(x), activations / scale, rtol=1e-4, atol=1e-5)
    assert torch.allclose(folded.decode(folded.encode(x)), sae.decode(activations) / scale, rtol=1e-4, atol=1e-4)


@pytest.mark.filterwarnings("ignore:The 'utils' module has been deprecated:DeprecationWarning")  # sae-lens 6.54
def test_loads_in_sae_lens_with_equal_outputs() -> None:
    from sae_lens import TopKSAE as LensTopKSAE
    from sae_lens import TopKSAEConfig

    sae, x = _random_sae(), torch.randn(50, 8, generator=torch.Generator().manual_seed(4))
    lens = LensTopKSAE(TopKSAEConfig(d_in=8, d_sae=24, k=3))
    lens.load_state_dict({"W_enc": sae.w_enc, "b_enc": sae.b_enc, "W_dec": sae.w_dec, "b_dec": sae.b_dec})
    assert torch.allclose(lens.encode(x), sae.encode(x), atol=1e-5)
    assert torch.allclose(lens(x), sae.decode(sae.encode(x)), atol=1e-5)


def test_learning_rate_rises_stays_and_falls() -> None:
    config = TopKConfig(8, 16, 2, steps=100, learning_rate=1.0)
    rates = [learning_rate_at(config, step) for step in range(100)]
    assert rates[0] == pytest.approx(0.2)
    assert rates[4:81] == [1.0] * 77
    assert rates[90] == pytest.approx(0.5)
    assert rates[99] == pytest.approx(0.05)


def test_non_finite_activations_are_refused() -> None:
    x = torch.randn(16, 8)
    x[3, 3] = torch.nan
    with pytest.raises(ValueError, match="first batch of activations is not finite"):
        train_topk_sae(TopKConfig(8, 16, 2, steps=2), iter([x, x]))
    with pytest.raises(ValueError, match="training loss became nan at step 1"):
        train_topk_sae(TopKConfig(8, 16, 2, steps=2), iter([torch.randn(16, 8), x]))


@pytest.mark.parametrize("bad", [{"k": 17}, {"k": 0}, {"steps": 0}, {"learning_rate": float("nan")}])
def test_configuration_out_of_range_is_refused(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must"):
        TopKConfig(**{"d_in": 8, "d_sae": 16, "k": 2, "steps": 2, **bad})  # type: ignore[arg-type]
