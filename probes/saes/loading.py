"""Loading an SAE for a model: our checks first, then sae-lens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float32
from safetensors import SafetensorError, safe_open
from torch import Tensor

from probes.errors import BadRequest
from probes.model.catalog import base_name
from probes.saes.folder import WEIGHTS, SAEFormatError, SAEInfo, installed_saes, sae_lens

if TYPE_CHECKING:
    from probes.model.loaded import ModelFacts

__all__ = ["LoadedSAE", "SAEMismatch", "choose", "load_sae", "made_for", "misfit"]

_EXTRA_KEYS: Mapping[str, tuple[str, ...]] = {
    "standard": ("b_enc",),
    "topk": ("b_enc",),
    "jumprelu": ("b_enc", "threshold"),
    "gated": ("b_gate", "b_mag", "r_mag"),
}


class SAEMismatch(BadRequest):
    """An SAE that can be read but does not fit this model."""


@dataclass(frozen=True, eq=False)
class LoadedSAE:
    """An SAE in float32 on the CPU. ``notes`` warn of what may be wrong without making it useless."""

    info: SAEInfo
    notes: tuple[str, ...]
    module: Any

    @torch.no_grad()
    def encode(self, resid: Float32[Tensor, "tokens d_model"]) -> Float32[Tensor, "tokens latents"]:
        activations: Tensor = self.module.encode(resid)
        return activations

    @torch.no_grad()
    def reconstruct(
        self, resid: Float32[Tensor, "tokens d_model"]
    ) -> tuple[Float32[Tensor, "tokens d_model"], Float32[Tensor, "tokens latents"]]:
        """Reconstructions and the activations they are made of. Decoding undoes what encoding normalised, so both
        belong to one call."""
        activations: Tensor = self.module.encode(resid)
        rebuilt: Tensor = self.module.decode(activations)
        return rebuilt, activations

    @property
    def decoder(self) -> Float32[Tensor, "latents d_model"]:
        """W_dec: what each latent writes, per unit of activation."""
        weight: Tensor = self.module.W_dec.detach()
        return weight


def choose(name: str, facts: ModelFacts) -> SAEInfo:
    """The SAE a request means: an installed one by name, or ``auto``, the first by name that was made for this model.

    Raises:
        BadRequest: there is none of that name, or none made for this model.
        SAEFormatError: the folder of that name cannot be used.
    """
    installed = {found.name: found for found in installed_saes()}
    if name == "auto":
        fitting = (found.info for found in installed.values() if found.info is not None)
        chosen = next((info for info in fitting if made_for(info, facts) and misfit(info, facts) is None), None)
        if chosen is None:
            raise SAEMismatch(f"No installed SAE was made for {facts.name}; installed are {_listed(installed)}.")
        return chosen
    if name not in installed:
        raise BadRequest(f"No SAE is called {name[:80]!r}; installed are {_listed(installed)}.")
    found = installed[name]
    if found.info is None:
        raise SAEFormatError(str(found.problem))
    return found.info


def made_for(info: SAEInfo, facts: ModelFacts) -> bool:
    """Whether the SAE names this model or the one it is a variant of: the last part of a hub id counts, in any case of
    letters."""
    return info.model_name.casefold().split("/")[-1] == base_name(facts.name).casefold().split("/")[-1]


def misfit(info: SAEInfo, facts: ModelFacts) -> str | None:
    """Why an SAE cannot read this model's residual stream, or None. Another model's name alone is no reason."""
    if info.d_in != facts.d_model:
        return f"{info.name}: d_in is {info.d_in}, but {facts.name} has {facts.d_model} residual dimensions."
    if info.point > facts.n_layers:
        return f"{info.name}: {info.hook_name} is point {info.point}, but {facts.name} has points 0..{facts.n_layers}."
    return None


def load_sae(info: SAEInfo, facts: ModelFacts) -> LoadedSAE:
    """Load an SAE for a model, as float32.

    Raises:
        SAEMismatch: its width or layer does not fit the model.
        SAEFormatError: a weight is missing, has the wrong shape, or is not finite.
    """
    reason = misfit(info, facts)
    if reason is not None:
        raise SAEMismatch(reason)
    _check_weights(info)
    try:
        module = sae_lens().SAE.load_from_disk(info.folder, device="cpu", dtype="float32")
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise SAEFormatError(f"{info.name}: sae-lens cannot load it: {str(error).splitlines()[0][:200]}.") from error
    module.requires_grad_(False)
    return LoadedSAE(info, _doubts(info, facts), module)


def _doubts(info: SAEInfo, facts: ModelFacts) -> tuple[str, ...]:
    if not made_for(info, facts):
        return (f"{info.name} was made for {info.model_name or 'an unnamed model'}, not for {facts.name}.",)
    if base_name(facts.name) != facts.name:
        return (f"{info.name} was trained on the weights of {base_name(facts.name)}, not on those of {facts.name}.",)
    return ()


def _check_weights(info: SAEInfo) -> None:
    """Presence, shape and finiteness of every weight the architecture needs, before sae-lens sees any."""
    shapes = {"W_enc": [info.d_in, info.d_sae], "W_dec": [info.d_sae, info.d_in], "b_dec": [info.d_in]}
    shapes |= {key: [info.d_sae] for key in _EXTRA_KEYS[info.architecture]}
    try:
        with safe_open(info.folder / WEIGHTS, framework="pt") as file:
            there = set(file.keys())
            for key, shape in shapes.items():
                if key not in there:
                    raise SAEFormatError(f"{info.name}: {WEIGHTS} has no {key}, which a {info.architecture} SAE needs.")
                weight = file.get_tensor(key)
                if list(weight.shape) != shape:
                    raise SAEFormatError(f"{info.name}: {key} must have the shape {shape}, not {list(weight.shape)}.")
                if not torch.isfinite(weight).all():
                    raise SAEFormatError(f"{info.name}: {key} holds values that are not finite.")
    except SafetensorError as error:
        raise SAEFormatError(f"{info.name}: {WEIGHTS} is damaged: {str(error)[:120]}.") from error


def _listed(names: Mapping[str, Any]) -> str:
    return ", ".join(names) or "none"
