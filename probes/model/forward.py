"""One forward pass, and what is kept of it: of one prompt, or of several in a right-padded batch.

Causal attention lets no real token see the padding behind it, so a row of a batch leaves what it would leave alone, but
for the rounding of larger matrix products. Hooks sit on the plain Hugging Face module; attention reports its reductions
through :mod:`probes.model.attention`. Edits are hooked before what is kept, so a capture holds what later blocks read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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

__all__ = ["forward", "forward_batch", "site_shape", "tensor_names"]

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
    [left] = _pass(model, [token_ids], sites, reductions, progress, editing)
    if isinstance(left, NonFinite):
        raise left
    return left


def forward_batch(
    model: LoadedModel,
    prompts: Sequence[Int64[Tensor, "_"]],
    sites: frozenset[Site],
    reductions: frozenset[Reduction],
    progress: Progress,
) -> list[dict[str, Tensor] | NonFinite]:
    """:func:`forward` over several prompts in one pass: of each what it leaves, or why it left nothing."""
    return _pass(model, prompts, sites, reductions, progress, None)


@torch.no_grad()
def _pass(
    model: LoadedModel,
    prompts: Sequence[Int64[Tensor, "_"]],
    sites: frozenset[Site],
    reductions: frozenset[Reduction],
    progress: Progress,
    editing: Editing | None,
) -> list[dict[str, Tensor] | NonFinite]:
    lengths = [len(ids) for ids in prompts]
    kept = _Kept(model, lengths, sites, progress)
    keeps_values = "value" in sites
    recorder = Recorder(model.sites.attention_blocks, lengths, bool(reductions), keeps_values, editing)
    handles: list[Any] = []
    with model.lock:
        try:
            if editing is not None:
                editing.record, editing.untouched, editing.deltas = True, 0, {}
                handles += editing.hooks(model, range(model.facts.n_layers), embeddings=True)
            for block, sites_of_block in enumerate(model.sites.blocks):
                handles += kept.hooks(block, sites_of_block)
            with recording(recorder):
                model.sites.backbone(input_ids=_padded(prompts).to(model.device), use_cache=False)
        finally:
            for handle in handles:
                handle.remove()
            if editing is not None:
                editing.record = False
    left = kept.tensors(recorder)
    if reductions:
        norms = kept.norms()
        for row, tensors in enumerate(_reduced(model, recorder, lengths)):
            left[row] |= tensors | {f"update.{name}": rows[row] for name, rows in norms.items()}
    if editing is not None:
        left[0] |= editing.left()
    release()
    return [kept.broken(row) or tensors for row, tensors in enumerate(left)]


def _padded(prompts: Sequence[Int64[Tensor, "_"]]) -> Int64[Tensor, "rows tokens"]:
    """The prompts as rows, each filled up with its own last token: padding that the model has met, and none can see."""
    longest = max(map(len, prompts))
    return torch.stack([torch.cat([ids, ids[-1:].expand(longest - len(ids))]) for ids in prompts])


class _Kept:
    """What hooks lay aside. One piece of memory a row and site: states between a pass's temporaries would hold twice
    their size."""

    def __init__(self, model: LoadedModel, lengths: Sequence[int], sites: frozenset[Site], progress: Progress) -> None:
        self._sites, self._progress, self._n_layers = sites, progress, model.facts.n_layers
        self._lengths = lengths
        hooked = sites - {"value"}
        self._slabs = [
            {site: torch.full(site_shape(site, model.facts, length), torch.nan) for site in hooked}
            for length in lengths
        ]
        self._broken: list[dict[int, int]] = [{} for _ in lengths]
        self._norms: dict[str, list[Tensor]] = {"attn_norm": [], "mlp_norm": []}

    def hooks(self, block: int, sites: BlockSites) -> list[Any]:
        def before(_: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
            self._progress.step(block / self._n_layers, f"forward pass, block {block} of {self._n_layers}")
            if block % _RELEASE_EVERY == 0:
                release()
            if block == 0:
                self._point(0, args[0] if args else kwargs["hidden_states"])

        def added(name: str, site: Site, output: Any) -> None:
            tensor = output[0] if isinstance(output, tuple) else output
            self._norms[name].append(tensor.float().norm(dim=-1).cpu())
            self._keep(site, block, tensor)

        return [
            sites.block.register_forward_pre_hook(before, with_kwargs=True),
            sites.block.register_forward_hook(lambda *call: self._point(block + 1, call[2])),
            sites.attn_added.register_forward_hook(lambda *call: added("attn_norm", "attn_out", call[2])),
            sites.mlp_added.register_forward_hook(lambda *call: added("mlp_norm", "mlp_out", call[2])),
            sites.o_proj.register_forward_pre_hook(lambda _, args: self._keep("head_z", block, args[0])),
        ]

    def broken(self, row: int) -> NonFinite | None:
        """Why a row is worth nothing, if it is not finite throughout."""
        if not self._broken[row]:
            return None
        point = min(self._broken[row])
        return NonFinite(
            f"Activations are not finite at layer point {point}, token {self._broken[row][point]}; with float16 or bfloat16 "
            "try dtype float32, with edits smaller numbers, otherwise the weights themselves hold NaN or infinity."
        )

    def norms(self) -> dict[str, list[Tensor]]:
        """Norms of what was added, by name and row: [blocks, tokens]."""
        stacked = {name: torch.stack(blocks, dim=1) for name, blocks in self._norms.items()}
        return {
            name: [whole[row, :, :length].contiguous() for row, length in enumerate(self._lengths)]
            for name, whole in stacked.items()
        }

    def tensors(self, recorder: Recorder) -> list[dict[str, Tensor]]:
        """What each row leaves of the sites."""
        return [self._of_row(row, recorder) for row in range(len(self._lengths))]

    def _of_row(self, row: int, recorder: Recorder) -> dict[str, Tensor]:
        named = {
            f"{site}.{layer}": state
            for site, slab in self._slabs[row].items()
            if site != "final"
            for layer, state in enumerate(slab)
        }
        if "final" in self._sites:
            named.setdefault(f"resid.{self._n_layers}", self._slabs[row]["final"][0])
        if "value" in self._sites:
            real = self._lengths[row]
            named |= {f"value.{b}": v[row, :, :real].transpose(0, 1).flatten(1) for b, v in recorder.values.items()}
        return named

    def _point(self, point: int, output: Any) -> None:
        states = (output[0] if isinstance(output, tuple) else output).detach()
        finite = torch.isfinite(states).all(dim=-1).cpu()
        for row, length in enumerate(self._lengths):
            if not finite[row, :length].all():
                self._broken[row][point] = int((~finite[row]).nonzero()[0])
            if "resid" in self._sites:
                self._slabs[row]["resid"][point] = states[row, :length]
            if "final" in self._sites and point == self._n_layers:
                self._slabs[row]["final"][0] = states[row, :length]

    def _keep(self, site: Site, index: int, tensor: Tensor) -> None:
        if site in self._sites:
            for row, length in enumerate(self._lengths):
                self._slabs[row][site][index] = tensor.detach()[row, :length]


def _reduced(model: LoadedModel, recorder: Recorder, lengths: Sequence[int]) -> list[dict[str, Tensor]]:
    facts, blocks = model.facts, range(model.facts.n_layers)
    repeats = facts.n_heads // facts.n_kv_heads
    norms = [torch.empty(3, facts.n_layers, facts.n_heads, length) for length in lengths]
    for block in blocks:
        projection = model.o_proj(block)[0].float().cpu()
        gram = projection @ projection.transpose(-1, -2)
        for row, length in enumerate(lengths):
            values = recorder.values[block][row, :, :length].repeat_interleave(repeats, dim=0)
            norms[row][0, block] = values.abs().sum(dim=-1)
            norms[row][1, block] = values.norm(dim=-1)
            norms[row][2, block] = torch.einsum("htd,hde,hte->ht", values, gram, values).clamp_min_(0).sqrt_()
    return [
        {
            "attention.column_sum": torch.stack([recorder.column_sum[block][row, :, :length] for block in blocks]),
            "attention.row_entropy": torch.stack([recorder.row_entropy[block][row, :, :length] for block in blocks]),
            "attention.value_l1": norms[row][0],
            "attention.value_l2": norms[row][1],
            "attention.value_out": norms[row][2],
        }
        for row, length in enumerate(lengths)
    ]
