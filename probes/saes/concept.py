"""What a concept prompt means to an SAE: its strongest latents, on average over its tokens.

Kim and Ghadiyaram 2025 (Concept Steerers, arXiv 2501.19066) for the text encoders of image models: the activations of a
prompt, without top-k, times a strength, decoded without the bias, are added to every state. For the residual stream of a
language model, whose tokens differ, they are averaged over the prompt and cut to the 32 largest.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float32
from torch import Tensor

from probes.errors import BadRequest, NonFinite
from probes.model.sae_editing import written
from probes.saes.loading import LoadedSAE
from probes.saes.reading import kept

__all__ = ["STRONGEST", "ReadConcept", "read_concept"]

STRONGEST = 32
_CHUNK = 512
_FEWEST = 2
_DIGITS = 6


@dataclass(frozen=True, slots=True)
class ReadConcept:
    """The latents of a prompt, the largest mean activation first, of ``n_used`` tokens.

    ``values`` are the means, to six digits: what is said is what is written. ``norm`` is the length of f W_dec (where the
    SAE normalises each state, its mean over the tokens used), ``state_norm`` the median length of the states used.
    """

    latents: tuple[int, ...]
    values: tuple[float, ...]
    n_used: int
    norm: float
    state_norm: float


def read_concept(sae: LoadedSAE, resid: Float32[Tensor, "tokens d_model"]) -> ReadConcept:
    """Read the states of a concept prompt at the SAE's point, position 0 first.

    Position 0 and massive tokens are left out. A single token has no median to stand out from, and the first word of a text
    can be massive: one is not enough.

    Raises:
        BadRequest: there are fewer than two tokens after position 0, or none of the SAE's latents is active on them.
        NonFinite: an activation is not finite.
    """
    if len(resid) <= _FEWEST:
        raise BadRequest(
            f"A concept prompt needs at least {_FEWEST} tokens after position 0, to tell massive ones from the others, and has "
            f"{len(resid) - 1}: write a sentence."
        )
    states = resid[kept(resid[None])[0]]
    total = torch.zeros(sae.info.d_sae, dtype=torch.float64)
    for part in torch.split(states, _CHUNK):
        total += sae.encode_plain(part).sum(dim=0, dtype=torch.float64)
    mean = total / len(states)
    if not torch.isfinite(mean).all():
        raise NonFinite(f"{sae.info.name} gave activations of the concept prompt that are not finite.")
    strongest = mean.topk(min(STRONGEST, len(mean)))
    active = strongest.values > 0
    if not active.any():
        raise BadRequest(f"No latent of {sae.info.name} is active on the concept prompt.")
    latents = tuple(strongest.indices[active].tolist())
    values = tuple(float(f"{value:.{_DIGITS}g}") for value in strongest.values[active].tolist())
    added = written(sae, dict(zip(latents, values, strict=True)), states)
    return ReadConcept(
        latents, values, len(states), float(added.norm(dim=1).mean()), float(states.norm(dim=1).median())
    )  # fmt: skip
