"""Residual states of a corpus at one point, to train an SAE on: 128-token chunks, no position 0, no massive tokens."""

import hashlib
import itertools
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Float16, Int64
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from probes.model.loaded import LoadedModel
from probes.progress import Progress
from probes.saes.corpus import Document

__all__ = ["CONTEXT", "Chunks", "States", "chunk_documents", "collect_states", "random_batches"]

CONTEXT = 128
_MASSIVE_NORM = 10.0
_BATCH = 16
_PART = 128
_MAX_HELD_OUT_CHUNKS = 6


@dataclass(frozen=True, eq=False)
class Chunks:
    """Token ids of equal length, each chunk starting with BOS where the model has one, and the source of each."""

    ids: Int64[Tensor, "chunks context"]
    sources: tuple[str, ...]

    def first(self, count: int) -> "Chunks":
        return Chunks(self.ids[:count], self.sources[:count])


@dataclass(frozen=True, eq=False)
class States:
    """Kept residual states, the chunk each came from, and how many were left out as massive (besides position 0)."""

    resid: Float16[Tensor, "states d_model"]
    chunk: Int64[Tensor, "states"]
    n_massive: int


class _Reached(Exception):
    """Thrown by the hook once the wanted block has run: the rest of the model would be wasted work."""


def chunk_documents(
    documents: Iterable[Document], tokenizer: Any, bos_id: int | None, seed: int = 0
) -> tuple[Chunks, Chunks]:
    """Training and held-out chunks in random order, so that the first so many are a fair sample.

    A document is in one of the two whole; what does not fill a chunk is dropped, and so is a chunk that came before.
    """
    seen: set[tuple[int, ...]] = set()
    rows: dict[bool, list[tuple[int, ...]]] = {False: [], True: []}
    sources: dict[bool, list[str]] = {False: [], True: []}
    for document in documents:
        streams = _conversation_ids(document, tokenizer) if document.conversations else _text_ids(document, tokenizer)
        start = [] if bos_id is None else [bos_id]
        cut = (tuple((start + stream if stream[:1] != start else stream)[:CONTEXT]) for stream in streams)
        most = min(document.max_chunks, _MAX_HELD_OUT_CHUNKS) if document.held_out else document.max_chunks
        own = [row for row in dict.fromkeys(cut) if len(row) == CONTEXT and row not in seen][:most]
        seen.update(own)
        rows[document.held_out] += own
        sources[document.held_out] += [document.source] * len(own)
    return _shuffled(rows[False], sources[False], seed), _shuffled(rows[True], sources[True], seed)


def collect_states(
    model: LoadedModel,
    chunks: Chunks,
    point: int,
    folder: Path,
    progress: Progress,
    part: int = _PART,
    products: torch.dtype = torch.float32,
) -> States:
    """States of all chunks at a residual point, stored in half precision.

    Position 0 is left out, and tokens whose norm is above ten times the median norm of their batch. Parts are kept in
    ``folder`` and read from there if they are of these very chunks, so that collecting can be broken off and resumed:
    what is lost are at most ``part`` chunks. The model's lock is held for a batch at a time.

    ``products`` is the precision of matrix products: bfloat16 is nearly twice as fast on a CPU that has it and moves a
    state by 0.7 % of its length, which is good enough to train on and not to measure with.
    """
    starts, count = range(0, len(chunks.ids), part), len(chunks.ids)
    parts = []
    for first in starts:

        def seen(n_chunks: int, first: int = first) -> None:
            progress.step((first + n_chunks) / count, f"residual states, chunk {first + n_chunks} of {count}")

        path = folder / f"{first:06d}.safetensors"
        ids = chunks.ids[first : first + part]
        parts.append(_collect_part(model, ids, point, path, products, seen))
    chunk = [part.chunk + first for part, first in zip(parts, starts, strict=True)]
    return States(torch.cat([part.resid for part in parts]), torch.cat(chunk), sum(part.n_massive for part in parts))


