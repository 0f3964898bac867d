"""Concept: which SAE latents a prompt has on average, as an edit that steers by it takes them, on demand."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from probes.latents import Params as LatentsParams
from probes.latents import compatible
from probes.latents import cost as latents_cost
from probes.probe import Context, ProbeSpec, Result
from probes.saes.concept import read_concept
from probes.saes.loading import choose, load_sae

if TYPE_CHECKING:
    from probes.model.capture import Capture
    from probes.model.loaded import ModelFacts

__all__ = ["Params", "compatible", "cost", "run", "spec"]


@dataclass(frozen=True)
class Params:
    """``sae`` as in the probe latents."""

    __no_type_check__ = True  # values come from people: refused in a sentence, not by the type hook of the tests

    sae: str = "auto"
    content: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "content", LatentsParams(sae=self.sae).content)


spec = ProbeSpec(
    name="concept",
    version=1,
    question="Which SAE latents does this prompt have on average?",
    sites=frozenset({"resid"}),
    reductions=frozenset(),
    tables=(),
    masks=False,
)


def cost(params: Params, facts: ModelFacts, n_tokens: int) -> int:
    """As that of the probe latents, whose refusals it shares."""
    return latents_cost(LatentsParams(sae=params.sae), facts, n_tokens)


def run(capture: Capture, params: Params, context: Context) -> Result:
    """Tensors: ``concept_latents`` and ``concept_values`` [at most 32], the largest mean activation first;
    ``concept_size`` [3], the length of what they write together, the median length of the states read, their number.

    Raises BadRequest where the prompt has no token that counts, or no latent is active on it.
    """
    model = capture.model
    sae = load_sae(choose(params.sae, model.facts), model.facts)
    found = read_concept(sae, capture.resid(sae.info.point))
    tensors = {
        "concept_latents": torch.tensor(found.latents),
        "concept_values": torch.tensor(found.values, dtype=torch.float64),
        "concept_size": torch.tensor([found.norm, found.state_norm, found.n_used], dtype=torch.float64),
    }
    return Result({}, tensors, sae.notes)
