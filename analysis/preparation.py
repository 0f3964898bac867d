"""How a matrix of hidden states is prepared before its spectrum is taken (docs/methods/spectra.md).

The preparation decides the number that comes out, so every spectrum carries the name of the one it was made with.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor

__all__ = ["HEADLINE", "PREPARATIONS", "RAW_MASKS", "Preparation", "prepare"]

Preparation = Literal["normed", "raw_all", "raw_no_bos", "raw_no_sink"]

PREPARATIONS: tuple[Preparation, ...] = ("normed", "raw_all", "raw_no_bos", "raw_no_sink")

HEADLINE: Preparation = "normed"
"""The headline preparation: on the tokens of the mask the run asked for."""

RAW_MASKS: Mapping[Preparation, Literal["all", "no_bos", "no_sink"]] = MappingProxyType(
    {"raw_all": "all", "raw_no_bos": "no_bos", "raw_no_sink": "no_sink"}
)
"""The token mask each raw preparation is defined by."""


def prepare(
    resid: Float[Tensor, "tokens d_model"], keep: Bool[Tensor, " tokens"], *, normed: bool, centre: bool = True
) -> Float64[Tensor, "kept d_model"]:
    """The kept rows in float64, each divided by its RMS if ``normed``, then column-centred if ``centre``.

    A row of zeros stays zero (RMSNorm maps it to zero too). A column that is constant over the kept tokens is exactly
    zero after centring, so that repeated tokens have rank 0 and not a spectrum of rounding errors. Non-finite values
    pass through; the spectrum reports them.
    """
    rows = resid[keep.to(resid.device)].to(torch.float64)
    if normed:
        rms = rows.square().mean(dim=1, keepdim=True).sqrt()
        rows = rows / torch.where(rms == 0, torch.ones_like(rms), rms)
    if not centre or rows.shape[0] == 0:
        return rows
    constant = (rows == rows[0]).all(dim=0) & rows[0].isfinite()
    return torch.where(constant, torch.zeros_like(rows), rows - rows.mean(dim=0))
