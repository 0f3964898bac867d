"""One forward pass, and what is kept of it.

Hooks sit on the plain Hugging Face module; attention reports its reductions through :mod:`probes.model.attention`. A
capture reads its tensors from a source by name, fresh from a pass or out of the store, so probes cannot tell which.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch
from jaxtyping import Bool, Float32, Int64
from torch import Tensor, nn

from analysis.masks import Masks, token_masks
from analysis.massive import MassivePoint, massive_entries
from analysis.sinks import MIN_TOKENS, ColumnImportance, column_importance
from probes.errors import NonFinite
from probes.memory import release
from probes.model.attention import AttentionReductions, Recorder, recording
from probes.progress import Progress

if TYPE_CHECKING:
    from probes.model.loaded import LoadedModel
    from probes.model.replay import BlockReplay
    from probes.probe import Reduction, Site

__all__ = ["Capture", "forward", "special_positions", "tensor_names"]

_RELEASE_EVERY = 4  # blocks
_REDUCTIONS: dict[str, tuple[str, ...]] = {
    "column_sum": ("attention.column_sum",),
    "row_entropy": ("attention.row_entropy",),
    "value_norms": ("attention.value_l1", "attention.value_l2", "attention.value_out"),
    "update_norms": ("update.attn_norm", "update.mlp_norm"),
}


def tensor_names(sites: frozenset[Site], reductions: frozenset[Reduction], n_layers: int) -> tuple[str, ...]:
    """The tensors a capture must hold for these sites and reductions."""
    names = [f"resid.{point}" for point in range(n_layers + 1)] if "resid" in sites else []
    for site in ("head_z", "mlp_out"):
        if site in sites:
            names += [f"{site}.{block}" for block in range(n_layers)]
    for reduction in sorted(reductions):
        names += _REDUCTIONS[reduction]
    return tuple(names)


@dataclass(frozen=True)
class Capture:
    """What one prompt left behind in one model. ``read`` gives a tensor by the names of :func:`tensor_names`."""

    model: LoadedModel
    token_ids: Int64[Tensor, "tokens"]
    tokens: tuple[str, ...]
    special: Bool[Tensor, "tokens"]
    read: Callable[[str], Tensor]

    @property
    def n_tokens(self) -> int:
        return len(self.tokens)

    def resid(self, point: int) -> Float32[Tensor, "tokens d_model"]:
        """The residual stream at a point: 0 the embeddings, b + 1 the output of block b."""
        return self.read(f"resid.{point}")

    def head_z(self, block: int) -> Float32[Tensor, "tokens d_heads"]:
        """Mixed values of all heads of a block, before W_O, heads side by side."""
        return self.read(f"head_z.{block}")

    def mlp_out(self, block: int) -> Float32[Tensor, "tokens d_model"]:
        """What the MLP of a block adds to the residual stream."""
        return self.read(f"mlp_out.{block}")

    def attn_out(self, block: int) -> Float32[Tensor, "tokens d_model"]:
        """What attention of a block adds to the residual stream: the block's update less the MLP's."""
        return self.resid(block + 1) - self.resid(block) - self.mlp_out(block)

    @property
    def attn_norm(self) -> Float32[Tensor, "blocks tokens"]:
        """L2 norm of what attention of each block adds to the residual stream."""
        return self.read("update.attn_norm")

    @property
    def mlp_norm(self) -> Float32[Tensor, "blocks tokens"]:
        """L2 norm of what the MLP of each block adds to the residual stream."""
        return self.read("update.mlp_norm")

    @cached_property
    def attention(self) -> AttentionReductions:
        fields = ("column_sum", "row_entropy", "value_l1", "value_l2", "value_out")
        return AttentionReductions(**{name: self.read(f"attention.{name}") for name in fields})

    @cached_property
    def importance(self) -> ColumnImportance:
        """Mean attention each key receives from the queries that can see it, with its uniform baseline."""
        return column_importance(self.read("attention.column_sum"), self.model.facts.windows)

    @cached_property
    def massive(self) -> tuple[MassivePoint, ...]:
        """The massive entries of every residual point."""
        return tuple(massive_entries(self.resid(point)) for point in range(self.model.facts.n_layers + 1))

    @cached_property
    def masks(self) -> Masks:
        """The three token masks of docs/methods: all, no_bos, no_sink, and which tokens the last one drops and why."""
        tokens, blocks = self.n_tokens, self.model.facts.n_layers
        scores = self.importance.a if tokens >= MIN_TOKENS else torch.zeros(blocks, 1, tokens, dtype=torch.float64)
        entries = pd.concat([point.entries for point in self.massive])
        massive = frozenset(int(pos) for pos in entries.loc[entries["strict"].astype(bool), "pos"])
        return token_masks(scores, massive, self.special)

    def replay(self, block: int, queries: tuple[int, ...] | None = None) -> BlockReplay:
        """Run one block again from its stored input; see :func:`probes.model.replay.replay`."""
        from probes.model.replay import replay  # replay needs Capture's types

        return replay(self.model, self.token_ids, block, self.resid(block), queries)


def special_positions(model: LoadedModel, token_ids: Int64[Tensor, "tokens"]) -> Bool[Tensor, "tokens"]:
    """Which positions hold special ids of the tokenizer (BOS, chat markers)."""
    specials = torch.tensor(sorted(set(model.tokenizer.all_special_ids)), dtype=torch.long)
    return torch.isin(token_ids, specials)


@torch.no_grad()
def forward(
    model: LoadedModel,
    token_ids: Int64[Tensor, "tokens"],
    sites: frozenset[Site],
    reductions: frozenset[Reduction],
    progress: Progress,
) -> dict[str, Tensor]:
    """One pass of the backbone (no unembedding) over one prompt; returns float32 CPU tensors by name.

    Raises NonFinite naming the first point and token that are not finite, and Cancelled between blocks. All hooks are
    gone and the model's lock is free afterwards, whatever happened.
    """
    norms: dict[str, list[Tensor]] = {"attn_norm": [], "mlp_norm": []}
    handles: list[Any] = []
    blocks = model.sites.blocks

    # One piece of memory a site: kept states between the temporaries of a pass would hold twice their size.
    facts, n_tokens = model.facts, len(token_ids)
    shapes = {
        "resid": (facts.n_layers + 1, n_tokens, facts.d_model),
        "head_z": (facts.n_layers, n_tokens, facts.n_heads * facts.d_head),
        "mlp_out": (facts.n_layers, n_tokens, facts.d_model),
    }
    slabs = {site: torch.full(shapes[site], torch.nan, dtype=torch.float32) for site in sites}

    def keep(site: Site, index: int, tensor: Tensor) -> None:
        slabs[site][index] = tensor.detach()[0]

    def measure(name: str, output: Any) -> None:
        tensor = output[0] if isinstance(output, tuple) else output
        norms[name].append(tensor[0].float().norm(dim=-1).cpu())

    def watch(block: int, sites_of_block: Any) -> None:
        def before(_: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
            progress.step(block / len(blocks), f"forward pass, block {block} of {len(blocks)}")
            if block % _RELEASE_EVERY == 0:
                release()
            if block == 0:
                keep("resid", 0, args[0] if args else kwargs["hidden_states"])

        def after(_: nn.Module, __: Any, output: Tensor) -> None:
            keep("resid", block + 1, output)

        handles.append(sites_of_block.block.register_forward_pre_hook(before, with_kwargs=True))
        handles.append(sites_of_block.block.register_forward_hook(after))
        for name, module in (("attn_norm", sites_of_block.attn_added), ("mlp_norm", sites_of_block.mlp_added)):
            handles.append(module.register_forward_hook(lambda *call, name=name: measure(name, call[2])))
        if "head_z" in sites:
            handles.append(
                sites_of_block.o_proj.register_forward_pre_hook(lambda _, args: keep("head_z", block, args[0]))
            )
        if "mlp_out" in sites:
            handles.append(
                sites_of_block.mlp_added.register_forward_hook(lambda *call: keep("mlp_out", block, call[2]))
            )

    recorder = Recorder(model.sites.attention_blocks, reduce=bool(reductions))
    with model.lock:
        try:
            for block, sites_of_block in enumerate(blocks):
                watch(block, sites_of_block)
            with recording(recorder):
                model.sites.backbone(input_ids=token_ids[None].to(model.device), use_cache=False)
        finally:
            for handle in handles:
                handle.remove()
    kept = {f"{site}.{index}": state for site, slab in slabs.items() for index, state in enumerate(slab)}
    _refuse_non_finite(kept, len(blocks))
    if reductions:
        kept |= _reduced(model, recorder)
        kept |= {f"update.{name}": torch.stack(rows) for name, rows in norms.items()}
    release()
    return kept


def _refuse_non_finite(kept: Mapping[str, Tensor], n_layers: int) -> None:
    for point in range(n_layers + 1):
        finite = torch.isfinite(kept[f"resid.{point}"]).all(dim=-1)
        if not finite.all():
            token = int((~finite).nonzero()[0])
            raise NonFinite(
                f"Activations are not finite at layer point {point}, token {token}; with float16 or bfloat16 try dtype "
                "float32, otherwise the weights themselves hold NaN or infinity."
            )


def _reduced(model: LoadedModel, recorder: Recorder) -> dict[str, Tensor]:
    facts, blocks = model.facts, range(model.facts.n_layers)
    repeats = facts.n_heads // facts.n_kv_heads
    l1, l2, out = torch.empty(3, facts.n_layers, facts.n_heads, len(recorder.row_entropy[0][0]))
    for block in blocks:
        values = recorder.values[block].repeat_interleave(repeats, dim=0)
        projection = model.o_proj(block)[0].float().cpu()
        gram = projection @ projection.transpose(-1, -2)
        l1[block] = values.abs().sum(dim=-1)
        l2[block] = values.norm(dim=-1)
        out[block] = torch.einsum("htd,hde,hte->ht", values, gram, values).clamp_min_(0).sqrt_()
    return {
        "attention.column_sum": torch.stack([recorder.column_sum[block] for block in blocks]),
        "attention.row_entropy": torch.stack([recorder.row_entropy[block] for block in blocks]),
        "attention.value_l1": l1,
        "attention.value_l2": l2,
        "attention.value_out": out,
    }
