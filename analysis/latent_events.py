"""Every firing of every latent over a stream of sequences: what an index of latents is computed from.

A firing takes 12 bytes, so a TopK SAE with k = 32 takes 0.4 GB a million tokens. They are kept because ranges, bins and
samples need the maximum of a latent, which is known only at the end: all that follows is exact, nothing is estimated.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

__all__ = ["FIRING_BYTES", "Firings", "LatentEvents", "Text"]

FIRING_BYTES = 12
_SCANS = 32
_LEAST_BLOCK = 512


@dataclass(frozen=True, eq=False)
class Text:
    """All tokens in order of arrival: id, sequence, place of the sequence's first and last + 1 token, and whether it
    counts. A *place* is a token's number in this order."""

    ids: npt.NDArray[np.int32]
    seq: npt.NDArray[np.int32]
    starts: npt.NDArray[np.int64]
    ends: npt.NDArray[np.int64]
    keep: npt.NDArray[np.bool_]

    @property
    def n_kept(self) -> int:
        return int(self.keep.sum())


@dataclass(frozen=True, eq=False)
class Firings:
    """One latent's activations above 0, by place."""

    latent: int
    place: npt.NDArray[np.int32]
    value: npt.NDArray[np.float32]


class LatentEvents:
    """Takes sequences in and gives back the firings latent by latent."""

    def __init__(self, n_latents: int) -> None:
        if n_latents < 1:
            raise ValueError(f"n_latents must be at least 1, not {n_latents}")
        self.n_latents = n_latents
        self.n_sequences = 0
        self._n_places = 0
        self._ids: list[npt.NDArray[np.int32]] = []
        self._keep: list[npt.NDArray[np.bool_]] = []
        self._parts: list[tuple[npt.NDArray[np.int32], npt.NDArray[np.int32], npt.NDArray[np.float32]]] = []

    @property
    def n_firings(self) -> int:
        return sum(len(latent) for latent, _, __ in self._parts)

    def add(
        self,
        ids: Int64[Tensor, "tokens"],
        keep: Bool[Tensor, "tokens"],
        activations: Float[Tensor, "kept latents"],
    ) -> None:
        """One sequence and the activations at its kept tokens.

        Raises:
            ValueError: the sequence is empty, the shapes do not belong together, or an activation is not finite.
        """
        n_kept = int(keep.sum())
        if not len(ids) or len(keep) != len(ids) or activations.shape != (n_kept, self.n_latents):
            raise ValueError(
                f"a sequence of {len(ids)} tokens, {n_kept} of {len(keep)} kept, needs activations of the shape "
                f"({n_kept}, {self.n_latents}), not {tuple(activations.shape)}"
            )
        if not torch.isfinite(activations).all():
            raise ValueError("activations must be finite")
        token, latent = (activations > 0).nonzero(as_tuple=True)
        place = self._n_places + keep.nonzero()[:, 0][token]
        values = activations[token, latent].float()
        self._parts.append(
            (latent.numpy().astype(np.int32), place.numpy().astype(np.int32), values.numpy().astype(np.float32))
        )
        self._ids.append(ids.numpy().astype(np.int32))
        self._keep.append(keep.numpy().astype(np.bool_))
        self._n_places += len(ids)
        self.n_sequences += 1

    def text(self) -> Text:
        """All tokens so far."""
        lengths = np.array([len(ids) for ids in self._ids], np.int64)
        ends = np.cumsum(lengths)
        return Text(
            ids=np.concatenate([*self._ids, np.empty(0, np.int32)]),
            seq=np.repeat(np.arange(len(lengths), dtype=np.int32), lengths),
            starts=ends - lengths,
            ends=ends,
            keep=np.concatenate([*self._keep, np.empty(0, np.bool_)]),
        )

    def by_latent(self) -> Iterator[Firings]:
        """Every latent in order, those that never fired too, with its firings by place."""
        size = max(_LEAST_BLOCK, -(-self.n_latents // _SCANS))
        for first in range(0, self.n_latents, size):
            latent, place, value = self._block(first, first + size)
            order = np.argsort(latent, kind="stable")  # parts come by place, which stays the order within a latent
            latent, place, value = latent[order], place[order], value[order]
            bounds = np.searchsorted(latent, np.arange(first, min(first + size, self.n_latents) + 1))
            for offset, (low, high) in enumerate(pairwise(bounds)):
                yield Firings(first + offset, place[low:high], value[low:high])

    def of_places(self, wanted: npt.NDArray[np.bool_]) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
        """Latent and place of every firing at the places where ``wanted`` is true."""
        chosen = [(latent[wanted[place]], place[wanted[place]]) for latent, place, _ in self._parts]
        nothing = np.empty(0, np.int32)
        return (
            np.concatenate([*(latent for latent, _ in chosen), nothing]),
            np.concatenate([*(place for _, place in chosen), nothing]),
        )

    def _block(
        self, first: int, stop: int
    ) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32], npt.NDArray[np.float32]]:
        found = []
        for latent, place, value in self._parts:
            inside = (latent >= first) & (latent < stop)
            found.append((latent[inside], place[inside], value[inside]))
        return (
            np.concatenate([*(part[0] for part in found), np.empty(0, np.int32)]),
            np.concatenate([*(part[1] for part in found), np.empty(0, np.int32)]),
            np.concatenate([*(part[2] for part in found), np.empty(0, np.float32)]),
        )
