"""Mean pairwise cosine of the tokens of a layer, raw and centred (core.md 6.3)."""

import torch
from jaxtyping import Float
from torch import Tensor

from analysis.measured import Measured, undefined
from analysis.preparation import prepare

__all__ = ["mean_cosine"]


def mean_cosine(x: Float[Tensor, "n d"], *, centred: bool = False) -> Measured:
    """Mean cosine over all pairs of different rows, from the sum of unit rows: (|sum u|^2 - n) / (n (n - 1)).

    ``centred`` subtracts the mean row first: what is left is near -1/(n - 1) unless the cloud is lopsided. A zero row has
    no direction and is left out; ``n_used`` counts the rest.
    """
    if not bool(torch.isfinite(x).all()):
        return undefined("non_finite", len(x))
    rows = prepare(x, torch.ones(len(x), dtype=torch.bool), normed=False, centre=centred)
    norms = rows.norm(dim=1)
    directed = norms > 0
    n = int(directed.sum())
    if n < 2:
        return undefined("too_few_tokens" if len(rows) < 2 else "rank_deficient", n)
    total = (rows[directed] / norms[directed, None]).sum(dim=0).square().sum()
    return Measured(float((total - n) / (n * (n - 1))), n)
