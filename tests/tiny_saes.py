"""Tiny random SAE folders of each architecture, written by sae-lens itself."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from probes.saes.folder import CONFIG, WEIGHTS, sae_lens

__all__ = ["edit_config", "edit_weights", "identity", "make", "make_sparsify", "zero"]

_CLASSES = {
    "standard": "StandardSAE",
    "topk": "TopKSAE",
    "jumprelu": "JumpReLUSAE",
    "gated": "GatedSAE",
    "transcoder": "Transcoder",
    "skip_transcoder": "SkipTranscoder",
    "jumprelu_transcoder": "JumpReLUTranscoder",
    "jumprelu_skip_transcoder": "JumpReLUSkipTranscoder",
}


def make(
    folder: Path,
    architecture: str = "topk",
    d_in: int = 32,
    d_sae: int = 64,
    hook: str = "blocks.1.hook_resid_post",
    **more: Any,
) -> Path:
    """A random SAE; ``more`` goes into its metadata. A transcoder reads the MLP's input and writes ``d_in`` + 8."""
    lens = sae_lens()
    own: dict[str, Any] = {"k": 5} if architecture == "topk" else {}
    if "transcoder" in architecture:
        own = {"d_out": d_in + 8, "apply_b_dec_to_input": False}
        hook = hook.replace("hook_resid_post", "ln2.hook_normalized")
        more = {"hook_name_out": hook.replace("ln2.hook_normalized", "hook_mlp_out")} | more
    settings = getattr(lens, f"{_CLASSES[architecture]}Config")(
        d_in=d_in,
        d_sae=d_sae,
        metadata=lens.saes.sae.SAEMetadata(**{"model_name": "tiny-llama", "hook_name": hook, **more}),
        **own,
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


def identity(folder: Path, d_in: int = 32, hook: str = "blocks.1.hook_resid_post", **more: Any) -> Path:
    """A ReLU SAE that rebuilds every state exactly: a latent for each sign of each dimension."""
    make(folder, "standard", d_in, 2 * d_in, hook, **more)
    both = torch.cat([torch.eye(d_in), -torch.eye(d_in)])
    return edit_weights(
        folder, W_enc=both.T.contiguous(), W_dec=both, b_enc=torch.zeros(2 * d_in), b_dec=torch.zeros(d_in)
    )


def zero(folder: Path, d_in: int = 32, hook: str = "blocks.1.hook_resid_post", **more: Any) -> Path:
    """A ReLU SAE that rebuilds every state as 0."""
    make(folder, "standard", d_in, 2 * d_in, hook, **more)
    return edit_weights(
        folder,
        W_enc=torch.zeros(d_in, 2 * d_in),
        W_dec=torch.zeros(2 * d_in, d_in),
        b_enc=torch.zeros(2 * d_in),
        b_dec=torch.zeros(d_in),
    )


def make_sparsify(folder: Path, d_in: int = 32, d_sae: int = 64, **config: Any) -> dict[str, torch.Tensor]:
    """A folder as EleutherAI's sparsify writes it (run configuration one folder up); returns its weights."""
    folder.mkdir(parents=True)
    settings = {"activation": "topk", "expansion_factor": d_sae // d_in, "normalize_decoder": True, "num_latents": 0}
    settings |= {"k": 5, "multi_topk": False, "skip_connection": False, "transcode": False, "d_in": d_in}
    (folder / CONFIG).write_text(json.dumps(settings | config))
    (folder.parent / "config.json").write_text(json.dumps({"model": "org/tiny-llama", "ctx_len": 96}))
    generator = torch.Generator().manual_seed(0)
    shapes = {"encoder.weight": (d_sae, d_in), "encoder.bias": (d_sae,), "W_dec": (d_sae, d_in), "b_dec": (d_in,)}
    weights = {name: 0.3 * torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    save_file(weights, folder / "sae.safetensors")
    return weights
