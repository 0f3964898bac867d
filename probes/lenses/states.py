"""Residual states of a batch of chunks at every point, at a few positions each: what a tuned lens is trained and measured on."""

from typing import Any

import torch
from jaxtyping import Float32, Int64
from torch import Tensor, nn

from probes.model.loaded import LoadedModel

__all__ = ["every_position", "sampled_positions", "states_at"]


def sampled_positions(chunks: int, context: int, count: int, seed: int) -> Int64[Tensor, "chunks count"]:
    """Different positions of each chunk, drawn anew for each, never position 0: what stands there is like nothing else."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.rand(chunks, context - 1, generator=generator).topk(min(count, context - 1), dim=1).indices
    return drawn.sort(dim=1).values + 1


def every_position(chunks: int, context: int) -> Int64[Tensor, "chunks count"]:
    """All positions of each chunk but the first."""
    return torch.arange(1, context).expand(chunks, -1)


@torch.no_grad()
def states_at(
    model: LoadedModel, ids: Int64[Tensor, "chunks context"], positions: Int64[Tensor, "chunks count"]
) -> Float32[Tensor, "points rows d_model"]:
    """States at points 0..L, rows chunk after chunk; one pass of all chunks, the model's lock held while it lasts."""
    kept: list[Tensor] = []
    index = positions[..., None].to(model.device)

    def keep(output: Any) -> None:
        state: Tensor = output[0] if isinstance(output, tuple) else output
        taken = state.detach().gather(1, index.expand(-1, -1, state.shape[-1]))
        kept.append(taken.flatten(0, 1).float().cpu())

    def before(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        keep(args[0] if args else kwargs["hidden_states"])

    blocks = [sites.block for sites in model.sites.blocks]
    with model.lock:
        handles = [blocks[0].register_forward_pre_hook(before, with_kwargs=True)]
        handles += [block.register_forward_hook(lambda *call: keep(call[2])) for block in blocks]
        try:
            model.sites.backbone(input_ids=ids.to(model.device), use_cache=False)
        finally:
            for handle in handles:
                handle.remove()
    return torch.stack(kept)
