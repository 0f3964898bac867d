"""How much every token's residual state resembles that of position 0 (docs/methods, 2.7)."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor

__all__ = ["BosCosine", "bos_cosine"]

_N_MASSIVE = 3
_ZERO = 1e-12


@dataclass(frozen=True, eq=False)
class BosCosine:
    """Cosine of each token to position 0 at one point; NaN where a vector is zero.

    ``raw`` is mostly a statement about the common mean and a few large dimensions, which ``centred`` (mean of the
    non-sink tokens removed) and ``nomassive`` (the three largest dimensions ``zeroed``) take out.
    """

    raw: Float64[Tensor, "tokens"]
    centred: Float64[Tensor, "tokens"]
    nomassive: Float64[Tensor, "tokens"]
    zeroed: tuple[int, ...]


def bos_cosine(H: Float[Tensor, "tokens d_model"], non_sink: Bool[Tensor, "tokens"]) -> BosCosine:
    """Compare the states of one point with position 0.

    Without any non-sink token there is no mean to remove, and ``centred`` is NaN.
    """
    wide = H.double()
    scale = wide.abs().max()
    zeroed = wide.abs().amax(dim=0).topk(min(_N_MASSIVE, H.shape[1])).indices
    without = wide.clone()
    without[:, zeroed] = 0
    return BosCosine(
        raw=_cosine_to_first(wide, scale),
        centred=_cosine_to_first(wide - wide[non_sink].mean(dim=0), scale),
        nomassive=_cosine_to_first(without, without.abs().max()),
        zeroed=tuple(sorted(zeroed.tolist())),
    )


def _cosine_to_first(H: Float64[Tensor, "tokens d_model"], scale: Float64[Tensor, ""]) -> Float64[Tensor, "tokens"]:
    """Cosine to row 0; vectors of rounding size beside ``scale`` count as zero."""
    norms = torch.linalg.vector_norm(H, dim=1)
    norms = norms.masked_fill(norms <= _ZERO * scale, torch.nan)
    cosines: Tensor = (H @ H[0]) / (norms * norms[0])
    return cosines
