"""Reading text with an SAE: residual states at its point, the model run no further than that, and which states count."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float32, Int64
from torch import Tensor, nn

from probes.errors import NonFinite
from probes.model.loaded import LoadedModel
from probes.saes.loading import LoadedSAE
from probes.saes.sequences import TextSequence

__all__ = ["MASSIVE_NORM", "Read", "kept", "read_sequences", "resid_at"]

MASSIVE_NORM = 10.0
"""A state is massive above so many times the median norm of its batch, position 0 not counted: as in training."""

_BATCH = 8


@dataclass(frozen=True, eq=False)
class Read:
    """One sequence as an SAE read it: its tokens, which of them count, and the activations at those."""

    ids: Int64[Tensor, "tokens"]
    keep: Bool[Tensor, "tokens"]
    activations: Float32[Tensor, "kept latents"]


class _Reached(Exception):
    """Thrown once the wanted point is reached: the rest of the model would be wasted work."""


@torch.no_grad()
def resid_at(
    model: LoadedModel, ids: Int64[Tensor, "batch tokens"], point: int
) -> Float32[Tensor, "batch tokens d_model"]:
    """States at a residual point, 0 (the embeddings) to the number of blocks, in float32 on the CPU."""
    seen: list[Tensor] = []

    def before(_: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> None:
        state = given[0] if given else named["hidden_states"]
        seen.append(state.float().cpu())
        raise _Reached

    def behind(_: nn.Module, __: Any, output: Any) -> None:
        seen.append((output[0] if isinstance(output, tuple) else output).float().cpu())
        raise _Reached

    with model.lock:
        if point == 0:
            handle = model.sites.blocks[0].block.register_forward_pre_hook(before, with_kwargs=True)
        else:
            handle = model.sites.blocks[point - 1].block.register_forward_hook(behind)
        try:
            model.sites.backbone(input_ids=ids.to(model.device), use_cache=False)
        except _Reached:
            return seen[0]
        finally:
            handle.remove()
    raise RuntimeError(f"point {point} was not reached")


def kept(states: Float32[Tensor, "batch tokens d_model"]) -> Bool[Tensor, "batch tokens"]:
    """Which states count: neither position 0 nor massive."""
    norms = states[:, 1:].norm(dim=-1)
    keep = torch.zeros(states.shape[:2], dtype=torch.bool)
    if norms.numel():
        keep[:, 1:] = norms <= MASSIVE_NORM * norms.median()
    return keep


def read_sequences(model: LoadedModel, sae: LoadedSAE, sequences: Sequence[TextSequence]) -> Iterator[Read]:
    """Every sequence in order, without position 0 and massive tokens.

    Raises:
        NonFinite: the model or the SAE gave a value that is not finite.
    """
    for batch in _batches(sequences):
        ids = torch.tensor([one.ids for one in batch])
        resid = resid_at(model, ids, sae.info.point)
        keep = kept(resid)
        activations = sae.encode(resid[keep])
        if not torch.isfinite(activations).all():
            raise NonFinite(f"{sae.info.name} gave activations that are not finite on a text of {batch[0].source}.")
        parts = torch.split(activations, keep.sum(dim=1).tolist())
        for row, counts, part in zip(ids, keep, parts, strict=True):
            yield Read(row, counts, part)


def _batches(sequences: Sequence[TextSequence]) -> Iterator[list[TextSequence]]:
    """Neighbours of equal length together, so that nothing is padded."""
    batch: list[TextSequence] = []
    for one in sequences:
        if batch and (len(batch) == _BATCH or len(one.ids) != len(batch[0].ids)):
            yield batch
            batch = []
        batch.append(one)
    if batch:
        yield batch
