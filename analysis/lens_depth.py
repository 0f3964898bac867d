"""When the lens decides, and how it gets there (docs/methods/lens.md)."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from analysis.measured import Measured, undefined

__all__ = ["Convergence", "convergence", "prediction_depth"]


@dataclass(frozen=True, slots=True)
class Convergence:
    """How one position's prediction forms over points 0..L.

    ``monotonicity``: share of the L steps at which the cross-entropy of the final argmax falls.
    ``rate``: minus the slope of ln KL(p_L || p_l) a point, over the second half of the points but L (there KL is 0).
    ``area``: area under the cross-entropy curve over relative depth 0..1, in nats.
    ``first_nat``: first point at which that cross-entropy is below 1 nat; undefined if it never is.
    """

    monotonicity: Measured
    rate: Measured
    area: Measured
    first_nat: Measured


def prediction_depth(top1: Int64[Tensor, "points positions"]) -> Int64[Tensor, " positions"]:
    """The smallest point from which on every argmax is the final argmax (after Baldock et al. 2021)."""
    differs = top1 != top1[-1]
    after = torch.arange(1, top1.shape[0] + 1)[:, None]
    return (differs * after).amax(0)


def convergence(ce_final: Float[Tensor, " points"], kl: Float[Tensor, " points"]) -> Convergence:
    """Summarise one position by its cross-entropy of the final argmax and its KL to point L, in nats at points 0..L."""
    ce, divergence = ce_final.double().numpy(), kl.double().numpy()
    n_points = len(ce)
    if n_points < 2:
        missing = undefined("not_applicable", n_points)
        return Convergence(missing, missing, missing, missing)
    if not (np.isfinite(ce).all() and np.isfinite(divergence).all()):
        missing = undefined("non_finite", n_points)
        return Convergence(missing, missing, missing, missing)
    n_steps = n_points - 1
    below = np.flatnonzero(ce < 1.0)
    return Convergence(
        monotonicity=Measured(float((np.diff(ce) < 0).mean()), n_steps),
        rate=_rate(divergence),
        area=Measured(float(np.trapezoid(ce, dx=1.0 / n_steps)), n_points),
        first_nat=Measured(float(below[0]), n_points) if below.size else undefined("not_applicable", n_points),
    )


def _rate(kl: np.ndarray) -> Measured:
    """Least squares over points ceil(L/2)..L-1 with KL above 0; at least three of them."""
    last = len(kl) - 1
    points = np.arange((last + 1) // 2, last)
    points = points[kl[points] > 0]
    if points.size < 3:
        return undefined("not_applicable", int(points.size))
    return Measured(float(-np.polyfit(points, np.log(kl[points]), 1)[0]), int(points.size))
