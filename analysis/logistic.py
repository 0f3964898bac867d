"""Logistic regression with an L2 penalty for many feature tables at once (scikit-learn's objective, same numbers).

A layer is chosen inside every fold, and labels are shuffled again and again for the control: thousands of small fits
that differ in nothing but the layer. Newton's method takes them together, a hundred times faster than one by one.
"""

from typing import Final

import numpy as np
from jaxtyping import Bool, Float64
from scipy.special import expit

__all__ = ["fit_logistic", "standardised"]

ITERATIONS: Final = 50
HALVINGS: Final = 20
TOLERANCE: Final = 1e-10


def standardised(
    train: Float64[np.ndarray, "layers n k"], other: Float64[np.ndarray, "layers m k"]
) -> tuple[Float64[np.ndarray, "layers n k"], Float64[np.ndarray, "layers m k"]]:
    """Both tables by the mean and sd of ``train``; a feature that is constant there becomes 0 in both."""
    mean, sd = train.mean(axis=1, keepdims=True), train.std(axis=1, keepdims=True)
    constant = sd <= 1e-12 * np.maximum(np.abs(mean), 1e-300)
    scale = np.where(constant, np.inf, sd)
    return (train - mean) / scale, (other - mean) / scale


def fit_logistic(
    x: Float64[np.ndarray, "layers n k"], y: Bool[np.ndarray, " n"], c: float = 1.0
) -> Float64[np.ndarray, "layers k_plus_1"]:
    """Weights, then the intercept, that minimise ``c sum(log loss) + |weights|^2 / 2`` for each layer.

    Raises ValueError where ``y`` has one class or Newton's method does not converge.
    """
    if y.all() or not y.any():
        raise ValueError("a logistic regression needs both classes")
    layers, n, k = x.shape
    design = np.concatenate([x, np.ones((layers, n, 1))], axis=2)
    sign = np.where(y, 1.0, -1.0)
    penalty = np.append(np.full(k, 1 / c), 0.0)

    def loss(weights: Float64[np.ndarray, "layers k_plus_1"]) -> Float64[np.ndarray, " layers"]:
        margin = sign * np.einsum("lnk,lk->ln", design, weights)
        data = np.logaddexp(0, -margin).sum(axis=1)
        total: Float64[np.ndarray, " layers"] = data + (penalty * weights**2).sum(axis=1) / 2
        return total

    weights = np.zeros((layers, k + 1))
    current = loss(weights)
    for _ in range(ITERATIONS):
        probability = expit(np.einsum("lnk,lk->ln", design, weights))
        slope = np.einsum("lnk,ln->lk", design, probability - y) + penalty * weights
        curved = np.einsum("lnk,ln,lnj->lkj", design, probability * (1 - probability), design) + np.diag(penalty)
        step = np.linalg.solve(curved, slope[:, :, None])[:, :, 0]
        if np.abs(slope * step).sum(axis=1).max() < TOLERANCE:
            return weights
        size = np.ones(layers)
        for _ in range(HALVINGS):
            proposed = weights - size[:, None] * step
            after = loss(proposed)
            worse = after > current + 1e-12 * np.abs(current)
            if not worse.any():
                break
            size = np.where(worse, size / 2, size)
        weights, current = proposed, after
    raise ValueError("the logistic regression did not converge: features must be finite and standardised")
