"""Loading an SAE for a model: our checks first, then sae-lens."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float32
from safetensors import SafetensorError, safe_open
from torch import Tensor

from probes.errors import BadRequest
from probes.model.catalog import base_name
from probes.saes.config import WEIGHTS, SAEFormatError, inside, sae_lens
from probes.saes.folder import SAEInfo, installed_saes

if TYPE_CHECKING:
    from probes.model.loaded import ModelFacts

__all__ = ["LoadedSAE", "SAEMismatch", "check_weights", "choose", "load_sae", "made_for", "misfit", "open_sae"]

_EXTRA_KEYS: Mapping[str, tuple[str, ...]] = {
    "standard": ("b_enc",),
    "topk": ("b_enc",),
    "jumprelu": ("b_enc", "threshold"),
    "gated": ("b_gate", "b_mag", "r_mag"),
    "transcoder": ("b_enc",),
    "skip_transcoder": ("b_enc",),
    "jumprelu_transcoder": ("b_enc", "threshold"),
    "jumprelu_skip_transcoder": ("b_enc", "threshold"),
}
_FLOATING = ("F64", "F32", "F16", "BF16")


class SAEMismatch(BadRequest):
    """An SAE that can be read but does not fit this model."""


@dataclass(frozen=True, eq=False)
class LoadedSAE:
    """An SAE or transcoder in float32 on the CPU. ``notes`` warn of what may be wrong without making it useless."""

    info: SAEInfo
    notes: tuple[str, ...]
    module: Any

    @torch.no_grad()
    def encode(self, resid: Float32[Tensor, "tokens d_model"]) -> Float32[Tensor, "tokens latents"]:
        activations: Tensor = self.module.encode(resid)
        return activations

    @torch.no_grad()
    def encode_plain(self, resid: Float32[Tensor, "tokens d_model"]) -> Float32[Tensor, "tokens latents"]:
        """Activations with plain ReLU in the place of top-k, which keeps a number of latents a token whatever their size.

        Other kinds are encoded as ever: a threshold or a gate belongs to its latent, and below it an activation was
        never trained to mean anything.
        """
        module = self.module
        if self.info.architecture != "topk":
            return self.encode(resid)
        before: Tensor = module.process_sae_in(resid) @ module.W_enc + module.b_enc
        if module.cfg.rescale_acts_by_decoder_norm:
            before = before * module.W_dec.norm(dim=1)
        return before.relu()

    @torch.no_grad()
    def reconstruct(
        self, resid: Float32[Tensor, "tokens d_model"]
    ) -> tuple[Float32[Tensor, "tokens d_out"], Float32[Tensor, "tokens latents"]]:
        """Reconstructions and the activations they are made of. Decoding undoes what encoding normalised, so both
        belong to one call. A transcoder predicts what its block's MLP writes, its skip connection included."""
        activations: Tensor = self.module.encode(resid)
        rebuilt: Tensor = self.module.decode(activations)
        skip = getattr(self.module, "W_skip", None)
        return (rebuilt if skip is None else rebuilt + resid @ skip.T), activations

    def written(self, latent: int, resid: Float32[Tensor, "tokens d_model"]) -> Float32[Tensor, "tokens d_out"]:
        """What one unit of a latent adds to the reconstruction of each state: its decoder row, the normalisation of
        that state undone."""
        row = self.decoder[latent].expand(len(resid), -1)
        if self.info.d_out is not None or self.info.normalisation == "none":
            return row
        if self.info.normalisation == "layer_norm":
            undone = resid.std(dim=1, keepdim=True)
        else:
            undone = resid.norm(dim=1, keepdim=True) / math.sqrt(self.info.d_in)
        return row * undone

    @property
    def decoder(self) -> Float32[Tensor, "latents d_out"]:
        """What each latent writes per unit of activation, before a normalisation of the input is undone: W_dec, its
        rows of unit length where the SAE counts activations in units of their contribution."""
        weight: Tensor = self.module.W_dec.detach()
        if getattr(self.module.cfg, "rescale_acts_by_decoder_norm", False):
            weight = weight / weight.norm(dim=1, keepdim=True)
        return weight

    @property
    def encoder(self) -> Float32[Tensor, "latents d_model"]:
        """The direction each latent reads: W_enc, a row a latent."""
        weight: Tensor = self.module.W_enc.detach()
        return weight.T


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
    """Why a run of this model cannot be read with an SAE, or None. Another model's name alone is no reason."""
    if info.unreadable is not None:
        return info.unreadable
    if info.d_in != facts.d_model:
        return f"{info.name}: d_in is {info.d_in}, but {facts.name} has {facts.d_model} residual dimensions."
    if info.point > facts.n_layers:
        return f"{info.name}: {info.hook_name} is point {info.point}, but {facts.name} has points 0..{facts.n_layers}."
    return None


