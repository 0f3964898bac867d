"""Edits that pass a state through a sparse autoencoder: its reconstruction, a latent added or clamped, a concept added."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Float32
from torch import Tensor

from probes.errors import BadRequest
from probes.model.edits import Edit
from probes.model.sae_sources import Concept, Latent, Rebuilt

if TYPE_CHECKING:
    from probes.saes.loading import LoadedSAE

__all__ = ["WithSAE", "written"]


@dataclass(frozen=True, eq=False)
class WithSAE:
    """An edit whose source is an SAE, with that SAE. States go through it in float32 and come back in their own type."""

    edit: Edit
    sae: LoadedSAE

    def apply(
        self, state: Float[Tensor, "batch tokens 1 d_model"], start: int
    ) -> Float[Tensor, "batch tokens 1 d_model"]:
        """The state after the edit; its first token stands at position ``start``."""
        rows = [position - start for position in self.edit.where(start, state.shape[1])]
        source = self.edit.source
        idle = isinstance(source, Rebuilt) and source.keep_error
        idle |= isinstance(source, Latent | Concept) and source.add == 0  # x itself, not x plus a rounded zero
        if not rows or idle:
            return state
        old = state[:, rows, 0]
        x = old.detach().float().cpu().flatten(0, 1)
        edited = state.clone()
        edited[:, rows, 0] = self._changed(x).view(old.shape).to(old)
        return edited

    @torch.no_grad()
    def _changed(self, x: Float32[Tensor, "states d_model"]) -> Float32[Tensor, "states d_model"]:
        source = self.edit.source
        if not isinstance(source, Latent | Concept):
            return self.sae.reconstruct(x)[0]
        amount: float | Float32[Tensor, "states 1"]
        if isinstance(source, Concept):
            amount, weights, along = float(source.add), *_weights(source)
        else:
            weights = {source.latent: 1.0}
            along = None if source.along is None else {source.along: 1.0}
            if source.clamp is None:
                amount = float(source.add or 0.0) * self._typical(source)
            else:
                amount = source.clamp - self.sae.encode(x)[:, source.latent, None]
        direction = written(self.sae, weights, x)
        if along is not None:
            other = written(self.sae, along, x)
            direction = other * (direction.norm(dim=-1, keepdim=True) / other.norm(dim=-1, keepdim=True))
        return x + amount * direction

    def _typical(self, source: Latent) -> float:
        if source.typical is None:
            raise BadRequest(
                f"Edit: how large latent {source.latent} typically is was not said; add needs it as typical."
            )
        return source.typical


@torch.no_grad()
def written(
    sae: LoadedSAE, weights: Mapping[int, float], x: Float32[Tensor, "states d_model"]
) -> Float32[Tensor, "_ d_model"]:
    """What latents at these activations add to the reconstruction of x: one row, or one a state where x is normalised."""
    latents, values = list(weights), torch.tensor(list(weights.values()), dtype=torch.float32)
    if sae.module.cfg.normalize_activations == "none":
        return values[None] @ sae.decoder[latents]
    unit = torch.zeros_like(sae.encode(x))  # encoding keeps what decoding undoes, once
    nothing: Tensor = sae.module.decode(unit)
    sae.encode(x)
    unit[:, latents] = values
    one: Tensor = sae.module.decode(unit)
    return one - nothing


def _weights(source: Concept) -> tuple[dict[int, float], dict[int, float] | None]:
    """The activations of a concept's latents, and those of its control."""
    if source.latents is None or source.values is None:
        raise BadRequest(
            "Edit: which latents the concept prompt has was not said; add needs them as latents and values."
        )
    along = None if source.along is None else dict(zip(source.along, source.values, strict=True))
    return dict(zip(source.latents, source.values, strict=True)), along
