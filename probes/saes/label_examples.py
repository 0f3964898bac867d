"""Texts on which a latent fires and texts on which it does not, out of its SAE's index, some of both held out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Int

from cache.store import Store
from probes.errors import BadRequest
from probes.model.loaded import LoadedModel
from probes.progress import Progress
from probes.saes.loading import LoadedSAE
from probes.saes.reading import read_sequences
from probes.saes.sequences import TextSequence

__all__ = ["LEAST_TEXTS", "LabelExamples", "label_examples"]

LEAST_TEXTS = 12
_TRAIN, _HELD_OUT = 32, 32
_WINDOW = 32
_MOST_READ = 256
_AT_ONCE = 16


@dataclass(frozen=True, eq=False)
class LabelExamples:
    """Pieces of text as token ids. ``fires``: the latent fires in it; ``held_out``: no search may look at it.

    Each piece is of another sequence of the index, so none is in part another.
    """

    texts: tuple[tuple[int, ...], ...]
    fires: Bool[np.ndarray, " texts"]
    held_out: Bool[np.ndarray, " texts"]


def label_examples(
    store: Store,
    index_id: str,
    latent: int,
    model: LoadedModel,
    sae: LoadedSAE,
    seed: int = 0,
    progress: Progress | None = None,
) -> LabelExamples:
    """Windows of 32 tokens, without special tokens.

    Positive: around the index's top examples and samples of the latent, one of a sequence. Two thirds, at most 32, are to
    search with, the rest is held out. Negative: around examples of other latents, in other sequences, read again with the
    SAE: the latent fires on no token of the window. As many are to search with; up to 32 are held out.

    Raises:
        BadRequest: the latent has examples of fewer than 12 sequences, or hardly any text is without it.
        Cancelled: ``progress`` said so.
    """
    progress = progress or Progress()
    sequences = store.sae_table(index_id, "sae_sequences").set_index("seq")["token_ids"]
    hits = store.sae_table(index_id, "sae_hits")[["latent", "seq", "pos"]]
    draw = np.random.default_rng([seed, latent])
    own = hits[hits["latent"] == latent].drop_duplicates("seq")
    if len(own) < LEAST_TEXTS:
        raise BadRequest(
            f"Latent {latent} has examples of {len(own)} texts in the index; the search for a word needs {LEAST_TEXTS}."
        )
    special = set(model.tokenizer.all_special_ids)
    positive = [_window(sequences[seq], int(pos), special) for seq, pos in zip(own["seq"], own["pos"], strict=True)]
    positive = [positive[at] for at in draw.permutation(len(positive))]
    n_train = min(_TRAIN, 2 * len(positive) // 3)
    wanted = n_train + _HELD_OUT
    others = hits[(hits["latent"] != latent) & ~hits["seq"].isin(own["seq"])]
    others = others.iloc[draw.permutation(len(others))].drop_duplicates("seq").head(_MOST_READ)
    negative = []
    for window in _silent(others, sequences, latent, model, sae, special):
        negative.append(window)
        progress.step(min(1.0, len(negative) / wanted), f"finding texts without it, {len(negative)} of {wanted}")
        if len(negative) == wanted:
            break
    if len(negative) < n_train + LEAST_TEXTS // 3:
        raise BadRequest(
            f"Latent {latent} fires in nearly every text: of {len(others)} looked at, {len(negative)} are without it, and "
            f"{n_train + LEAST_TEXTS // 3} are needed."
        )
    texts = [*positive[: n_train + _HELD_OUT], *negative]
    fires = np.arange(len(texts)) < len(texts) - len(negative)
    place = np.concatenate([np.arange(int(fires.sum())), np.arange(len(negative))])
    return LabelExamples(tuple(tuple(map(int, ids)) for ids, _ in texts), fires, place >= n_train)


Window = tuple[Int[np.ndarray, " kept"], Int[np.ndarray, " kept"]]


def _window(ids: Int[np.ndarray, " tokens"], pos: int, special: set[int]) -> Window:
    """The tokens around a place and their places: 32, fewer only where the sequence has not as many besides specials."""
    places = np.array([at for at, token in enumerate(ids) if int(token) not in special], dtype=np.int64)
    middle = int(np.searchsorted(places, pos))
    first = max(0, min(middle - _WINDOW // 2, len(places) - _WINDOW))
    kept = places[first : first + _WINDOW]
    return np.asarray(ids)[kept], kept


def _silent(
    others: pd.DataFrame,
    sequences: pd.Series[np.ndarray],
    latent: int,
    model: LoadedModel,
    sae: LoadedSAE,
    special: set[int],
) -> Iterator[Window]:
    """The windows around these places on no counted token of which the latent fires, read a few sequences at a time."""
    for first in range(0, len(others), _AT_ONCE):
        some = others.iloc[first : first + _AT_ONCE]
        # Neighbours of one length are read together.
        order = sorted(zip(some["seq"], some["pos"], strict=True), key=lambda one: -len(sequences[one[0]]))
        texts = [TextSequence("", "", tuple(map(int, sequences[seq]))) for seq, _ in order]
        for (_, pos), text, read in zip(order, texts, read_sequences(model, sae, texts), strict=True):
            ids, kept = _window(np.array(text.ids), int(pos), special)
            fired = torch.zeros(len(text.ids), dtype=torch.bool)
            fired[read.keep] = read.activations[:, latent] > 0
            if len(ids) and not fired[torch.from_numpy(kept)].any():
                yield ids, kept
