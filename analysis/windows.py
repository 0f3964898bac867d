"""Alpha of the tokens ending at each position, at every residual point (core.md 1.5).

The uncentred Gram matrix of all tokens is formed once a point; the spectrum of a window is that of its block, doubly
centred (``J G J`` with ``J = I - 11^T / w``), which equals subtracting the window's own mean row (core.md 1.1).
"""

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor

from analysis.alpha import fit_spectrum
from analysis.spectrum import Spectrum, usable

__all__ = ["alpha_windows"]

MIN_WINDOW = 5
CHUNK_BYTES = 256 * 2**20


def alpha_windows(
    resid: Float[Tensor, "points tokens d_model"],
    w: int,
    keep: Bool[Tensor, " tokens"],
    *,
    normed: bool,
) -> Float64[np.ndarray, "points tokens"]:
    """Alpha (all usable ranks) of tokens t-w+1..t, NaN for t < w-1 and where it is undefined.

    Tokens outside ``keep`` are dropped from each window, which is NaN if fewer than max(4, w/2) remain. ``normed``
    divides each row by its RMS first. Raises ValueError for a window below 5 or longer than the text.
    """
    points, tokens, d = resid.shape
    if not MIN_WINDOW <= w <= tokens:
        raise ValueError(f"the window must be between {MIN_WINDOW} and the {tokens} tokens of the text, not {w}")
    alphas = np.full((points, tokens), np.nan)
    kept = keep.unfold(0, w, 1)
    sizes = kept.sum(dim=1)
    enough = torch.nonzero(sizes >= max(4, w / 2)).flatten()
    for point in range(points):
        rows = resid[point].to(torch.float64)
        if normed:
            rms = rows.square().mean(dim=1, keepdim=True).sqrt()
            rows = rows / torch.where(rms == 0, torch.ones_like(rms), rms)
        rows = rows - rows[keep].mean(dim=0)  # no window changes, and a large common mean costs no digits
        whole = rows @ rows.T
        for chunk in torch.split(enough, max(1, CHUNK_BYTES // (w * w * 8 * 4))):
            eigenvalues = _window_eigenvalues(whole, chunk, kept[chunk], w)
            for start, n, values in zip(chunk.tolist(), sizes[chunk].tolist(), eigenvalues, strict=True):
                s = np.sqrt(usable(values, n, d, centred=True))
                spectrum = Spectrum(s, n, d, True, "ok" if s.size else "rank_deficient")
                alphas[point, start + w - 1] = fit_spectrum(spectrum).alpha
    return alphas


def _window_eigenvalues(
    whole: Float64[Tensor, "tokens tokens"], starts: Tensor, kept: Bool[Tensor, "windows w"], w: int
) -> Float64[np.ndarray, "windows w"]:
    """Eigenvalues (descending) of each window's centred Gram block; rows and columns that are not kept are zero."""
    index = starts[:, None] + torch.arange(w)
    mask = kept.to(torch.float64)
    pairs = mask[:, :, None] * mask[:, None, :]
    blocks = whole[index[:, :, None], index[:, None, :]] * pairs
    n = mask.sum(1)
    row_mean = blocks.sum(2) / n[:, None]
    overall = (row_mean.sum(1) / n)[:, None, None]
    centred = (blocks - row_mean[:, :, None] - row_mean[:, None, :] + overall) * pairs
    eigenvalues: Float64[np.ndarray, "windows w"] = torch.linalg.eigvalsh(centred).flip(1).cpu().numpy()
    return eigenvalues
