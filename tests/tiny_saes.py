"""Tiny random SAE folders of each architecture, written by sae-lens itself."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from probes.saes.folder import CONFIG, WEIGHTS, sae_lens

__all__ = ["edit_config", "edit_weights", "make"]

_CLASSES = {"standard": "StandardSAE", "topk": "TopKSAE", "jumprelu": "JumpReLUSAE", "gated": "GatedSAE"}


def make(
    folder: Path,
    architecture: str = "topk",
    d_in: int = 32,
    d_sae: int = 64,
    hook: str = "blocks.1.hook_resid_post",
    **more: Any,
) -> Path:
    """A random SAE; ``more`` goes into its metadata."""
    lens = sae_lens()
    settings = getattr(lens, f"{_CLASSES[architecture]}Config")(
        d_in=d_in,
        d_sae=d_sae,
        metadata=lens.saes.sae.SAEMetadata(**{"model_name": "tiny-llama", "hook_name": hook, **more}),
        **({"k": 5} if architecture == "topk" else {}),
    )
    module = getattr(lens, _CLASSES[architecture])(settings)
    generator = torch.Generator().manual_seed(0)
    for name, parameter in module.named_parameters():
        size = 0.3 if parameter.dim() > 1 else 0.1
        parameter.data = size * torch.randn(parameter.shape, generator=generator)
        if name == "threshold":
            parameter.data = parameter.data.abs()
    module.save_model(folder)
    return folder


def edit_config(folder: Path, **changes: Any) -> Path:
    """Set keys of ``cfg.json``; a key set to None is removed, ``metadata`` is merged."""
    config = json.loads((folder / CONFIG).read_text())
    config["metadata"] |= changes.pop("metadata", {})
    config |= changes
    kept = {key: value for key, value in config.items() if value is not None}
    (folder / CONFIG).write_text(json.dumps(kept))
    return folder


def edit_weights(folder: Path, **changes: torch.Tensor | None) -> Path:
    """Replace weights; one set to None is removed."""
    weights = {**load_file(folder / WEIGHTS), **changes}
    save_file({key: value for key, value in weights.items() if value is not None}, folder / WEIGHTS)
    return folder
