"""The mean bank: each site's mean state on other text, for the mean-corrected logit lens and for edits "to the mean".

Computed once for a model and kept beside the models as a small safetensors file, so that every run, stored or not, reads
the same means (docs/methods, decision 8). Position 0 is a class of its own: what stands there is like nothing else.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import torch
from jaxtyping import Float, Float32
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from cache.home import home
from probes.errors import BadRequest
from probes.model.forward import forward
from probes.probe import Site
from probes.progress import Progress

if TYPE_CHECKING:
    from probes.model.loaded import LoadedModel, ModelFacts

__all__ = ["BUILTIN", "MeanBank", "bank_id", "mean_bank"]

TEXTS = Path(__file__).parents[1] / "prompts" / "bank.jsonl"
BUILTIN = "builtin"
_LAYOUT = b"first and other, every site"
_SITES: tuple[Site, ...] = tuple(site for site in get_args(Site) if site != "final")


@dataclass(frozen=True, eq=False)
class MeanBank:
    """Mean states over ``n_tokens`` positions other than 0 of ``n_texts`` other texts, and over their positions 0.

    ``first`` and ``other`` hold by site one row a point (``resid``) or block, heads side by side.
    """

    first: Mapping[str, Float32[Tensor, "layers width"]]
    other: Mapping[str, Float32[Tensor, "layers width"]]
    n_tokens: int
    n_texts: int
    source: str

    @property
    def means(self) -> Float32[Tensor, "points d_model"]:
        """The residual stream at each point, position 0 of each text left out."""
        return self.other["resid"]

    def table(self, site: str, layer: int, heads: int) -> Float[Tensor, "2 heads width"]:
        """The means of one place: row 0 of position 0, row 1 of any other."""
        return torch.stack([self.first[site][layer], self.other[site][layer]]).reshape(2, heads, -1)


def bank_id(name: str, facts: ModelFacts) -> str:
    """The full name of a bank of this model. Raises BadRequest for one that is unknown or of another model."""
    known = f"{BUILTIN}-{_digest()}-{facts.fingerprint[:12]}"
    if name in (BUILTIN, known):
        return known
    if name.startswith(f"{BUILTIN}-"):
        raise BadRequest(
            f"Edit: the bank {name[:64]!r} was made of another model or of other texts, not of {facts.name}."
        )
    raise BadRequest(
        f'Edit: there is no bank {name[:64]!r}; there is "{BUILTIN}", made of {facts.name} on built-in texts.'
    )


def mean_bank(model: LoadedModel, progress: Progress) -> MeanBank:
    """The bank of this model: read if it was made before, otherwise made (a forward pass over each passage)."""
    path = home() / "banks" / f"{model.facts.fingerprint}-{model.facts.tokenizer}-{_digest()}.safetensors"
    if not path.is_file():
        _make(model, path, progress)
    with safe_open(path, framework="pt") as file:
        said = file.metadata()
        first: dict[str, Tensor] = {site: file.get_tensor(f"first.{site}") for site in _SITES}
        other: dict[str, Tensor] = {site: file.get_tensor(f"other.{site}") for site in _SITES}
        return MeanBank(first, other, int(said["n_tokens"]), int(said["n_texts"]), said["source"])


def _make(model: LoadedModel, path: Path, progress: Progress) -> None:
    passages = [json.loads(line)["text"] for line in TEXTS.read_text(encoding="utf-8").splitlines()]
    facts = model.facts
    first: dict[str, Tensor] = {}
    other: dict[str, Tensor] = {}
    count = 0
    for index, passage in enumerate(passages):
        progress.step(index / len(passages), f"mean bank of this model, once: passage {index + 1} of {len(passages)}")
        ids = model.tokenizer(passage, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        ids = ([] if facts.bos_id is None else [facts.bos_id]) + ids
        ids = torch.tensor(ids[: facts.context], dtype=torch.long)
        kept = forward(model, ids, frozenset(_SITES), frozenset(), Progress())
        for site in _SITES:
            layers = range(facts.n_layers + (site == "resid"))
            states = torch.stack([kept[f"{site}.{layer}"] for layer in layers]).double()
            first[site] = first.get(site, 0.0) + states[:, 0]
            other[site] = other.get(site, 0.0) + states[:, 1:].sum(dim=1)
        count += len(ids) - 1
    means = {f"first.{site}": (first[site] / len(passages)).float() for site in _SITES}
    means |= {f"other.{site}": (other[site] / count).float() for site in _SITES}
    source = f"{len(passages)} built-in passages, {TEXTS.name} {_digest()}"
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, part = tempfile.mkstemp(dir=path.parent, suffix=".part")
    os.close(handle)
    save_file(means, part, metadata={"n_tokens": str(count), "n_texts": str(len(passages)), "source": source})
    os.replace(part, path)


@cache
def _digest() -> str:
    return hashlib.blake2b(TEXTS.read_bytes() + _LAYOUT, digest_size=8).hexdigest()
