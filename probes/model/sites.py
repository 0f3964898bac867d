"""Where things happen in a model: the modules behind the sites, named by TransformerLens' adapter, not by us."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformer_lens.model_bridge.generalized_components import ParallelBlockBridge
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from probes.errors import ModelRefused

__all__ = ["BlockSites", "Sites", "linear_weight", "resolve"]


@dataclass(frozen=True, slots=True)
class BlockSites:
    """The modules of one block. ``attn_added`` and ``mlp_added`` give what is added to the residual stream."""

    block: nn.Module
    attn: nn.Module
    o_proj: nn.Module
    attn_added: nn.Module
    mlp_added: nn.Module
    mlp_down: nn.Module
    matrices: dict[str, nn.Module]

    @property
    def attn_post_norm(self) -> bool:
        """True where a norm stands between attention and the residual stream (Gemma-2, OLMo-2)."""
        return self.attn_added is not self.attn


@dataclass(frozen=True, slots=True)
class Sites:
    """The modules of a whole model."""

    backbone: nn.Module
    blocks: tuple[BlockSites, ...]
    ln_final: nn.Module
    unembed: nn.Module
    parallel: bool

    @property
    def attention_blocks(self) -> dict[int, int]:
        """Identity of each attention module -> block."""
        return {id(sites.attn): index for index, sites in enumerate(self.blocks)}


def resolve(hf: PreTrainedModel, mapping: dict[str, Any]) -> Sites:
    """Find the modules of ``hf`` by the bridge adapter's ``component_mapping``.

    A norm that the adapter calls ``ln1`` but that runs after attention (OLMo-2) is found by watching the order in which
    the modules of the first block run. Raises ModelRefused if the adapter names a component this model lacks.
    """
    try:
        names = mapping["blocks"].submodules
        modules = hf.get_submodule(mapping["blocks"].name)
        ln_final, unembed = hf.get_submodule(mapping["ln_final"].name), hf.get_submodule(mapping["unembed"].name)
        blocks = tuple(_block(module, names) for module in modules)
    except (KeyError, AttributeError) as error:
        raise ModelRefused(
            f"The adapter of this architecture does not name its components as expected: {error}."
        ) from None
    backbone = hf.base_model
    late = _norms_after(backbone, blocks[0].block, blocks[0], names)
    if late:
        blocks = tuple(_with_late_norms(sites, names, late) for sites in blocks)
    return Sites(backbone, blocks, ln_final, unembed, isinstance(mapping["blocks"], ParallelBlockBridge))


def linear_weight(module: nn.Module) -> Float[Tensor, "d_in d_out"]:
    """The matrix of a linear layer, input first, whether it is stored as nn.Linear or as GPT-2's Conv1D."""
    weight: Tensor = module.weight  # type: ignore[assignment]
    return weight.detach() if isinstance(module, Conv1D) else weight.detach().T


def _block(block: nn.Module, names: dict[str, Any]) -> BlockSites:
    attn, mlp = block.get_submodule(names["attn"].name), block.get_submodule(names["mlp"].name)
    inside = names["attn"].submodules
    matrices = {}
    for part, parent in (("attn", attn), ("mlp", mlp)):
        for role, component in names[part].submodules.items():
            module = dict(parent.named_modules()).get(component.name)
            if isinstance(module, nn.Linear | Conv1D):
                matrices[f"{part}.{role}"] = module
    return BlockSites(
        block=block,
        attn=attn,
        o_proj=attn.get_submodule(inside["o"].name),
        attn_added=block.get_submodule(names["ln1_post"].name) if "ln1_post" in names else attn,
        mlp_added=block.get_submodule(names["ln2_post"].name) if "ln2_post" in names else mlp,
        mlp_down=mlp.get_submodule(names["mlp"].submodules["out"].name),
        matrices=matrices,
    )


def _norms_after(backbone: nn.Module, block: nn.Module, sites: BlockSites, names: dict[str, Any]) -> frozenset[str]:
    """Which of ``ln1`` and ``ln2`` run after what they are named before, seen on a pass over four tokens."""
    watched = {"attn": sites.attn, "mlp": sites.mlp_down}
    watched |= {norm: block.get_submodule(names[norm].name) for norm in ("ln1", "ln2") if norm in names}
    order: list[str] = []
    handles = [
        module.register_forward_hook(lambda *_, name=name: order.append(name)) for name, module in watched.items()
    ]
    device = next(backbone.parameters()).device
    try:
        with torch.no_grad():
            backbone(input_ids=torch.zeros(1, 4, dtype=torch.long, device=device), use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    pairs = (("ln1", "attn"), ("ln2", "mlp"))
    return frozenset(norm for norm, part in pairs if norm in order and order.index(norm) > order.index(part))


def _with_late_norms(sites: BlockSites, names: dict[str, Any], late: frozenset[str]) -> BlockSites:
    return BlockSites(
        block=sites.block,
        attn=sites.attn,
        o_proj=sites.o_proj,
        attn_added=sites.block.get_submodule(names["ln1"].name) if "ln1" in late else sites.attn_added,
        mlp_added=sites.block.get_submodule(names["ln2"].name) if "ln2" in late else sites.mlp_added,
        mlp_down=sites.mlp_down,
        matrices=sites.matrices,
    )