def load_sae(info: SAEInfo, facts: ModelFacts) -> LoadedSAE:
    """Load an SAE to read a model with, as float32.

    Raises:
        SAEMismatch: its width, layer or site does not fit the model.
        SAEFormatError: a weight is missing, has the wrong shape, or is not finite.
    """
    reason = misfit(info, facts)
    if reason is not None:
        raise SAEMismatch(reason)
    return LoadedSAE(info, _doubts(info, facts), open_sae(info).module)


def open_sae(info: SAEInfo) -> LoadedSAE:
    """Load an SAE or transcoder whatever it reads, as float32, after every weight was checked.

    Raises:
        SAEFormatError: a weight is missing, has the wrong shape or type, or is not finite.
    """
    _check_weights(info)
    try:
        module = sae_lens().SAE.load_from_disk(info.folder, device="cpu", dtype="float32")
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = ascii(str(error).splitlines()[0][:200])[1:-1] if str(error) else type(error).__name__
        raise SAEFormatError(f"{info.name}: sae-lens cannot load it: {reason}.") from error
    if module.cfg.reshape_activations == "hook_z":
        module.turn_off_forward_pass_hook_z_reshaping()  # ours come with their heads side by side
    module.eval().requires_grad_(False)
    return LoadedSAE(info, (), module)


def _doubts(info: SAEInfo, facts: ModelFacts) -> tuple[str, ...]:
    if not made_for(info, facts):
        return (f"{info.name} was made for {info.model_name or 'an unnamed model'}, not for {facts.name}.",)
    if base_name(facts.name) != facts.name:
        return (f"{info.name} was trained on the weights of {base_name(facts.name)}, not on those of {facts.name}.",)
    return ()


def _check_weights(info: SAEInfo) -> None:
    """Presence, type, shape and finiteness of every weight the architecture needs, before sae-lens sees any."""
    d_out = info.d_in if info.d_out is None else info.d_out
    shapes = {"W_enc": [info.d_in, info.d_sae], "W_dec": [info.d_sae, d_out], "b_dec": [d_out]}
    shapes |= {key: [info.d_sae] for key in _EXTRA_KEYS[info.architecture]}
    if "skip" in info.architecture:
        shapes["W_skip"] = [d_out, info.d_in]
    check_weights(info.folder, WEIGHTS, shapes, info.name)


def check_weights(folder: Path, file: str, shapes: Mapping[str, list[int]], name: str) -> None:
    """Presence, type, shape and finiteness of the named weights of a safetensors file.

    Raises:
        SAEFormatError: naming the first weight that is wrong, or saying that the file is damaged.
    """
    try:
        with safe_open(inside(folder, file), framework="pt") as opened:
            there = set(opened.keys())
            for key, shape in shapes.items():
                if key not in there:
                    raise SAEFormatError(f"{name}: {file} has no {key}, which an SAE of this kind needs.")
                _check_weight(opened, key, shape, name)
    except SafetensorError as error:
        raise SAEFormatError(f"{name}: {file} is damaged: {ascii(str(error)[:120])[1:-1]}.") from error


def _check_weight(opened: Any, key: str, shape: list[int], name: str) -> None:
    declared = opened.get_slice(key)
    if declared.get_dtype() not in _FLOATING:
        raise SAEFormatError(f"{name}: {key} must be of a floating type, not {declared.get_dtype()}.")
    if declared.get_shape() != shape:
        raise SAEFormatError(f"{name}: {key} must have the shape {shape}, not {declared.get_shape()}.")
    if not torch.isfinite(opened.get_tensor(key).float()).all():
        raise SAEFormatError(f"{name}: {key} holds values that are not finite in float32.")


def _listed(names: Mapping[str, Any]) -> str:
    return ", ".join(name if name.isprintable() else ascii(name) for name in names) or "none"
