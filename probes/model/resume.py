"""The rest of a pass: from a residual point to the end, for several versions of one prompt at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Float32, Int64
from torch import Tensor

from probes.model.attention import Recorder, recording
from probes.model.replay import starting_at

if TYPE_CHECKING:
    from probes.model.editing import Editing
    from probes.model.loaded import LoadedModel

__all__ = ["resume"]


@torch.no_grad()
def resume(
    model: LoadedModel,
    token_ids: Int64[Tensor, "tokens"],
    point: int,
    resid: Float[Tensor, "batch tokens d_model"],
    editing: Editing | None = None,
) -> Float32[Tensor, "batch tokens d_model"]:
    """The last residual point that follows from ``resid`` at ``point``, each row a version of the same prompt.

    Edits of blocks from ``point`` on and of later points are carried out in every row.
    """
    last = model.facts.n_layers
    if point == last:
        return resid.float()
    seen: list[Tensor] = []
    handles: list[Any] = []
    recorder = Recorder(model.sites.attention_blocks, editing=editing)
    with model.lock, starting_at(model, point, resid):
        try:
            if editing is not None:
                handles += editing.hooks(model, range(point, last), embeddings=False)
            end = model.sites.blocks[-1].block
            handles.append(end.register_forward_hook(lambda *call: seen.append(call[2])))
            with recording(recorder):
                ids = token_ids.expand(len(resid), -1).to(model.device)
                model.sites.backbone(input_ids=ids, use_cache=False)
        finally:
            for handle in handles:
                handle.remove()
    output = seen[0][0] if isinstance(seen[0], tuple) else seen[0]
    return output.float().cpu()
