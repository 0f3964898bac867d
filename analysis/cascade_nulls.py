"""What a cascade would be without computation: walks of states, and the same gradients shifted (core.md 1.5)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor

from analysis.cascade import by_distance, cascade, standard_gradients
from analysis.inference import percentile_interval
from analysis.windows import alpha_windows

__all__ = ["SHIFTS", "ShiftNull", "random_walk_null", "time_shift_null", "turned_null"]

SHIFTS: Final = 1000
WALKS: Final = 4


@dataclass(frozen=True, eq=False)
class ShiftNull:
    """rho by distance 1..L when every layer's gradient is shifted by its own random amount along the text.

    ``mean``, ``low`` and ``high`` (95 %) over the shifts; ``p`` is one-sided, (1 + shifts at least as high as observed)
    / (1 + shifts). NaN where no prompt has a cascade.
    """

    mean: Float64[np.ndarray, " distances"]
    low: Float64[np.ndarray, " distances"]
    high: Float64[np.ndarray, " distances"]
    p: Float64[np.ndarray, " distances"]
    n_prompts: int


def random_walk_null(
    resid: Float[Tensor, "points tokens d_model"],
    w: int,
    keep: Bool[Tensor, " tokens"],
    *,
    normed: bool,
    start: int = 0,
    walks: int = WALKS,
    seed: int = 0,
) -> Float64[np.ndarray, "walks distances"]:
    """rho of random walks that start as large as the states of point 0 and take steps as large as the model's.

    Every token keeps the norm of its own increment at every block, hence each layer the measured ||H_(l+1) - H_l||_F;
    directions are random. Windows, mask and preparation are those of the data. NaN rows where a walk has no cascade.
    """
    steps = torch.cat([resid[:1].double(), resid.double().diff(dim=0)])
    sizes = steps.norm(dim=-1, keepdim=True)
    generator = torch.Generator().manual_seed(seed)
    found = []
    for _ in range(walks):
        walk = torch.randn(resid.shape, generator=generator, dtype=torch.float64)
        walk *= sizes / walk.norm(dim=-1, keepdim=True)
        walk = walk.cumsum(dim=0)
        found.append(cascade(alpha_windows(walk, w, keep, normed=normed), start).rho)
    return np.stack(found)


def turned_null(
    resid: Float[Tensor, "points tokens d_model"],
    w: int,
    keep: Bool[Tensor, " tokens"],
    *,
    normed: bool,
    start: int = 0,
    seed: int = 0,
) -> Float64[np.ndarray, " distances"]:
    """rho where the whole update of every block is turned by a rotation of its own, drawn uniformly.

    A stricter walk: within each update the tokens keep their norms and the angles between them, so that words that stand
    alike still move alike; only the way one block's update stands to the stream and to other blocks' is lost. NaN where
    the walk has no cascade.
    """
    generator = torch.Generator().manual_seed(seed)
    walk = [resid[0].double()]
    for update in resid.double().diff(dim=0):
        q, r = torch.linalg.qr(torch.randn(resid.shape[2], resid.shape[2], generator=generator, dtype=torch.float64))
        walk.append(walk[-1] + update @ (q * r.diagonal().sign()))
    return cascade(alpha_windows(torch.stack(walk), w, keep, normed=normed), start).rho


def time_shift_null(
    alphas: Sequence[Float64[np.ndarray, "points _"]], start: Sequence[int], *, shifts: int = SHIFTS, seed: int = 0
) -> ShiftNull:
    """Shift the gradients of each layer circularly, each prompt and layer on its own, and average rho over prompts.

    A shift keeps the autocorrelation that overlapping windows make and takes the common time away. ``start`` is the
    first token of each prompt that counts. The correlation of two layers at every relative shift comes from one
    Fourier transform.
    """
    rng = np.random.default_rng(seed)
    n_distances = len(alphas[0]) - 1 if alphas else 0
    total, observed, counts = np.zeros((shifts, n_distances)), np.zeros(n_distances), np.zeros(n_distances)
    n_prompts = 0
    for alpha, first in zip(alphas, start, strict=True):
        g, layers, _, status = standard_gradients(alpha[:, first:])
        if status != "ok":
            continue
        n_prompts += 1
        correlation = np.full((len(alpha), len(alpha)), np.nan)
        correlation[np.ix_(layers, layers)] = g @ g.T
        rho, pairs = by_distance(correlation)
        shifted = _shifted(g, layers, n_distances, shifts, rng)
        here = pairs > 0
        observed[here] += rho[here]
        total[:, here] += shifted[:, here]
        counts += here
    counts = np.where(counts > 0, counts, np.nan)
    means, observed = total / counts, observed / counts
    low, high = percentile_interval(means)
    extreme = (means >= observed - 1e-12).sum(axis=0)
    p = np.where(np.isnan(observed), np.nan, (1 + extreme) / (1 + shifts))
    return ShiftNull(means.mean(axis=0), low, high, p, n_prompts)


def _shifted(
    g: Float64[np.ndarray, "layers steps"],
    layers: np.ndarray,
    n_distances: int,
    shifts: int,
    rng: np.random.Generator,
) -> Float64[np.ndarray, "shifts distances"]:
    """rho by distance for each draw of one offset a layer."""
    n_layers, steps = g.shape
    spectrum = np.fft.rfft(g, axis=1)
    upper, lower = np.triu_indices(n_layers, 1)
    at_lag = np.fft.irfft(spectrum[upper] * spectrum[lower].conj(), n=steps, axis=1)  # sum_t g_a(t + s) g_b(t)
    offsets = rng.integers(steps, size=(shifts, n_layers))
    lag = (offsets[:, lower] - offsets[:, upper]) % steps
    drawn = at_lag[np.arange(len(upper)), lag]
    distance = layers[lower] - layers[upper] - 1
    belongs = np.zeros((len(upper), n_distances))
    belongs[np.arange(len(upper)), distance] = 1
    sums: Float64[np.ndarray, "shifts distances"] = drawn @ belongs / np.maximum(belongs.sum(axis=0), 1)
    return sums
