"""Spectral: singular values of every residual point, the alphas and descriptors read off them, and their nulls."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from analysis.alpha import RankWindow, curvature, fit_spectrum
from analysis.descriptors import describe, matrix_entropy
from analysis.heavy_tail import alpha_tail
from analysis.marchenko_pastur import MPFit, covariance_eigenvalues, mp_fit
from analysis.measured import Measured, Status, undefined
from analysis.nulls import DRAWS, PermutedNull, gaussian_null, permuted_null
from analysis.preparation import HEADLINE, PREPARATIONS, RAW_MASKS, Preparation, prepare
from analysis.spectrum import Spectrum, spectra
from probes.checks import require, some_whole, whole
from probes.errors import BadRequest
from probes.memory import release
from probes.parallel import in_parallel, n_workers
from probes.probe import Context, ProbeSpec, Result

if TYPE_CHECKING:
    from probes.model.capture import Capture
    from probes.model.loaded import LoadedModel, ModelFacts

__all__ = ["NULL_CURVES", "Params", "compatible", "cost", "run", "spec"]

NULL_CURVES = ("mean", "low", "high", "level")
"""The rows of the tensor ``spectral_null`` at a point: mean, range over the draws, and 99 % level by rank."""

_DESCRIPTORS = (
    "erank_sigma", "participation_ratio", "stable_rank", "spectral_entropy", "anisotropy", "top1_energy",
)  # fmt: skip
_WINDOWED: dict[str, RankWindow] = {"alpha_sigma_11_100": "11_100", "alpha_sigma_lowrank": "lowrank"}


@dataclass(frozen=True)
class Params:
    """``points``: "all" or residual points. ``null_draws`` permutations, and as many Gaussian draws, from ``null_seed``.

    ``null_preparations``: raw preparations that get nulls and ``n_parallel`` besides the headline. ``centre`` False
    leaves column means in: with ``@raw_all`` that is the convention of arXiv 2604.15350.
    """

    __no_type_check__ = True  # values come from people: they are refused in a sentence, not by a type hook

    points: Literal["all"] | tuple[int, ...] = "all"
    null_draws: int = DRAWS
    null_seed: int = 0
    null_preparations: tuple[str, ...] = ()
    centre: bool = True

    def __post_init__(self) -> None:
        listed = some_whole(self.points)
        every = isinstance(self.points, str) and self.points == "all"
        require(listed or every, "spectral.points", '"all" or whole numbers from 0', self.points)
        draws = whole(self.null_draws) and 2 <= self.null_draws <= 1000
        require(draws, "spectral.null_draws", "a whole number from 2 to 1000", self.null_draws)
        seed = whole(self.null_seed) and self.null_seed < 2**32
        require(seed, "spectral.null_seed", "a whole number from 0 to 4294967295", self.null_seed)
        known = isinstance(self.null_preparations, tuple)
        known = known and all(isinstance(prep, str) and prep in RAW_MASKS for prep in self.null_preparations)
        require(known, "spectral.null_preparations", f"some of {', '.join(RAW_MASKS)}", self.null_preparations)
        require(isinstance(self.centre, bool), "spectral.centre", "true or false", self.centre)


spec = ProbeSpec(
    name="spectral",
    version=2,
    question="How is the variance of each layer spread over directions, and is that more than noise would give?",
    sites=frozenset({"resid"}),
    reductions=frozenset({"column_sum"}),
    tables=("layer_metrics", "spectra", "mp_outliers"),
)


def compatible(model: LoadedModel) -> str | None:
    return None


def cost(params: Params, facts: ModelFacts, n_tokens: int) -> int:
    """Float64 copies of the prepared matrices of the points in work, their Gram matrices, the rows and the null curves."""
    n_points = facts.n_layers + 1 if params.points == "all" else len(params.points)
    rank = min(n_tokens, facts.d_model)
    at_work = n_workers() * (8 * n_tokens * facts.d_model + 6 * rank * rank) * 8
    kept = n_points * rank * (len(PREPARATIONS) * 80 + (len(NULL_CURVES) + 1) * 8)
    return at_work + kept


def run(capture: Capture, params: Params, context: Context) -> Result:
    """``layer_metrics`` and ``spectra`` of four preparations at every point; ``n_used`` counts tokens, of
    ``alpha_tail``, ``tail_xmin`` and ``tail_ks`` eigenvalues in the tail.

    Tensors, indexed by point, NaN where there is nothing: ``spectral_null`` [points, 4, rank] holds singular values of
    the permuted headline matrix by `NULL_CURVES`, with ``@raw_...`` those of other preparations asked for;
    ``mp_eigenvalues`` [points, rank] the eigenvalues of the headline's correlation matrix, whose sum is the number of
    columns that entered. Raises BadRequest for a point that does not exist.
    """
    last = capture.model.facts.n_layers
    points = range(last + 1) if params.points == "all" else sorted(set(params.points))
    if points[-1] > last:
        raise BadRequest(f"spectral.points must be from 0 to {last}, not {points[-1]}")
    masks = {prep: getattr(capture.masks, RAW_MASKS.get(prep, context.mask)) for prep in PREPARATIONS}
    found: list[_Found] = []
    for at_point in in_parallel(partial(_at_point, capture, params, masks), points):
        context.progress.step(len(found) / len(points), f"spectra, point {points[len(found)]} of {last}")
        found.append(at_point)
        release()
    nulls = {prep: {at.point: at.nulls[prep] for at in found} for prep in found[0].nulls}
    tensors = {f"spectral_null{_suffix(prep)}": _by_point(curves, last + 1) for prep, curves in nulls.items()}
    tensors["mp_eigenvalues"] = _by_point({at.point: at.correlation[None] for at in found}, last + 1)[:, 0]
    rows = [(at.point, name, m.value, m.n_used, m.status) for at in found for name, m in at.metrics.items()]
    return Result(
        {
            "layer_metrics": pd.DataFrame(rows, columns=["layer", "metric", "value", "n_used", "status"]),
            "spectra": pd.concat([_spectra_rows(at) for at in found], ignore_index=True),
            "mp_outliers": pd.concat([_outlier_rows(at) for at in found], ignore_index=True),
        },
        tensors,
        _aspect_ratio(int(masks[HEADLINE].sum()), capture.model.facts.d_model),
    )


@dataclass(frozen=True)
class _Found:
    """One point: metrics by name, spectra and null curves [4, rank] by preparation, eigenvalues of the correlations."""

    point: int
    metrics: dict[str, Measured]
    spectra: dict[Preparation, Spectrum]
    nulls: dict[Preparation, np.ndarray]
    correlation: np.ndarray
    outlier_fit: MPFit


def _at_point(capture: Capture, params: Params, masks: dict[Preparation, Tensor], point: int) -> _Found:
    resid = capture.resid(point).to(capture.model.device)
    prepared = {
        prep: prepare(resid, keep, normed=prep == HEADLINE, centre=params.centre) for prep, keep in masks.items()
    }
    observed = dict(zip(prepared, spectra(prepared.values(), centred=params.centre), strict=True))
    nulls = {
        prep: permuted_null(prepared[prep], observed[prep], draws=params.null_draws, seed=params.null_seed)
        for prep in PREPARATIONS
        if prep == HEADLINE or prep in params.null_preparations
    }
    metrics: dict[str, Measured] = {}
    for prep, x in prepared.items():
        found = _metrics(observed[prep]) | _null_metrics(observed[prep], nulls.get(prep), params)
        found["matrix_entropy"] = matrix_entropy(x)
        metrics |= {name + _suffix(prep): value for name, value in found.items()}
    correlation, columns = covariance_eigenvalues(prepare(resid, masks[HEADLINE], normed=True))
    law = mp_fit(correlation, observed[HEADLINE].n, columns)
    fitted = law.status in ("ok", "low_confidence")
    outliers = float(law.n_outliers) if fitted else math.nan
    metrics["n_mp_outliers"] = _measured(outliers, observed[HEADLINE].n, law.status)
    return _Found(
        point,
        metrics,
        observed,
        {prep: np.stack([null.s, null.s_low, null.s_high, null.s_level]) for prep, null in nulls.items()},
        correlation,
        law,
    )


def _metrics(observed: Spectrum) -> dict[str, Measured]:
    """What one spectrum says by itself."""
    n, whole = observed.n, fit_spectrum(observed)
    bend = curvature(observed.s).value.value if observed.status == "ok" else math.nan
    tail = alpha_tail(observed.lam)
    tail_status = tail.status if observed.status == "ok" else observed.status
    described = describe(observed)
    fits = {name: fit_spectrum(observed, window) for name, window in _WINDOWED.items()}
    return {
        "alpha_sigma": _measured(whole.alpha, n, whole.status),
        **{name: _measured(fit.alpha, n, fit.status) for name, fit in fits.items()},
        "alpha_r2": _measured(whole.r2, n, whole.status),
        "alpha_curvature": _measured(bend, n, whole.status),
        "alpha_tail": _measured(tail.alpha, tail.n_tail, tail_status),
        "tail_xmin": _measured(tail.xmin, tail.n_tail, tail_status),
        "tail_ks": _measured(tail.ks, tail.n_tail, tail_status),
        **{name: _measured(getattr(described, name), n, described.status) for name in _DESCRIPTORS},
    }


def _null_metrics(observed: Spectrum, null: PermutedNull | None, params: Params) -> dict[str, Measured]:
    """Alpha of both nulls and the directions above the permuted one."""
    n = observed.n
    if null is None:
        return dict.fromkeys(("alpha_null", "alpha_null_iid", "n_parallel"), undefined("not_requested", n))
    iid, directions = math.nan, math.nan
    if null.status in ("ok", "low_confidence"):
        iid = gaussian_null(n, observed.d, params.null_draws, params.null_seed, centred=params.centre).alpha
    if null.n_parallel is not None:
        directions = float(null.n_parallel)
    return {
        "alpha_null": _measured(null.alpha, n, null.status),
        "alpha_null_iid": _measured(iid, n, null.status),
        "n_parallel": _measured(directions, n, observed.status),
    }


def _suffix(prep: Preparation) -> str:
    return "" if prep == HEADLINE else f"@{prep}"


def _measured(value: float, n_used: int, status: Status) -> Measured:
    """A number that is missing although its spectrum is there (R2 of a flat one) does not apply."""
    if not math.isnan(value):
        return Measured(value, n_used, status)
    return undefined("not_applicable" if status in ("ok", "low_confidence") else status, n_used)


def _spectra_rows(at: _Found) -> pd.DataFrame:
    parts = [
        pd.DataFrame({"layer": at.point, "prep": prep, "k": np.arange(1, found.rank + 1), "singular_value": found.s})
        for prep, found in at.spectra.items()
    ]
    return pd.concat(parts, ignore_index=True)


def _outlier_rows(at: _Found) -> pd.DataFrame:
    eigenvalues = at.correlation[: at.outlier_fit.n_outliers]
    ranks = np.arange(1, len(eigenvalues) + 1)
    columns = {"layer": at.point, "prep": HEADLINE, "k": ranks, "eigenvalue": eigenvalues}
    return pd.DataFrame(columns).assign(edge=at.outlier_fit.upper)


def _by_point(curves: dict[int, np.ndarray], n_points: int) -> Tensor:
    """Curves [kinds, rank] of some points as one tensor [points, kinds, rank], NaN where there is none."""
    kinds = len(next(iter(curves.values())))
    stacked = torch.full((n_points, kinds, max(curve.shape[1] for curve in curves.values())), math.nan).double()
    for point, curve in curves.items():
        stacked[point, :, : curve.shape[1]] = torch.from_numpy(curve)
    return stacked


def _aspect_ratio(n_tokens: int, width: int) -> tuple[str, ...]:
    if not 1 / 3 < n_tokens / width < 3:
        return ()
    return (
        f"Spectra: {n_tokens} tokens in {width} dimensions are within a factor of three, where alpha over all ranks "
        "depends on their ratio; compare texts of equal length only.",
    )
