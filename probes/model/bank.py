"""The mean bank: each layer's mean residual on other text, for the mean-corrected logit lens (docs/methods, decision 8).

Computed once for a model and kept beside the models as a small safetensors file, so that every run, stored or not, reads
the same means.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float32
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from cache.home import home
from probes.model.capture import forward
from probes.progress import Progress

if TYPE_CHECKING:
    from probes.model.loaded import LoadedModel

__all__ = ["MeanBank", "mean_bank"]

TEXTS = Path(__file__).parents[1] / "prompts" / "bank.jsonl"


@dataclass(frozen=True, eq=False)
class MeanBank:
    """Mean residual vectors by point over ``n_tokens`` positions of other text, position 0 of each passage left out."""

    means: Float32[Tensor, "points d_model"]
    n_tokens: int
    source: str


def mean_bank(model: LoadedModel, progress: Progress) -> MeanBank:
    """The bank of this model: read if it was made before, otherwise made (a forward pass over each passage)."""
    path = home() / "banks" / f"{model.facts.fingerprint}-{model.facts.tokenizer}-{_texts_digest()}.safetensors"
    if not path.is_file():
        _make(model, path, progress)
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
        return MeanBank(file.get_tensor("means"), int(metadata["n_tokens"]), metadata["source"])


def _make(model: LoadedModel, path: Path, progress: Progress) -> None:
    passages = [json.loads(line)["text"] for line in TEXTS.read_text(encoding="utf-8").splitlines()]
    facts = model.facts
    sums = torch.zeros(facts.n_layers + 1, facts.d_model, dtype=torch.float64)
    count = 0
    for index, passage in enumerate(passages):
        progress.step(index / len(passages), f"mean bank of this model, once: passage {index + 1} of {len(passages)}")
        ids = model.tokenizer(passage, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        ids = ([] if facts.bos_id is None else [facts.bos_id]) + ids
        ids = torch.tensor(ids[: facts.context], dtype=torch.long)
        kept = forward(model, ids, frozenset({"resid"}), frozenset(), Progress())
        sums += torch.stack([kept[f"resid.{p}"][1:].double().sum(dim=0) for p in range(facts.n_layers + 1)])
        count += len(ids) - 1
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, part = tempfile.mkstemp(dir=path.parent, suffix=".part")
    os.close(handle)
    metadata = {"n_tokens": str(count), "source": f"{len(passages)} built-in passages, {TEXTS.name} {_texts_digest()}"}
    save_file({"means": (sums / count).float()}, part, metadata=metadata)
    os.replace(part, path)


@cache
def _texts_digest() -> str:
    return hashlib.blake2b(TEXTS.read_bytes(), digest_size=8).hexdigest()
