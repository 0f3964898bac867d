"""A loaded model: one set of weights with two faces, and what probes may ask of it."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Float32, Float64
from torch import Tensor
from transformers import PreTrainedModel

from probes.model.bank import MeanBank, mean_bank
from probes.model.sites import Sites, linear_weight
from probes.progress import Progress

__all__ = ["LoadedModel", "ModelFacts"]


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What is true of a model whatever text it reads. ``weights`` is how its numbers are stored, as people see it.

    ``windows`` holds the sliding window of each block, None where a block sees everything before it.
    """

    name: str
    fingerprint: str
    tokenizer: str
    weights: str
    architecture: str
    n_layers: int
    d_model: int
    n_heads: int
    n_kv_heads: int
    d_head: int
    d_mlp: int
    d_vocab: int
    context: int
    tied: bool
    bos_id: int | None
    norm: Literal["rms", "layer"]
    parallel_blocks: bool
    softcap: float | None
    windows: tuple[int | None, ...]
    device: str
    dtype: str

    @classmethod
    def from_stored(cls, stored: Mapping[str, Any]) -> ModelFacts:
        """The facts back from JSON, where tuples are lists and a whole float is an integer."""
        softcap = None if stored["softcap"] is None else float(stored["softcap"])
        return cls(**{**stored, "windows": tuple(stored["windows"]), "softcap": softcap})


class LoadedModel:
    """The plain Hugging Face module that captures run on, and its TransformerBridge twin sharing every parameter.

    Hooks are global to a module, so whoever runs a forward pass holds ``lock``. ``health`` is the self-check made at load.
    """

    def __init__(self, facts: ModelFacts, hf: PreTrainedModel, bridge: Any, tokenizer: Any, sites: Sites) -> None:
        self.facts = facts
        self.hf = hf
        self.bridge = bridge
        self.tokenizer = tokenizer
        self.sites = sites
        self.lock = threading.RLock()
        self.health: tuple[Any, ...] = ()

    @property
    def device(self) -> torch.device:
        device: torch.device = next(self.hf.parameters()).device
        return device

    @property
    def dtype(self) -> torch.dtype:
        dtype: torch.dtype = next(self.hf.parameters()).dtype
        return dtype

    @torch.no_grad()
    def normalise(self, resid: Float[Tensor, "n d_model"]) -> Float[Tensor, "n d_model"]:
        """The final norm with its own statistics on ``resid``, in the model's dtype and on its device."""
        out: Tensor = self.sites.ln_final(resid.to(self.device, self.dtype))
        return out

    @torch.no_grad()
    def unembed(self, resid: Float[Tensor, "n d_model"]) -> Float32[Tensor, "n d_vocab"]:
        """Logits of residual states: final norm, W_U, bias and, where the model has one, the final soft-cap."""
        logits: Tensor = self.sites.unembed(self.normalise(resid)).float()
        if self.facts.softcap is not None:
            logits = logits.div_(self.facts.softcap).tanh_().mul_(self.facts.softcap)
        return logits

    def logits_of(self, resid: Float[Tensor, "n d_model"]) -> Float32[Tensor, "n d_vocab"]:
        """As :meth:`unembed`, and differentiable in the states."""
        logits: Tensor = self.sites.unembed(self.sites.ln_final(resid.to(self.device, self.dtype))).float()
        return logits if self.facts.softcap is None else self.facts.softcap * (logits / self.facts.softcap).tanh()

    def unembed_matrix(self) -> Float[Tensor, "d_vocab d_model"]:
        """W_U, one row a token."""
        return linear_weight(self.sites.unembed).T

    @cached_property
    def unembed_hash(self) -> str:
        """What the package tuned-lens calls an unembedding by: its printed corners, one decimal, hashed."""
        shown = np.array_str(self.unembed_matrix().detach().float().cpu().numpy(), precision=1)
        return hashlib.sha256(shown.encode()).hexdigest()

    @property
    def unembed_bias(self) -> Float[Tensor, "d_vocab"] | None:
        bias: Tensor | None = getattr(self.sites.unembed, "bias", None)
        return None if bias is None else bias.detach()

    @cached_property
    def norm_weight(self) -> Float64[Tensor, "d_model"]:
        """The gain of the final norm. RMS norms are asked by a vector of ones, since Gemma stores gain - 1."""
        norm = self.sites.ln_final
        if self.facts.norm == "layer":
            stored: Tensor = norm.weight  # type: ignore[assignment]
            return stored.detach().double().cpu()
        ones: Tensor = torch.ones(1, self.facts.d_model)
        gain: Tensor = self.normalise(ones)[0].double().cpu() * (1.0 + self.norm_eps) ** 0.5
        return gain

    @property
    def norm_bias(self) -> Float64[Tensor, "d_model"] | None:
        """The shift of a final LayerNorm; None for RMS norms."""
        bias: Tensor | None = getattr(self.sites.ln_final, "bias", None)
        return None if bias is None else bias.detach().double().cpu()

    @property
    def norm_eps(self) -> float:
        """The constant added to the variance in the final norm."""
        norm = self.sites.ln_final
        for name in ("variance_epsilon", "eps", "epsilon"):
            if hasattr(norm, name):
                return float(getattr(norm, name))
        raise AttributeError(f"{type(norm).__name__} has no epsilon under a known name")

    def o_proj(self, block: int) -> tuple[Float[Tensor, "heads d_head d_model"], Tensor | None]:
        """W_O of a block split by head, and its bias or None."""
        module = self.sites.blocks[block].o_proj
        bias: Tensor | None = getattr(module, "bias", None)
        weight: Tensor = linear_weight(module)
        return weight.reshape(self.facts.n_heads, -1, weight.shape[1]), None if bias is None else bias.detach()

    def weight_matrices(self, block: int) -> dict[str, Float[Tensor, "d_in d_out"]]:
        """The linear maps of a block by role (``attn.q`` ... ``mlp.out``; ``attn.qkv`` where they are stored joint)."""
        return {role: linear_weight(module) for role, module in self.sites.blocks[block].matrices.items()}

    def mean_bank(self, progress: Progress) -> MeanBank:
        """Mean residual vectors on other text, made once for a model; see :mod:`probes.model.bank`."""
        return mean_bank(self, progress)

    def __repr__(self) -> str:
        return f"LoadedModel({self.facts.name}, {self.facts.weights}, {self.facts.dtype} on {self.facts.device})"
