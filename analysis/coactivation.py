"""Which latents fire on the same tokens: Jaccard overlap and phi coefficient (docs/methods, the index of latents)."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.sparse import csr_matrix

__all__ = ["coactivation"]

_BLOCK = 512
_MEASURES = ("coactive", "phi")


def coactivation(
    latent: npt.NDArray[np.integer],
    token: npt.NDArray[np.integer],
    n_latents: int,
    n_tokens: int,
    *,
    best: int = 10,
    least: int = 10,
) -> pd.DataFrame:
    """The ``best`` partners of each latent: rows ``latent, kind, rank, other, value``.

    ``coactive`` is Jaccard's |A and B| / |A or B| of the sets of tokens two latents fire on, ``phi`` the correlation of
    firing as a yes or no; only partners that share a token and, for ``phi``, have a value above 0. Latents that fired on
    fewer than ``least`` of the tokens are left out, on either side: a shared token or two would rank them first. Ties go
    to the lower latent.

    Args:
        latent, token: one entry a firing, tokens numbered 0..n_tokens-1, no pair twice.
    """
    fired = csr_matrix((np.ones(len(latent), np.float32), (token, latent)), shape=(n_tokens, n_latents))
    counts = np.asarray(fired.sum(axis=0), np.float64).reshape(-1)
    often = counts >= least
    parts = [
        rows
        for first in range(0, n_latents, _BLOCK)
        for rows in _partners(fired, counts, often, first, min(first + _BLOCK, n_latents), n_tokens, best)
    ]
    columns = ["latent", "kind", "rank", "other", "value"]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame({name: [] for name in columns})


def _partners(
    fired: csr_matrix,
    counts: npt.NDArray[np.float64],
    often: npt.NDArray[np.bool_],
    first: int,
    stop: int,
    n_tokens: int,
    best: int,
) -> Iterator[pd.DataFrame]:
    own = np.flatnonzero(often[first:stop]) + first
    if not len(own):
        return
    both = np.asarray((fired[:, own].T @ fired).todense(), np.float64)
    allowed = (both > 0) & often
    allowed[np.arange(len(own)), own] = False
    n_a, n_b = counts[own][:, None], counts[None, :]
    with np.errstate(divide="ignore", invalid="ignore"):
        jaccard = both / (n_a + n_b - both)
        spread = np.sqrt(n_a * (n_tokens - n_a)) * np.sqrt(n_b * (n_tokens - n_b))
        phi = (n_tokens * both - n_a * n_b) / spread
    for kind, value in zip(_MEASURES, (jaccard, phi), strict=True):
        scored = np.where(allowed & (value > 0), value, -np.inf)
        order = np.argsort(-scored, axis=1, kind="stable")[:, :best]
        picked = np.take_along_axis(scored, order, axis=1)
        row, rank = np.nonzero(picked > 0)
        yield pd.DataFrame(
            {
                "latent": own[row],
                "kind": kind,
                "rank": rank + 1,
                "other": order[row, rank],
                "value": picked[row, rank],
            }
        )
