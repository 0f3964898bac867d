"""Concept effect: which tokens the latents of a concept together promote and suppress on the direct path, on demand."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from probes.checks import require, some_whole, within_float32
from probes.errors import BadRequest
from probes.latent_effect import direct_effect, effect_cost
from probes.latents import Params as LatentsParams
from probes.latents import compatible
from probes.probe import Context, ProbeSpec, Result
from probes.saes.loading import choose, load_sae

if TYPE_CHECKING:
    from probes.model.capture import Capture
    from probes.model.loaded import ModelFacts

__all__ = ["Params", "compatible", "cost", "run", "spec"]


@dataclass(frozen=True)
class Params:
    """``sae`` as in the probe latents; ``latents`` and ``values``: f, as the source of an edit says it."""

    __no_type_check__ = True  # values come from people: refused in a sentence, not by the type hook of the tests

    sae: str = "auto"
    latents: tuple[int, ...] = (0,)
    values: tuple[float, ...] = (1.0,)
    content: str = field(init=False)

    def __post_init__(self) -> None:
        known = some_whole(self.latents) and len(set(self.latents)) == len(self.latents)
        require(known, "concept_effect.latents", "different whole numbers from 0", self.latents)
        fits = isinstance(self.values, tuple) and len(self.values) == len(self.latents)
        numbers = fits and all(within_float32(value) for value in self.values)
        require(numbers, "concept_effect.values", "as many finite numbers as latents", self.values)
        object.__setattr__(self, "content", LatentsParams(sae=self.sae).content)


spec = ProbeSpec(
    name="concept_effect",
    version=1,
    question="Which tokens do the latents of a concept make more or less likely, on the direct path?",
    sites=frozenset(),
    reductions=frozenset(),
    tables=(),
    masks=False,
)


def cost(params: Params, facts: ModelFacts, n_tokens: int) -> int:
    """As that of one latent. Raises BadRequest as latents does, and for a latent the SAE does not have."""
    info = choose(params.sae, facts)
    if max(params.latents) >= info.d_sae:
        raise BadRequest(
            f"concept_effect.latents must lie in 0..{info.d_sae - 1} for {info.name}, not {max(params.latents)}."
        )
    return effect_cost(info, facts)


def run(capture: Capture, params: Params, context: Context) -> Result:
    """Tensors of ten tokens each: ``concept_effect_ids`` [2, 10] and ``concept_effect_values`` [2, 10], promoted by f W_dec
    above suppressed, in logits less the vocabulary mean."""
    model = capture.model
    sae = load_sae(choose(params.sae, model.facts), model.facts)
    rows = sae.decoder[list(params.latents)]
    effect = direct_effect(torch.tensor(params.values, dtype=torch.float32) @ rows, model)
    tensors = {
        "concept_effect_ids": torch.stack([effect.promoted, effect.suppressed]),
        "concept_effect_values": torch.stack([effect.promoted_by, effect.suppressed_by]),
    }
    return Result({}, tensors, sae.notes)
