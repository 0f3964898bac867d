"""Indexing an SAE: which text each of its latents fires on, how often and how strongly, written to the store."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from analysis.latent_events import FIRING_BYTES, LatentEvents
from analysis.latent_geometry import decoder_map, decoder_neighbours, promoted_tokens, self_cosine
from analysis.latent_index import IndexRules, LatentIndex, index_latents
from cache.store import Store
from probes.errors import PlanRefused
from probes.model.loaded import LoadedModel
from probes.model.tokenise import pieces
from probes.plan import memory_limit
from probes.progress import Progress
from probes.saes.folder import content_digest
from probes.saes.loading import LoadedSAE, SAEMismatch
from probes.saes.reading import read_sequences
from probes.saes.sequences import TextSequence

__all__ = ["IndexPlan", "SAEIndex", "index_sae", "plan_index", "store_index"]

_VERSION = 1
_SAMPLE = 16
_READING, _COUNTING = 0.85, 0.95
_LABEL_TOKENS = 3
_LABEL_PIECE = 24
_FIRINGS_FACTOR = 3.0  # they are sorted, and a block of them copied
_HIT_BYTES = 60  # of a stored example: measured, most activations around a firing are 0
_LATENT_BYTES = 900


@dataclass(frozen=True, slots=True)
class IndexPlan:
    """What an index will take, from a short sample: ``seconds`` on this machine as busy as it is now."""

    n_sequences: int
    n_tokens: int
    tokens_per_second: float
    seconds: float
    memory_bytes: int
    store_bytes: int


@dataclass(frozen=True, eq=False)
class SAEIndex:
    """An index as the store takes it: the row of ``sae_indexes`` and the five tables."""

    row: dict[str, Any]
    tables: dict[str, pd.DataFrame]


def plan_index(
    model: LoadedModel, sae: LoadedSAE, sequences: Sequence[TextSequence], rules: IndexRules | None = None
) -> IndexPlan:
    """Read a sample of the sequences and say what all of them will take.

    Raises:
        PlanRefused: more memory would be needed than may be used.
        SAEMismatch: the SAE does not read the residual stream.
    """
    _check(sae)
    rules = rules or IndexRules()
    sample = sequences[:: max(1, len(sequences) // _SAMPLE)][:_SAMPLE]
    n_tokens = sum(len(one.ids) for one in sequences)
    for _ in read_sequences(model, sae, sample[:1]):
        pass  # the first pass of all warms up
    start = time.monotonic()
    firings = sum(int((read.activations > 0).sum()) for read in read_sequences(model, sae, sample))
    spent = time.monotonic() - start
    share = n_tokens / sum(len(one.ids) for one in sample)
    n_firings = int(firings * share)
    n_hits = min(n_firings, sae.info.d_sae * (rules.top + rules.bins * rules.per_bin))
    plan = IndexPlan(
        n_sequences=len(sequences),
        n_tokens=n_tokens,
        tokens_per_second=n_tokens / (spent * share),
        seconds=spent * share / _READING,
        memory_bytes=int(_FIRINGS_FACTOR * FIRING_BYTES * n_firings) + n_hits * 500 + (256 << 20),
        store_bytes=n_hits * _HIT_BYTES + sae.info.d_sae * _LATENT_BYTES + 4 * n_tokens,
    )
    limit, says = memory_limit()
    if plan.memory_bytes > limit:
        raise PlanRefused(
            f"An index of {n_tokens:,} tokens needs about {plan.memory_bytes >> 20} MB for {n_firings:,} activations, but "
            f"{limit >> 20} MB may be used ({says}); take fewer tokens."
        )
    return plan


def index_sae(
    model: LoadedModel,
    sae: LoadedSAE,
    sequences: Sequence[TextSequence],
    corpus: str,
    rules: IndexRules | None = None,
    progress: Progress | None = None,
) -> SAEIndex:
    """Read all sequences and compute the index. ``corpus`` says in words what was read.

    Raises:
        Cancelled: ``progress`` said so; nothing is kept.
        SAEMismatch: the SAE does not read the residual stream.
        NonFinite: the model or the SAE gave a value that is not finite.
    """
    _check(sae)
    rules, progress = rules or IndexRules(), progress or Progress()
    events = LatentEvents(sae.info.d_sae)
    for number, read in enumerate(read_sequences(model, sae, sequences)):
        progress.step(_READING * number / len(sequences), f"reading sequence {number + 1} of {len(sequences)}")
        events.add(read.ids, read.keep, read.activations)
    counting = progress.part(_READING, _COUNTING)
    found = index_latents(events, rules, lambda fraction: counting.step(fraction, "sorting what each latent fired on"))
    progress.step(_COUNTING, "comparing the decoder's directions")
    latents = _described(model, sae, found, rules)
    neighbours = [found.partners, decoder_neighbours(sae.decoder, rules.partners)]
    tables = {
        "sae_sequences": _sequence_rows(sequences),
        "sae_latents": latents,
        "sae_hits": found.hits,
        "sae_latent_tokens": found.tokens,
        "sae_neighbours": pd.concat([rows for rows in neighbours if len(rows)], ignore_index=True),
    }
    return SAEIndex(_row(model, sae, sequences, corpus, rules, found), tables)


def store_index(store: Store, index: SAEIndex) -> str:
    """Write an index to the store in one transaction; its id."""
    return store.put_sae_index(index.row, index.tables)


def _check(sae: LoadedSAE) -> None:
    if sae.info.unreadable is not None:
        raise SAEMismatch(sae.info.unreadable)


def _row(
    model: LoadedModel,
    sae: LoadedSAE,
    sequences: Sequence[TextSequence],
    corpus: str,
    rules: IndexRules,
    found: LatentIndex,
) -> dict[str, Any]:
    text = hashlib.blake2b(digest_size=16)
    for one in sequences:
        text.update(json.dumps([one.source, one.name, one.ids]).encode())
    return {
        "sae": sae.info.name,
        "content": content_digest(sae.info.folder),
        "fingerprint": model.facts.fingerprint,
        "model": model.facts.name,
        "layer": sae.info.point,
        "corpus": corpus,
        "n_sequences": len(sequences),
        "context": max(len(one.ids) for one in sequences),
        "n_tokens": found.n_tokens,
        "n_left_out": found.n_left_out,
        "seed": rules.seed,
        "params": {"version": _VERSION, "text": text.hexdigest(), "rules": dataclasses.asdict(rules)},
    }


def _sequence_rows(sequences: Sequence[TextSequence]) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "seq": np.arange(len(sequences)),
            "source": [one.source for one in sequences],
            "name": [one.name for one in sequences],
            "token_ids": [np.array(one.ids, np.int32) for one in sequences],
        }
    )


def _described(model: LoadedModel, sae: LoadedSAE, found: LatentIndex, rules: IndexRules) -> pd.DataFrame:
    """The rows of latents with what the weights say, and the label with how well its rule tells when the latent fires.

    The rule: the token is one of the three with the highest mean activation. Precision is over all their occurrences,
    recall over all firings; both undefined for a latent none of whose tokens was seen often enough.
    """
    decoder = sae.decoder.cpu()
    points = decoder_map(decoder, rules.seed)
    written = promoted_tokens(
        decoder,
        model.norm_weight,
        model.unembed_matrix().detach().cpu(),
        k=_LABEL_TOKENS,
        centred_norm=model.facts.norm == "layer",
    )
    first = found.tokens[found.tokens["rank"] <= _LABEL_TOKENS].groupby("latent")
    hits = first["n_fired"].sum().reindex(found.latents["latent"])
    spelt = _Spelling(model)
    reads = {latent: rows["token_id"].tolist() for latent, rows in first}
    labels = [
        spelt.label(reads.get(row.latent, []), written[row.latent].tolist()) if row.n_fired else None
        for row in found.latents.itertuples()
    ]
    return found.latents.assign(
        encoder_cosine=self_cosine(sae.encoder.cpu(), decoder).numpy(),
        x=points[:, 0],
        y=points[:, 1],
        label=labels,
        precision=(hits / first["n_seen"].sum().reindex(found.latents["latent"])).to_numpy(),
        recall=(hits / found.latents["n_fired"].to_numpy()).to_numpy(),
    )


class _Spelling:
    """Tokens as quoted text, each spelt once."""

    def __init__(self, model: LoadedModel) -> None:
        self._tokenizer = model.tokenizer
        self._known: dict[int, str] = {}

    def label(self, reads: Sequence[int], writes: Sequence[int]) -> str:
        return f"{', '.join(map(self._quoted, reads))} → {', '.join(map(self._quoted, writes))}".strip()

    def _quoted(self, token_id: int) -> str:
        if token_id not in self._known:
            [text] = pieces(self._tokenizer, [token_id])
            text = text.encode("utf-8", "backslashreplace").decode()
            self._known[token_id] = json.dumps(text[:_LABEL_PIECE], ensure_ascii=False)
        return self._known[token_id]
