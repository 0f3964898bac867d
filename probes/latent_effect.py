"""Latent effect: which tokens one SAE latent promotes and suppresses on the direct path to the logits, on demand."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from analysis.logit_effect import logit_effect
from probes.errors import BadRequest
from probes.latents import Params as LatentsParams
from probes.latents import compatible
from probes.probe import Context, ProbeSpec, Result
from probes.saes.loading import choose, load_sae

if TYPE_CHECKING:
    from probes.model.capture import Capture
    from probes.model.loaded import ModelFacts

__all__ = ["Params", "compatible", "cost", "run", "spec"]

TOKENS = 10


@dataclass(frozen=True)
class Params:
    """``sae`` as in the probe latents; ``latent``: which of its latents."""

    __no_type_check__ = True  # values come from people: refused in a sentence, not by the type hook of the tests

    sae: str = "auto"
    latent: int = 0
    content: str = field(init=False)

    def __post_init__(self) -> None:
        whole = isinstance(self.latent, int) and not isinstance(self.latent, bool)
        if not whole or self.latent < 0:
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
    """The SAE, the logits of one direction, and a slice of the unembedding in float64. Raises BadRequest as latents does."""
    info = choose(params.sae, facts)
    if params.latent >= info.d_sae:
        raise BadRequest(f"latent_effect.latent must lie in 0..{info.d_sae - 1} for {info.name}, not {params.latent}.")
    return 4 * info.d_in * info.d_sae * 4 + 4 * facts.d_vocab * 8 + 8192 * facts.d_model * 8


def run(capture: Capture, params: Params, context: Context) -> Result:
    """Tensors of ten tokens each: ``effect_ids`` [2, 10] and ``effect_values`` [2, 10], promoted above suppressed, in
    logits less the vocabulary mean per unit of activation; ``effect_shape`` [2], skewness and excess kurtosis.
    """
    model = capture.model
    sae = load_sae(choose(params.sae, model.facts), model.facts)
    effect = logit_effect(
        sae.decoder[params.latent],
        model.norm_weight,
        model.unembed_matrix().detach(),
        k=min(TOKENS, model.facts.d_vocab),
        centred_norm=model.facts.norm == "layer",
    )
    tensors = {
        "effect_ids": torch.stack([effect.promoted, effect.suppressed]),
        "effect_values": torch.stack([effect.promoted_by, effect.suppressed_by]),
        "effect_shape": torch.tensor([effect.skewness, effect.excess_kurtosis], dtype=torch.float64),
    }
    return Result({}, tensors, sae.notes)
