"""Splitting of latents (docs/methods, Two SAEs): which latents of a wider dictionary one latent falls apart into, and how
many latents it takes to tell a class."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Float64, Int64
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from torch import Tensor

__all__ = ["KS", "SparseProbe", "children", "k_sparse_probe", "split_count"]

MIN_COSINE = 0.7
MIN_CORRELATION = 0.3
MIN_JUMP = 0.03
KS = (*range(1, 16), 20, 50)


def children(
    small: Float[Tensor, "latents_a d_model"],
    large: Float[Tensor, "latents_b d_model"],
    correlations: Float64[Tensor, "latents_a latents_b"],
    *,
    min_cosine: float = MIN_COSINE,
    min_correlation: float = MIN_CORRELATION,
) -> pd.DataFrame:
    """Rows ``latent, child, cosine, correlation``: latents of the wider dictionary that write much the same as one of the
    narrower (cosine of decoder rows) *and* fire with it.
    """
    unit = [torch.nn.functional.normalize(rows.float(), dim=1) for rows in (small, large)]
    cosine = (unit[0] @ unit[1].T).double()
    latent, child = torch.nonzero((cosine > min_cosine) & (correlations > min_correlation), as_tuple=True)
    table = pd.DataFrame(
        {
            "latent": latent.numpy(),
            "child": child.numpy(),
            "cosine": cosine[latent, child].numpy(),
            "correlation": correlations[latent, child].numpy(),
        }
    )
    return table.sort_values(["latent", "cosine"], ascending=[True, False], ignore_index=True)


@dataclass(frozen=True, eq=False)
class SparseProbe:
    """How well the k best latents tell a class, for each k, on rows that were held out; and those latents, best first."""

    ks: tuple[int, ...]
    f1: tuple[float, ...]
    latents: tuple[int, ...]

    @property
    def main(self) -> tuple[int, ...]:
        """The latents up to the last k that still helps: those the class is split into."""
        return self.latents[: split_count(self.ks, self.f1)]


def k_sparse_probe(
    activations: Float[Tensor, "rows latents"],
    member: Bool[Tensor, "rows"],
    held_out: Bool[Tensor, "rows"],
    ks: Sequence[int] = KS,
) -> SparseProbe:
    """A logistic probe on the k latents whose mean differs most between members and others, in standard deviations.

    Raises:
        ValueError: the rows to fit or to judge on hold one class only.
    """
    fit = ~held_out
    for rows in (member[fit], member[held_out]):
        if not rows.any() or rows.all():
            raise ValueError("both classes must be among the rows that are fitted and those that are held out")
    x = activations[fit].double()
    inside, outside = x[member[fit]].mean(dim=0), x[~member[fit]].mean(dim=0)
    difference = (inside - outside) / x.std(dim=0).clamp(min=1e-9)
    order: Int64[Tensor, "latents"] = difference.argsort(descending=True)
    best = order[difference[order] > 1e-9][: max(ks)]
    ks = tuple(k for k in ks if k <= len(best))
    found = []
    for k in ks:
        scale = x[:, best[:k]].abs().amax(dim=0).clamp(min=1e-9)
        probe = LogisticRegression(C=10.0, max_iter=500, class_weight="balanced")
        probe.fit((x[:, best[:k]] / scale).numpy(), member[fit].numpy())
        said = probe.predict((activations[held_out][:, best[:k]].double() / scale).numpy())
        found.append(float(f1_score(member[held_out].numpy(), said, zero_division=0.0)))
    return SparseProbe(ks, tuple(found), tuple(int(latent) for latent in best))


def split_count(ks: Sequence[int], f1: Sequence[float], min_jump: float = MIN_JUMP) -> int:
    """The last k whose F1 is more than ``min_jump`` above that of the k before; the first k where none is.

    0 for no k at all. Raises ValueError if the two differ in length.
    """
    if len(ks) != len(f1):
        raise ValueError(f"there must be one F1 for each k, not {len(f1)} for {len(ks)}")
    if not ks:
        return 0
    jumps = np.flatnonzero(np.diff(np.asarray(f1, dtype=float)) > min_jump + 1e-9)
    return int(ks[jumps[-1] + 1]) if len(jumps) else int(ks[0])
