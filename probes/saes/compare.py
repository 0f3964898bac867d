"""Two SAEs read on the same text: which latents fire alike, what those write, and which fall apart in the wider one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pandas as pd
import torch
from jaxtyping import Bool, Float32, Int64
from torch import Tensor

from analysis.splitting import children
from analysis.universality import CrossMoments, Geometry, Matches, compare_geometry, concept_pairs, match_latents
from probes.errors import BadRequest, PlanRefused
from probes.model.loaded import LoadedModel
from probes.model.tokenise import pieces
from probes.plan import memory_limit
from probes.progress import Progress
from probes.saes.loading import LoadedSAE
from probes.saes.reading import read_sequences
from probes.saes.sequences import TextSequence

__all__ = ["Comparison", "compare_saes"]

_TOP = 5
_BUFFER = 2048
_OTHER = ("", ".", ",", "-", "!", "?")
_MATRICES = 6  # of n_a x n_b float64 at the peak: sums, correlations and what they are made from


@dataclass(frozen=True, eq=False)
class Comparison:
    """``kept``: matches between latents of concepts, whose decoder rows ``geometry`` compares. ``children`` are of the
    narrower SAE's latents in the wider one."""

    a: str
    b: str
    n_tokens: int
    matches: Matches
    kept: Bool[Tensor, "latents_b"]
    geometry: Geometry
    narrow: str
    wide: str
    children: pd.DataFrame


def compare_saes(
    model: LoadedModel, a: LoadedSAE, b: LoadedSAE, sequences: Sequence[TextSequence], progress: Progress
) -> Comparison:
    """Compare two SAEs of one model on tokens that neither leaves out (position 0, massive tokens).

    Raises:
        PlanRefused: all pairs of their latents do not fit in memory.
        BadRequest: the text has fewer than two tokens that count.
    """
    _check_memory(a, b)
    moments = CrossMoments(a.info.d_sae, b.info.d_sae)
    tops = (_Strongest(a.info.d_sae), _Strongest(b.info.d_sae))
    total = sum(len(one.ids) for one in sequences)
    for ids, left, right in _buffered(_read_both(model, a, b, sequences)):
        moments.add(left, right)
        for top, activations in zip(tops, (left, right), strict=True):
            top.add(ids, activations)
        progress.step(0.8 * moments.n / total, f"read {moments.n:,} tokens with both")
    if moments.n < 2:
        raise BadRequest("The text holds fewer than two tokens that count; a comparison needs more.")
    progress.step(0.8, "correlating all pairs of latents")
    r = moments.correlations()
    matches = match_latents(r)
    kept = concept_pairs(matches, tops[0].ids, tops[1].ids, _no_concepts(model, tops))
    progress.step(0.9, "comparing decoder rows with shuffled pairs")
    geometry = compare_geometry(a.decoder[matches.best[kept]], b.decoder[kept])
    if a.info.d_sae <= b.info.d_sae:
        narrow, wide, table = a, b, children(a.decoder, b.decoder, r)
    else:
        narrow, wide, table = b, a, children(b.decoder, a.decoder, r.T)
    names = (a.info.name, b.info.name, narrow.info.name, wide.info.name)
    return Comparison(names[0], names[1], moments.n, matches, kept, geometry, names[2], names[3], table)


class _Strongest:
    """The tokens of the five strongest activations of every latent; -1 where it fired less often."""

    def __init__(self, latents: int) -> None:
        self.ids: Int64[Tensor, "latents top"] = torch.full((latents, _TOP), -1)
        self._values = torch.zeros(latents, _TOP)

    def add(self, ids: Int64[Tensor, "tokens"], activations: Float32[Tensor, "tokens latents"]) -> None:
        values, rows = activations.topk(min(_TOP, len(activations)), dim=0)
        values = torch.cat([self._values, values.T], dim=1)
        found = torch.cat([self.ids, ids[rows].T], dim=1)
        self._values, order = values.topk(_TOP, dim=1)
        self.ids = found.gather(1, order).masked_fill(self._values <= 0, -1)


_Part = tuple[Tensor, Tensor, Tensor]
"""Token ids, and the activations of A and of B at them."""


def _read_both(model: LoadedModel, a: LoadedSAE, b: LoadedSAE, sequences: Sequence[TextSequence]) -> Iterator[_Part]:
    both = zip(read_sequences(model, a, sequences), read_sequences(model, b, sequences), strict=True)
    for left, right in both:
        keep = left.keep & right.keep
        yield left.ids[keep], left.activations[keep[left.keep]], right.activations[keep[right.keep]]


def _buffered(parts: Iterator[_Part]) -> Iterator[_Part]:
    """Parts joined: one large product instead of many small ones."""
    held: list[_Part] = []
    for part in parts:
        held.append(part)
        if sum(len(ids) for ids, _, __ in held) >= _BUFFER:
            yield _joined(held)
            held = []
    if held:
        yield _joined(held)


def _joined(held: list[_Part]) -> _Part:
    ids, left, right = zip(*held, strict=True)
    return torch.cat(ids), torch.cat(left), torch.cat(right)


def _no_concepts(model: LoadedModel, tops: Sequence[_Strongest]) -> frozenset[int]:
    """Tokens that are no concept: . , - ! ? newlines, spaces, special tokens."""
    seen = sorted({token for top in tops for token in top.ids.flatten().tolist()} - {-1})
    special = set(model.tokenizer.all_special_ids)
    texts = pieces(model.tokenizer, seen)
    return frozenset(i for i, text in zip(seen, texts, strict=True) if i in special or text.strip() in _OTHER)


def _check_memory(a: LoadedSAE, b: LoadedSAE) -> None:
    needed = _MATRICES * 8 * a.info.d_sae * b.info.d_sae
    limit, knob = memory_limit()
    if needed > limit:
        raise PlanRefused(
            f"Comparing {a.info.d_sae:,} with {b.info.d_sae:,} latents needs {needed >> 20:,} MB for all their pairs, and "
            f"{limit >> 20:,} MB may be used ({knob})."
        )
