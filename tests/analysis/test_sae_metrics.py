"""Reconstruction quality: known answers, the two references, and the formula of SAELens 6.54.12."""

import math

import pytest
import torch

from analysis.sae_metrics import corpus_variance, density, reconstruction_quality, token_explained_variance

ALL = torch.ones(200, dtype=torch.bool)


def _states(seed: int = 0) -> torch.Tensor:
    return torch.randn(200, 12, generator=torch.Generator().manual_seed(seed)) + 3.0


def _active(l0: int = 3) -> torch.Tensor:
    return torch.full((200,), l0)


def test_a_perfect_sae_explains_everything() -> None:
    x = _states()
    quality = reconstruction_quality(x, x.clone(), _active(), ALL, corpus_variance(x))
    for value in (quality.explained_variance, quality.explained_variance_own, quality.cosine, quality.norm_ratio):
        assert value.value == pytest.approx(1.0)
    assert quality.reconstruction_bias.value == pytest.approx(1.0)
    assert quality.l0.value == 3.0
    assert quality.l0.n_used == 200


def test_giving_back_the_mean_explains_nothing() -> None:
    x = _states()
    mean = x.double().mean(0).float().expand_as(x)
    quality = reconstruction_quality(x, mean, _active(0), ALL, corpus_variance(x))
    assert quality.explained_variance_own.value == pytest.approx(0.0, abs=1e-6)
    assert quality.explained_variance.value == pytest.approx(0.0, abs=1e-6)
    assert quality.l0.value == 0.0


def test_zero_output_has_no_cosine_and_loses_more_than_the_variance() -> None:
    x = _states()
    quality = reconstruction_quality(x, torch.zeros_like(x), _active(0), ALL, corpus_variance(x))
    second_moment, variance = x.double().square().sum(1).mean().item(), corpus_variance(x)
    assert quality.explained_variance.value == pytest.approx(1 - second_moment / variance)
    assert quality.norm_ratio.value == 0.0
    assert quality.cosine.status == "not_applicable"
    assert math.isnan(quality.reconstruction_bias.value)


def test_shrinking_by_half_is_seen_as_bias() -> None:
    x = _states()
    quality = reconstruction_quality(x, 0.5 * x, _active(), ALL, None)
    assert quality.reconstruction_bias.value == pytest.approx(0.5)
    assert quality.norm_ratio.value == pytest.approx(0.5)
    assert quality.cosine.value == pytest.approx(1.0)
    assert quality.explained_variance.status == "not_applicable"


def test_one_massive_token_lifts_the_own_variance_number_only() -> None:
    x = _states()
    x[0, 5] = 25_000.0
    noise = 0.9 * torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    without = torch.arange(200) > 0
    variance = corpus_variance(x[without])
    kept = reconstruction_quality(x, x + noise, _active(), without, variance)
    everything = reconstruction_quality(x, x + noise, _active(), ALL, variance)
    assert kept.explained_variance_own.value < 0.4
    assert everything.explained_variance_own.value > 0.999
    assert everything.explained_variance.value == pytest.approx(kept.explained_variance.value, abs=0.02)


def test_token_values_average_to_the_layer_value() -> None:
    x = _states()
    rebuilt = x + 0.3 * torch.randn(x.shape, generator=torch.Generator().manual_seed(2))
    variance = corpus_variance(_states(3))
    tokens = token_explained_variance(x, rebuilt, variance)
    layer = reconstruction_quality(x, rebuilt, _active(), ALL, variance).explained_variance.value
    assert tokens.mean().item() == pytest.approx(layer, rel=1e-12)


@pytest.mark.filterwarnings("ignore:The 'utils' module has been deprecated:DeprecationWarning")  # sae-lens 6.54
def test_agrees_with_sae_lens() -> None:
    from sae_lens.evals import ExplainedVarianceCalculator

    calculator = ExplainedVarianceCalculator()
    x = _states()
    rebuilt = x + 0.4 * torch.randn(x.shape, generator=torch.Generator().manual_seed(4))
    for start in (0, 100):
        calculator.add_batch(sae_output=rebuilt[start : start + 100], hidden_acts=x[start : start + 100])
    ours = reconstruction_quality(x, rebuilt, _active(), ALL, None).explained_variance_own.value
    assert ours == pytest.approx(calculator.compute(), abs=1e-5)


@pytest.mark.parametrize(
    ("keep", "status"), [([], "too_few_tokens"), ([3], "too_few_tokens"), ([3, 4, 5], "not_applicable")]
)
def test_too_few_or_equal_tokens_have_a_reason(keep: list[int], status: str) -> None:
    x = _states()
    x[3:6] = x[3]
    mask = torch.zeros(200, dtype=torch.bool)
    mask[keep] = True
    quality = reconstruction_quality(x, x + 0.1, _active(), mask, 12.0)
    assert quality.explained_variance_own.status == status
    assert quality.explained_variance.status == ("ok" if keep else "too_few_tokens")


def test_non_finite_states_are_named() -> None:
    x = _states()
    x[7, 2] = math.inf
    assert reconstruction_quality(x, x, _active(), ALL, None).l0.status == "non_finite"


def test_density_counts_active_tokens() -> None:
    activations = torch.zeros(10, 3)
    activations[:4, 1] = 0.5
    activations[:, 2] = 2.0
    assert density(activations).tolist() == [0.0, 0.4, 1.0]
    with pytest.raises(ValueError, match="at least 1 token"):
        density(activations[:0])


def test_corpus_variance_refuses_what_has_none() -> None:
    assert corpus_variance(torch.tensor([[0.0, 0.0], [2.0, 4.0]])) == pytest.approx(5.0)
    with pytest.raises(ValueError, match="at least 2 states"):
        corpus_variance(torch.zeros(1, 4))
    with pytest.raises(ValueError, match="above 0"):
        corpus_variance(torch.ones(5, 4))
    with pytest.raises(ValueError, match="above 0"):
        token_explained_variance(torch.ones(5, 4), torch.ones(5, 4), math.nan)
