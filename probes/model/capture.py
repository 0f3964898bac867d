"""What one forward pass left behind, as probes read it.

A capture reads its tensors from a source by name, fresh from a pass or out of the store, so probes cannot tell which.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import pandas as pd
import torch
from jaxtyping import Bool, Float32, Float64, Int64
from torch import Tensor

from analysis.masks import Masks, token_masks
from analysis.massive import MassivePoint, massive_entries
from analysis.sinks import MIN_TOKENS, ColumnImportance, column_importance
from probes.model.attention import AttentionReductions
from probes.model.editing import delta_name
from probes.model.edits import Edit

if TYPE_CHECKING:
    from probes.model.editing import Editing
    from probes.model.loaded import LoadedModel
    from probes.model.replay import BlockReplay

__all__ = ["Capture", "special_positions"]


@dataclass(frozen=True)
class Capture:
    """What one prompt left behind in one model, under the edits it ran with.

    ``read`` gives a tensor by the names of :func:`probes.model.forward.tensor_names`; ``find_editing`` the edits with
    their numbers.
    """

    model: LoadedModel
    token_ids: Int64[Tensor, "tokens"]
    tokens: tuple[str, ...]
    special: Bool[Tensor, "tokens"]
    read: Callable[[str], Tensor]
    edits: tuple[Edit, ...] = ()
    find_editing: Callable[[], Editing] | None = None

    @cached_property
    def editing(self) -> Editing | None:
        """The edits with their numbers, found when first asked for; None for a clean capture."""
        return None if self.find_editing is None else self.find_editing()

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

    def moved(self, site: Literal["resid", "attn_out"], layer: int) -> Float64[Tensor, "tokens d_model"] | None:
        """By how much edits of this site and layer moved it; None where there are none."""
        if not any(edit.site == site and edit.layer == layer for edit in self.edits):
            return None
        return self.read(delta_name(site, layer))

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

    def mask(self, name: str) -> Bool[Tensor, "tokens"]:
        """One of the masks by name; ``all`` reads no state."""
        if name == "all":
            return torch.ones(self.n_tokens, dtype=torch.bool)
        chosen: Tensor = getattr(self.masks, name)
        return chosen

    def replay(self, block: int, queries: tuple[int, ...] | None = None) -> BlockReplay:
        """Run one block again from its stored input; see :func:`probes.model.replay.replay`."""
        from probes.model.replay import replay  # replay needs Capture's types

        return replay(self.model, self.token_ids, block, self.resid(block), queries, self.editing)


def special_positions(model: LoadedModel, token_ids: Int64[Tensor, "tokens"]) -> Bool[Tensor, "tokens"]:
    """Which positions hold special ids of the tokenizer (BOS, chat markers)."""
    specials = torch.tensor(sorted(set(model.tokenizer.all_special_ids)), dtype=torch.long)
    return torch.isin(token_ids, specials)
