"""Edits carried out inside a forward pass: as hooks at the modules of their sites, and inside the attention function."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from probes.errors import BadRequest
from probes.model.edits import Edit, FromRun, Mean, SAESource, Vector
from probes.model.sae_editing import WithSAE
from probes.progress import Progress
from probes.saes.folder import content_digest
from probes.saes.loading import LoadedSAE, choose, load_sae

if TYPE_CHECKING:
    from probes.model.capture import Capture
    from probes.model.loaded import LoadedModel

__all__ = ["UNTOUCHED", "Editing", "delta_name", "left_by", "resolve"]

UNTOUCHED = "pattern_untouched"  # the tensor of a capture that says how many attention rows edits had to leave alone
_WITH_DELTA = ("resid", "attn_out")


def delta_name(site: str, layer: int) -> str:
    """The tensor of a capture that says by how much edits moved the residual stream at this place."""
    return f"{site}_edit.{layer}"


def left_by(edits: Sequence[Edit]) -> tuple[str, ...]:
    """The tensors a pass under these edits leaves behind beside those of its sites and reductions."""
    moved = tuple(dict.fromkeys(delta_name(edit.site, edit.layer) for edit in edits if edit.site in _WITH_DELTA))
    return moved + ((UNTOUCHED,) if any(edit.site == "pattern" for edit in edits) else ())


@dataclass(frozen=True)
class _Numbered:
    """An edit with its numbers, ``table`` [rows, heads or 1, dims or 1]: one row for all, (first, other), or one a position."""

    edit: Edit
    table: Float[Tensor, "rows heads dims"]

    def apply(
        self, state: Float[Tensor, "batch tokens heads width"], start: int
    ) -> Float[Tensor, "batch tokens heads width"]:
        """The state after the edit; its first token stands at position ``start``."""
        edit, (n_tokens, n_heads, width) = self.edit, state.shape[1:]
        here = edit.where(start, n_tokens)
        if isinstance(edit.source, FromRun):
            here = [p for p in here if p < len(self.table)]
        if not here:
            return state
        heads = torch.tensor(range(n_heads) if edit.heads is None else edit.heads, device=state.device)
        dims = torch.tensor(range(width) if edit.dims is None else edit.dims, device=state.device)
        rows = torch.tensor(here, device=state.device) - start
        index = (slice(None), rows[:, None, None], heads[None, :, None], dims[None, None, :])
        old = state[index]
        value = self._values(torch.tensor(here), heads.cpu(), dims.cpu()).to(old)
        new = value.expand_as(old) if edit.op == "set" else old + value if edit.op == "add" else old * value
        edited = state.clone()
        edited[index] = new
        return edited

    def _values(
        self, positions: Int64[Tensor, " positions"], heads: Int64[Tensor, " heads"], dims: Int64[Tensor, " dims"]
    ) -> Float[Tensor, "_ _ _"]:
        """[positions or 1, heads or 1, dims or 1]: what a state of these positions, heads and dims can be expanded from."""
        source = self.edit.source
        if isinstance(source, Mean):
            rows = self.table[positions.clamp(max=1)]
        elif isinstance(source, FromRun):
            rows = self.table[positions]
        else:
            return self.table
        return rows[:, heads][:, :, dims]


@dataclass
class Editing:
    """The edits of one run, ready to be carried out. ``start`` is the position of the first token of the next pass.

    ``untouched`` counts attention rows that had nothing left after their keys were masked and were kept as they were;
    ``deltas`` holds by how much each edited residual or attention output moved, if ``record`` is set: a whole pass does.
    """

    edits: tuple[_Numbered | WithSAE, ...]
    record: bool = False
    start: int = 0
    untouched: int = 0
    deltas: dict[str, Tensor] = field(default_factory=dict)

    def hooks(self, model: LoadedModel, blocks: range, *, embeddings: bool) -> list[Any]:
        """Hooks for all edits of these blocks and their outputs, but those inside attention.

        ``embeddings``: point 0 too. A pass that begins later starts from a residual stream that is edited already.
        """
        handles = []
        if embeddings and self._at("resid", 0):
            first = model.sites.blocks[0].block
            handles.append(first.register_forward_pre_hook(self._before_first, with_kwargs=True))
        for block in blocks:
            sites = model.sites.blocks[block]
            if self._at("head_z", block):
                heads = model.facts.n_heads
                handles.append(sites.o_proj.register_forward_pre_hook(self._input_hook("head_z", block, heads)))
            for site, module in (("attn_out", sites.attn_added), ("mlp_out", sites.mlp_added)):
                if self._at(site, block):
                    handles.append(module.register_forward_hook(self._output_hook(site, block)))
            if self._at("resid", block + 1):
                handles.append(sites.block.register_forward_hook(self._output_hook("resid", block + 1)))
        return handles

    def values(
        self, block: int, value: Float[Tensor, "batch kv_heads keys d_value"]
    ) -> Float[Tensor, "batch kv_heads keys d_value"]:
        """The value vectors of a block after its edits; the first key stands at position 0."""
        for numbered in self._at("value", block):
            value = numbered.apply(value.transpose(1, 2), 0).transpose(1, 2)
        return value

    def left(self) -> dict[str, Tensor]:
        """The tensors of :func:`left_by`, after a pass that recorded."""
        counted = any(one.edit.site == "pattern" for one in self.edits)
        return self.deltas | ({UNTOUCHED: torch.tensor([self.untouched])} if counted else {})

    def edits_pattern(self, block: int) -> bool:
        return bool(self._at("pattern", block))

    def pattern(
        self,
        block: int,
        weights: Float[Tensor, "batch heads queries keys"],
        hidden: Bool[Tensor, "queries keys"],
        query: int,
        key: int,
    ) -> Float[Tensor, "batch heads queries keys"]:
        """Attention of a stretch of queries after the edits of its block.

        ``query`` and ``key`` are the positions of the first row and column; ``hidden`` marks what a query may not see.
        """
        for numbered in self._at("pattern", block):
            edit, (n_queries, n_keys) = numbered.edit, weights.shape[2:]
            rows = [q - query for q in edit.queries or range(query, query + n_queries) if 0 <= q - query < n_queries]
            if not rows:
                continue
            heads = list(edit.heads or range(weights.shape[1]))
            columns = [k - key for k in edit.keys or range(key, key + n_keys) if 0 <= k - key < n_keys]
            named = torch.zeros(n_keys, dtype=torch.bool, device=weights.device)
            named[columns] = True
            index = (slice(None), torch.tensor(heads)[:, None], torch.tensor(rows)[None, :])
            old = weights[index]
            new = _masked(old, named, rows, query - key) if edit.op == "mask" else _uniform(old, named & ~hidden[rows])
            if edit.op == "set" or edit.renormalise:
                total = new.sum(dim=-1, keepdim=True)
                self.untouched += int((total <= 0).sum())
                changed = (new != old).any(dim=-1, keepdim=True)  # a row that lost nothing stays as it is, to the bit
                new = torch.where(changed & (total > 0), new / total, old)
            weights = weights.clone()
            weights[index] = new
        return weights

    def _at(self, site: str, layer: int) -> list[_Numbered | WithSAE]:
        return [one for one in self.edits if one.edit.site == site and one.edit.layer == layer]

    def _edited(self, site: str, layer: int, state: Tensor, heads: int = 1) -> Tensor:
        before = state
        split = state.reshape(*state.shape[:2], heads, -1)
        for numbered in self._at(site, layer):
            split = numbered.apply(split, self.start)
        state = split.reshape(before.shape)
        if self.record and site in _WITH_DELTA:
            self.deltas[delta_name(site, layer)] = (state[0].double() - before[0].double()).cpu()
        return state

    def _before_first(
        self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if args:
            return (self._edited("resid", 0, args[0]), *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": self._edited("resid", 0, kwargs["hidden_states"])}

    def _input_hook(self, site: str, block: int, heads: int) -> Callable[..., tuple[Any, ...]]:
        return lambda _, args: (self._edited(site, block, args[0], heads), *args[1:])

    def _output_hook(self, site: str, layer: int) -> Callable[..., Any]:
        def hook(_: nn.Module, __: Any, output: Any) -> Any:
            if isinstance(output, tuple):
                return self._edited(site, layer, output[0]), *output[1:]
            return self._edited(site, layer, output)

        return hook


def resolve(
    edits: Sequence[Edit],
    model: LoadedModel,
    source: Callable[[str], Capture],
    progress: Progress,
) -> Editing:
    """Find the numbers of checked edits: means in the bank of ``model``, states in the captures ``source`` gives by run."""
    bank = cache(lambda: model.mean_bank(progress))
    sae = cache(lambda source: _sae(source, model))
    numbered: list[_Numbered | WithSAE] = []
    for edit in edits:
        if isinstance(edit.source, SAESource):
            numbered.append(WithSAE(edit, sae(edit.source)))
            continue
        if isinstance(edit.source, Mean):
            table = bank().table(edit.site, edit.layer, _heads_of(model, edit.site))
        elif isinstance(edit.source, FromRun):
            table = _states(source(edit.source.run), edit.site, edit.layer)
        elif isinstance(edit.source, Vector):
            table = torch.tensor(edit.source.values, dtype=torch.float32)[None, None]
        else:
            number = edit.source if isinstance(edit.source, int | float) else 0.0
            table = torch.full((1, 1, 1), float(number))
        numbered.append(_Numbered(edit, table))
    return Editing(tuple(numbered))


def _sae(source: SAESource, model: LoadedModel) -> LoadedSAE:
    """The SAE of a source. Raises BadRequest where the one of that name is not the one the source was settled with."""
    info = choose(source.sae, model.facts)
    if source.content not in (None, content_digest(info.folder)):
        raise BadRequest(f"Edit: the SAE {source.sae[:80]!r} has changed since this edit was made.")
    return load_sae(info, model.facts)


def _heads_of(model: LoadedModel, site: str) -> int:
    return {"head_z": model.facts.n_heads, "value": model.facts.n_kv_heads}.get(site, 1)


def _states(capture: Capture, site: str, layer: int) -> Float[Tensor, "tokens heads width"]:
    if site == "resid":
        return capture.resid(layer)[:, None]
    again = capture.replay(layer, ())
    whole: Mapping[str, Tensor] = {"attn_out": again.attn_out[:, None], "mlp_out": again.mlp_out[:, None]}
    if site in whole:
        return whole[site]
    facts = capture.model.facts
    if site == "head_z":
        return again.head_z.reshape(len(again.head_z), facts.n_heads, -1)
    return again.values[:: facts.n_heads // facts.n_kv_heads].transpose(0, 1)


def _masked(
    old: Float[Tensor, "batch heads queries keys"], named: Bool[Tensor, " keys"], rows: Sequence[int], offset: int
) -> Float[Tensor, "batch heads queries keys"]:
    """Without the named keys, but for the attention of a query to itself; row r is the query in column r + offset."""
    removed = named.expand(len(rows), -1).clone()
    for slot, row in enumerate(rows):
        removed[slot, row + offset] = False
    return old.masked_fill(removed, 0.0)


def _uniform(
    old: Float[Tensor, "batch heads queries keys"], allowed: Bool[Tensor, "queries keys"]
) -> Float[Tensor, "batch heads queries keys"]:
    return allowed.to(old).expand_as(old)