def random_batches(
    states: Float16[Tensor, "states d_model"], size: int, scale: float, seed: int, start: int = 0
) -> Iterator[Float[Tensor, "batch d_model"]]:
    """Endless batches in random order, each state once an epoch, multiplied by ``scale``; the first ``start`` left out.

    Raises:
        ValueError: there are fewer states than a batch holds.
    """
    n_batches = len(states) // size
    if n_batches == 0:
        raise ValueError(f"a batch holds {size} states, but there are only {len(states)}")
    generator = torch.Generator().manual_seed(seed)
    for epoch in itertools.count():
        order = torch.randperm(len(states), generator=generator)
        for batch in range(max(0, start - epoch * n_batches), n_batches):
            yield states[order[batch * size : (batch + 1) * size]].float() * scale


def _shuffled(rows: list[tuple[int, ...]], sources: list[str], seed: int) -> Chunks:
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))
    ids = torch.tensor(rows, dtype=torch.long).reshape(-1, CONTEXT)
    return Chunks(ids[order], tuple(sources[int(i)] for i in order))


def _collect_part(
    model: LoadedModel,
    ids: Int64[Tensor, "part context"],
    point: int,
    path: Path,
    products: torch.dtype,
    seen: Callable[[int], None],
) -> States:
    digest = hashlib.blake2b(ids.numpy().tobytes(), digest_size=16).hexdigest()
    key = json.dumps([model.facts.fingerprint, point, digest, _MASSIVE_NORM, _BATCH, str(products)])
    seen(0)
    if path.is_file():
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata()
            if metadata["key"] == key:
                return States(file.get_tensor("resid"), file.get_tensor("chunk"), int(metadata["n_massive"]))
    kept, origin = [], []
    n_massive = 0
    for first in range(0, len(ids), _BATCH):
        if first:
            seen(first)
        batch = ids[first : first + _BATCH]
        resid = _resid_at(model, batch, point, products)[:, 1:]
        norms = resid.norm(dim=-1)
        keep = norms <= _MASSIVE_NORM * norms.median()
        kept.append(resid[keep].half())
        origin.append(torch.arange(first, first + len(batch))[:, None].expand_as(keep)[keep])
        n_massive += int((~keep).sum())
    part = States(torch.cat(kept), torch.cat(origin), n_massive)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".part")
    save_file({"resid": part.resid, "chunk": part.chunk}, partial, metadata={"key": key, "n_massive": str(n_massive)})
    partial.replace(path)
    return part


def _text_ids(document: Document, tokenizer: Any) -> list[list[int]]:
    ids = tokenizer(document.text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    body = CONTEXT - 1
    return [ids[first : first + body] for first in range(0, len(ids), body)]


def _conversation_ids(document: Document, tokenizer: Any) -> list[list[int]]:
    """Short conversations joined until they fill a chunk, in the model's own chat template."""
    if not tokenizer.chat_template:
        return []
    filled: list[list[int]] = []
    messages: list[dict[str, str]] = []
    for turns in document.conversations:
        even = turns[: len(turns) // 2 * 2]
        messages += [{"role": ("user", "assistant")[i % 2], "content": turn} for i, turn in enumerate(even)]
        text = tokenizer.apply_chat_template(messages, tokenize=False)
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        if len(ids) >= CONTEXT:
            filled.append(ids)
            messages = []
    return filled


@torch.no_grad()
def _resid_at(
    model: LoadedModel, ids: Int64[Tensor, "batch context"], point: int, products: torch.dtype
) -> Float[Tensor, "batch context d_model"]:
    seen: list[Tensor] = []

    def stop(_: nn.Module, __: Any, output: Tensor) -> None:
        seen.append(output.float().cpu())
        raise _Reached

    with model.lock:
        handle = model.sites.blocks[point - 1].block.register_forward_hook(stop)
        try:
            with torch.autocast(model.device.type, products, enabled=products != torch.float32):
                model.sites.backbone(input_ids=ids.to(model.device), use_cache=False)
        except _Reached:
            return seen[0]
        finally:
            handle.remove()
    raise RuntimeError(f"block {point - 1} did not run")
