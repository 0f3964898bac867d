"""What the weights of an SAE tell of its latents: encoder-decoder cosine, neighbours, a map, promoted tokens."""

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from jaxtyping import Float, Float64, Int64
from sklearn.decomposition import PCA
from torch import Tensor

__all__ = ["decoder_map", "decoder_neighbours", "promoted_tokens", "self_cosine"]

_BLOCK = 256


def self_cosine(
    encoder: Float[Tensor, "latents d_model"], decoder: Float[Tensor, "latents d_model"]
) -> Float64[Tensor, "latents"]:
    """Cosine of what a latent reads and what it writes; NaN where one of the two is zero."""
    dot = (encoder.double() * decoder.double()).sum(dim=1)
    cosine: Tensor = dot / (encoder.double().norm(dim=1) * decoder.double().norm(dim=1))
    return cosine


def decoder_neighbours(decoder: Float[Tensor, "latents d_model"], best: int = 10) -> pd.DataFrame:
    """The latents with the highest decoder cosine to each: rows ``latent, kind, rank, other, value``.

    Ties go to the lower latent; a latent whose row is zero has no neighbours and is nobody's.
    """
    rows = _unit(decoder)
    real = (rows.square().sum(dim=1) > 0).numpy()
    parts = []
    for first in range(0, len(rows), _BLOCK):
        block = rows[first : first + _BLOCK]
        cosine = (block @ rows.T).double().numpy()
        cosine[:, ~real] = -np.inf
        cosine[~real[first : first + _BLOCK]] = -np.inf
        cosine[np.arange(len(block)), np.arange(first, first + len(block))] = -np.inf
        order = np.argsort(-cosine, axis=1, kind="stable")[:, :best]
        value = np.take_along_axis(cosine, order, axis=1)
        row, rank = np.nonzero(np.isfinite(value))
        found = {"latent": row + first, "kind": "decoder", "rank": rank + 1, "other": order[row, rank]}
        parts.append(pd.DataFrame({**found, "value": np.clip(value[row, rank], -1.0, 1.0)}))
    return pd.concat(parts, ignore_index=True)


def decoder_map(decoder: Float[Tensor, "latents d_model"], seed: int = 0) -> npt.NDArray[np.float64]:
    """Coordinates [latents, 2]: the first two principal components of the unit decoder rows.

    NaN if there are fewer than 3 latents or 2 dimensions.
    """
    latents, width = decoder.shape
    if latents < 3 or width < 2:
        return np.full((latents, 2), np.nan)
    points: npt.NDArray[np.float64] = PCA(2, svd_solver="randomized", random_state=seed).fit_transform(
        _unit(decoder).double().numpy()
    )
    return points


def promoted_tokens(
    decoder: Float[Tensor, "latents d_model"],
    norm_weight: Float[Tensor, "d_model"],
    unembedding: Float[Tensor, "d_vocab d_model"],
    *,
    k: int = 3,
    centred_norm: bool = False,
) -> Int64[Tensor, "latents k"]:
    """The tokens each latent promotes most on the direct path, as analysis.logit_effect has them, for many latents."""
    seen = decoder.float()
    if centred_norm:
        seen = seen - seen.mean(dim=1, keepdim=True)
    seen = seen * norm_weight.float()
    columns = unembedding.float().T
    found = [(block @ columns).topk(min(k, len(unembedding)), dim=1).indices for block in torch.split(seen, _BLOCK)]
    return torch.cat(found)


def _unit(decoder: Float[Tensor, "latents d_model"]) -> Float[Tensor, "latents d_model"]:
    rows = decoder.float()
    unit: Tensor = rows / rows.norm(dim=1, keepdim=True).clamp(min=1e-12)
    return unit
