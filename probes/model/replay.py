"""One block, run again from its stored input: patterns, increments and neurons on demand, at 1/L of a forward pass.

Earlier blocks hand their input on unchanged, the block reads the stored residual point, and the pass stops after it. The
model itself computes rotary phases and whatever else its blocks are handed, so this holds for every architecture.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Float32, Int64
from torch import Tensor, nn

from probes.model.attention import Recorder, recording
from probes.model.sites import linear_weight

if TYPE_CHECKING:
    from probes.model.editing import Editing
    from probes.model.loaded import LoadedModel

__all__ = ["BlockReplay", "replay", "starting_at"]


@dataclass(frozen=True, slots=True)
class BlockReplay:
    """What happened inside one block. ``pattern`` has the rows of the queries that were asked for, all keys.

    ``neurons`` is the input of the MLP's down projection, ``w_out`` that projection; ``values`` are repeated for the
    query heads that share them, ``head_z`` is what W_O reads, heads side by side. ``attn_out`` and ``mlp_out`` are what
    is added to the residual stream.
    """

    pattern: Float32[Tensor, "heads queries keys"]
    values: Float32[Tensor, "heads keys d_head"]
    head_z: Float32[Tensor, "tokens d_heads"]
    attn_out: Float32[Tensor, "tokens d_model"]
    mlp_out: Float32[Tensor, "tokens d_model"]
    neurons: Float32[Tensor, "tokens d_mlp"]
    w_out: Float[Tensor, "d_mlp d_model"]


class _Done(Exception):
    """The block has run; nothing after it is needed."""


@torch.no_grad()
def replay(
    model: LoadedModel,
    token_ids: Int64[Tensor, "tokens"],
    block: int,
    resid: Float[Tensor, "tokens d_model"],
    queries: Sequence[int] | None,
    editing: Editing | None = None,
) -> BlockReplay:
    """Run ``block`` on ``resid``, the residual stream at point ``block``, under the edits of its parts.

    ``queries``: positions whose attention rows are kept; None keeps all (memory ``heads * tokens^2``), ``()`` none.
    """
    sites = model.sites.blocks[block]
    seen: dict[str, Tensor] = {}
    handles: list[Any] = []

    def stop(*_: Any) -> None:
        raise _Done

    def see(name: str, output: Any) -> None:
        tensor = output[0] if isinstance(output, tuple) else output
        seen[name] = tensor[0].float().cpu()

    recorder = Recorder(model.sites.attention_blocks, patterns={block: queries}, editing=editing)
    with model.lock, starting_at(model, block, resid[None]):
        try:
            if editing is not None:
                handles += editing.hooks(model, range(block, block + 1), embeddings=False)
            handles.append(sites.attn_added.register_forward_hook(lambda *call: see("attn_out", call[2])))
            handles.append(sites.mlp_added.register_forward_hook(lambda *call: see("mlp_out", call[2])))
            handles.append(sites.mlp_down.register_forward_pre_hook(lambda _, args: see("neurons", args)))
            handles.append(sites.o_proj.register_forward_pre_hook(lambda _, args: see("head_z", args)))
            handles.append(sites.block.register_forward_hook(stop))
            with recording(recorder):
                model.sites.backbone(input_ids=token_ids[None].to(model.device), use_cache=False)
        except _Done:
            pass
        finally:
            for handle in handles:
                handle.remove()
    repeats = model.facts.n_heads // model.facts.n_kv_heads
    return BlockReplay(
        pattern=recorder.pattern[block][0],
        values=recorder.values[block][0].repeat_interleave(repeats, dim=0),
        head_z=seen["head_z"],
        attn_out=seen["attn_out"],
        mlp_out=seen["mlp_out"],
        neurons=seen["neurons"],
        w_out=linear_weight(sites.mlp_down),
    )


@contextmanager
def starting_at(model: LoadedModel, block: int, resid: Float[Tensor, "batch tokens d_model"]) -> Iterator[None]:
    """Let passes begin at ``block`` with ``resid``, the residual stream at point ``block``; hold the model's lock."""
    skipped = [earlier.block for earlier in model.sites.blocks[:block]]

    def feed(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        state = resid.to(model.device, model.dtype)
        return ((state, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": state})

    handle = model.sites.blocks[block].block.register_forward_pre_hook(feed, with_kwargs=True)
    try:
        for module in skipped:
            module.forward = _unchanged
        yield
    finally:
        handle.remove()
        for module in skipped:
            vars(module).pop("forward", None)


def _unchanged(hidden_states: Tensor, *_: Any, **__: Any) -> Tensor:
    return hidden_states
