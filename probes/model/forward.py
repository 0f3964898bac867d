"""One forward pass, and what is kept of it.

Hooks sit on the plain Hugging Face module; attention reports its reductions through :mod:`probes.model.attention`. Edits
are hooked before what is kept, so a capture holds what later blocks read.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Int64
from torch import Tensor, nn

from probes.errors import NonFinite
from probes.memory import release
from probes.model.attention import Recorder, recording
from probes.progress import Progress

if TYPE_CHECKING:
    from probes.model.editing import Editing
    from probes.model.loaded import LoadedModel, ModelFacts
    from probes.model.sites import BlockSites
    from probes.probe import Reduction, Site

__all__ = ["forward", "site_shape", "tensor_names"]

_RELEASE_EVERY = 4  # blocks
_REDUCTIONS: dict[str, tuple[str, ...]] = {
    "column_sum": ("attention.column_sum",),
    "row_entropy": ("attention.row_entropy",),
    "value_norms": ("attention.value_l1", "attention.value_l2", "attention.value_out"),
    "update_norms": ("update.attn_norm", "update.mlp_norm"),
}


def site_shape(site: Site, facts: ModelFacts, n_tokens: int) -> tuple[int, int, int]:
    """Layers, tokens and width of what a capture keeps of a site."""
    layers = {"resid": facts.n_layers + 1, "final": 1}.get(site, facts.n_layers)
    width = {"head_z": facts.n_heads * facts.d_head, "value": facts.n_kv_heads * facts.d_head}.get(site, facts.d_model)
    return layers, n_tokens, width


def tensor_names(sites: frozenset[Site], reductions: frozenset[Reduction], n_layers: int) -> tuple[str, ...]:
    """The tensors a capture must hold for these sites and reductions; ``final`` is the last residual point."""
    names = []
    for site in sorted(sites):
        first = n_layers if site == "final" else 0
        named = "resid" if site == "final" else site
        names += [f"{named}.{layer}" for layer in range(first, n_layers + (named == "resid"))]
    for reduction in sorted(reductions):
        names += _REDUCTIONS[reduction]
    return tuple(dict.fromkeys(names))


@torch.no_grad()
def forward(
    model: LoadedModel,
    token_ids: Int64[Tensor, "tokens"],
    sites: frozenset[Site],
    reductions: frozenset[Reduction],
    progress: Progress,
    editing: Editing | None = None,
) -> dict[str, Tensor]:
    """One pass of the backbone (no unembedding) over one prompt; returns float32 CPU tensors by name.

    Raises NonFinite naming the first point and token that are not finite, and Cancelled between blocks. All hooks are
    gone and the model's lock is free afterwards, whatever happened.
    """
    kept = _Kept(model, len(token_ids), sites, progress)
    blocks = model.sites.attention_blocks
    recorder = Recorder(blocks, reduce=bool(reductions), keep_values="value" in sites, editing=editing)
    handles: list[Any] = []
    with model.lock:
        try:
            if editing is not None:
                editing.record, editing.untouched, editing.deltas = True, 0, {}
                handles += editing.hooks(model, range(model.facts.n_layers), embeddings=True)
            for block, sites_of_block in enumerate(model.sites.blocks):
                handles += kept.hooks(block, sites_of_block)
            with recording(recorder):
                model.sites.backbone(input_ids=token_ids[None].to(model.device), use_cache=False)
        finally:
            for handle in handles:
                handle.remove()
            if editing is not None:
                editing.record = False
    kept.refuse_non_finite()
    tensors = kept.tensors(recorder)
    if reductions:
        tensors |= _reduced(model, recorder)
        tensors |= {f"update.{name}": torch.stack(rows) for name, rows in kept.norms.items()}
    if editing is not None:
        tensors |= editing.left()
    release()
    return tensors


class _Kept:
    """What hooks lay aside. One piece of memory a site: states between a pass's temporaries would hold twice their size."""

    def __init__(self, model: LoadedModel, n_tokens: int, sites: frozenset[Site], progress: Progress) -> None:
        self._sites, self._progress, self._n_layers = sites, progress, model.facts.n_layers
        hooked = sites - {"value"}
        self._slabs = {site: torch.full(site_shape(site, model.facts, n_tokens), torch.nan) for site in hooked}
        self._broken: dict[int, int] = {}
        self.norms: dict[str, list[Tensor]] = {"attn_norm": [], "mlp_norm": []}

    def hooks(self, block: int, sites: BlockSites) -> list[Any]:
        def before(_: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
            self._progress.step(block / self._n_layers, f"forward pass, block {block} of {self._n_layers}")
            if block % _RELEASE_EVERY == 0:
                release()
            if block == 0:
                self._point(0, args[0] if args else kwargs["hidden_states"])

        def added(name: str, site: Site, output: Any) -> None:
            tensor = output[0] if isinstance(output, tuple) else output
            self.norms[name].append(tensor[0].float().norm(dim=-1).cpu())
            self._keep(site, block, tensor)

        return [
            sites.block.register_forward_pre_hook(before, with_kwargs=True),
            sites.block.register_forward_hook(lambda *call: self._point(block + 1, call[2])),
            sites.attn_added.register_forward_hook(lambda *call: added("attn_norm", "attn_out", call[2])),
            sites.mlp_added.register_forward_hook(lambda *call: added("mlp_norm", "mlp_out", call[2])),
            sites.o_proj.register_forward_pre_hook(lambda _, args: self._keep("head_z", block, args[0])),
        ]

    def refuse_non_finite(self) -> None:
        if self._broken:
            point = min(self._broken)
            raise NonFinite(
                f"Activations are not finite at layer point {point}, token {self._broken[point]}; with float16 or bfloat16 "
                "try dtype float32, with edits smaller numbers, otherwise the weights themselves hold NaN or infinity."
            )

    def tensors(self, recorder: Recorder) -> dict[str, Tensor]:
        named = {
            f"{site}.{layer}": state
            for site, slab in self._slabs.items()
            if site != "final"
            for layer, state in enumerate(slab)
        }
        if "final" in self._sites:
            named.setdefault(f"resid.{self._n_layers}", self._slabs["final"][0])
        if "value" in self._sites:
            named |= {f"value.{block}": v.transpose(0, 1).flatten(1) for block, v in recorder.values.items()}
        return named

    def _point(self, point: int, output: Any) -> None:
        state = (output[0] if isinstance(output, tuple) else output)[0].detach()
        finite = torch.isfinite(state).all(dim=-1)
        if not finite.all():
            self._broken[point] = int((~finite).nonzero()[0])
        if "resid" in self._slabs:
            self._slabs["resid"][point] = state
        if "final" in self._slabs and point == self._n_layers:
            self._slabs["final"][0] = state

    def _keep(self, site: Site, index: int, tensor: Tensor) -> None:
        if site in self._slabs:
            self._slabs[site][index] = tensor.detach()[0]


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
