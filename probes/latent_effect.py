"""Latent effect: which tokens one SAE latent promotes and suppresses on the direct path to the logits, on demand."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float32
from torch import Tensor

from analysis.logit_effect import LogitEffect, logit_effect
from probes.checks import whole
from probes.errors import BadRequest
from probes.latents import Params as LatentsParams
from probes.latents import compatible
from probes.probe import Context, ProbeSpec, Result
from probes.saes.loading import choose, load_sae

if TYPE_CHECKING:
    from probes.model.capture import Capture
    from probes.model.loaded import LoadedModel, ModelFacts
    from probes.saes.folder import SAEInfo

__all__ = ["Params", "compatible", "cost", "direct_effect", "effect_cost", "run", "spec"]

TOKENS = 10


@dataclass(frozen=True)
class Params:
    """``sae`` as in the probe latents; ``latent``: which of its latents."""

    __no_type_check__ = True  # values come from people: refused in a sentence, not by the type hook of the tests

    sae: str = "auto"
    latent: int = 0
    content: str = field(init=False)

    def __post_init__(self) -> None:
        if not whole(self.latent):
            raise ValueError(f"latent_effect.latent must be a whole number from 0, not {str(self.latent)[:80]!r}")
        object.__setattr__(self, "content", LatentsParams(sae=self.sae).content)


spec = ProbeSpec(
    name="latent_effect",
    version=1,
    question="Which tokens does this latent make more or less likely, on the direct path?",
    sites=frozenset(),
    reductions=frozenset(),
    tables=(),
)


def cost(params: Params, facts: ModelFacts, n_tokens: int) -> int:
    """As :func:`effect_cost`. Raises BadRequest as latents does, and for a latent the SAE does not have."""
    info = choose(params.sae, facts)
    if params.latent >= info.d_sae:
        raise BadRequest(f"latent_effect.latent must lie in 0..{info.d_sae - 1} for {info.name}, not {params.latent}.")
    return effect_cost(info, facts)


def run(capture: Capture, params: Params, context: Context) -> Result:
    """Tensors of ten tokens each: ``effect_ids`` [2, 10] and ``effect_values`` [2, 10], promoted above suppressed, in
    logits less the vocabulary mean per unit of activation; ``effect_shape`` [2], skewness and excess kurtosis.
    """
    model = capture.model
    sae = load_sae(choose(params.sae, model.facts), model.facts)
    effect = direct_effect(sae.decoder[params.latent], model)
    tensors = {
        "effect_ids": torch.stack([effect.promoted, effect.suppressed]),
        "effect_values": torch.stack([effect.promoted_by, effect.suppressed_by]),
        "effect_shape": torch.tensor([effect.skewness, effect.excess_kurtosis], dtype=torch.float64),
    }
    return Result({}, tensors, sae.notes)


def direct_effect(direction: Float32[Tensor, " d_model"], model: LoadedModel) -> LogitEffect:
    """What a direction of the residual stream does to the logits of a model on the direct path: ten tokens each."""
    return logit_effect(
        direction,
        model.norm_weight,
        model.unembed_matrix().detach(),
        k=min(TOKENS, model.facts.d_vocab),
        centred_norm=model.facts.norm == "layer",
    )


def effect_cost(info: SAEInfo, facts: ModelFacts) -> int:
    """Bytes: the SAE, the logits of one direction, and a slice of the unembedding in float64."""
    return 4 * info.d_in * info.d_sae * 4 + 4 * facts.d_vocab * 8 + 8192 * facts.d_model * 8
