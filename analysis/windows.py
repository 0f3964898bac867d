"""Alpha of the tokens ending at each position, at every residual point (core.md 1.5).

The uncentred Gram matrix of all tokens is formed once a point; the spectrum of a window is that of its block, doubly
centred (``J G J`` with ``J = I - 11^T / w``), which equals subtracting the window's own mean row (core.md 1.1).
"""

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor

from analysis.alpha import RankFit, fit_spectrum
from analysis.preparation import prepare
from analysis.spectrum import Spectrum, undefined_spectrum, usable

__all__ = ["CHUNK_BYTES", "MIN_WINDOW", "alpha_windows", "window_fits", "window_spectra"]

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
    divides each row by its RMS first. A point with a non-finite state among the kept tokens is NaN throughout. Raises
    ValueError for a window below 5 or longer than the text.
    """
    points, tokens, _ = resid.shape
    alphas = np.full((points, tokens), np.nan)
    for point in range(points):
        for last, fit in window_fits(resid[point], w, keep, normed=normed).items():
            alphas[point, last] = fit.alpha
    return alphas


def window_fits(
    resid: Float[Tensor, "tokens d_model"], w: int, keep: Bool[Tensor, " tokens"], *, normed: bool
) -> dict[int, RankFit]:
    """The fit of alpha in one layer, by the last token of its window; windows with too few kept tokens are left out.

    Otherwise as :func:`alpha_windows`.
    """
    if not MIN_WINDOW <= w <= len(resid):
        raise ValueError(f"the window must be between {MIN_WINDOW} and the {len(resid)} tokens of the text, not {w}")
    enough = torch.nonzero(keep.unfold(0, w, 1).sum(dim=1) >= max(4, w / 2)).flatten()
    rows = prepare(resid, torch.ones_like(keep), normed=normed, centre=False)
    found = window_spectra(rows, enough, w, keep)
    return {start + w - 1: fit_spectrum(spectrum) for start, spectrum in zip(enough.tolist(), found, strict=True)}


def window_spectra(
    rows: Float64[Tensor, "tokens d_model"],
    starts: Int64[Tensor, " windows"],
    w: int,
    keep: Bool[Tensor, " tokens"],
    *,
    centred: bool = True,
) -> list[Spectrum]:
    """The spectrum of the kept rows among start..start+w-1 for each start, less their own mean if ``centred``."""
    d = rows.shape[1]
    kept = keep.unfold(0, w, 1)[starts]
    sizes = kept.sum(dim=1).tolist()
    rows = torch.where(keep[:, None], rows, torch.zeros_like(rows))
    if not bool(rows.isfinite().all()):
        return [undefined_spectrum("non_finite", n, d, centred=centred) for n in sizes]
    if centred:
        rows = rows - rows[keep].mean(dim=0)  # no window changes, and a large common mean costs no digits
    whole = rows @ rows.T
    found = []
    for part in torch.split(torch.arange(len(starts)), max(1, CHUNK_BYTES // (w * w * 8 * 4))):
        eigenvalues = _window_eigenvalues(whole, starts[part], kept[part], w, centred)
        for i, values in zip(part.tolist(), eigenvalues, strict=True):
            s = np.sqrt(usable(values, sizes[i], d, centred=centred))
            found.append(Spectrum(s, sizes[i], d, centred, "ok" if s.size else "rank_deficient"))
    return found


def _window_eigenvalues(
    whole: Float64[Tensor, "tokens tokens"],
    starts: Int64[Tensor, " windows"],
    kept: Bool[Tensor, "windows w"],
    w: int,
    centred: bool,
) -> Float64[np.ndarray, "windows w"]:
    """Eigenvalues (descending) of each window's Gram block; rows and columns that are not kept are zero."""
    index = starts[:, None] + torch.arange(w)
    mask = kept.to(torch.float64)
    pairs = mask[:, :, None] * mask[:, None, :]
    blocks = whole[index[:, :, None], index[:, None, :]] * pairs
    if centred:
        n = mask.sum(1)
        row_mean = blocks.sum(2) / n[:, None]
        overall = (row_mean.sum(1) / n)[:, None, None]
        blocks = (blocks - row_mean[:, :, None] - row_mean[:, None, :] + overall) * pairs
    eigenvalues: Float64[np.ndarray, "windows w"] = torch.linalg.eigvalsh(blocks).flip(1).cpu().numpy()
    return eigenvalues
