"""Cascade: how alike layers move along the text, beside walks of states and gradients shifted in time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor

from analysis.cascade import Cascade, cascade
from analysis.cascade_fit import Decay, fit_decay
from analysis.cascade_nulls import SHIFTS, random_walk_null, time_shift_null, turned_null
from analysis.measured import Measured, Status, undefined
from analysis.windows import alpha_windows
from probes.checks import require, whole
from probes.errors import BadRequest
from probes.parallel import in_parallel, n_workers
from probes.probe import Context, ProbeSpec, Result
from probes.token_spectra import WINDOW, Rows, check_window
from probes.token_spectra import Params as Windows

if TYPE_CHECKING:
    from probes.model.capture import Capture
    from probes.model.loaded import LoadedModel, ModelFacts

__all__ = ["Params", "compatible", "cost", "run", "spec"]

_NULLS: Mapping[str, Callable[..., Float64[np.ndarray, " distances"]]] = {
    "walk": lambda *given, **how: random_walk_null(*given, **how, walks=1)[0],
    "turned": turned_null,
}


@dataclass(frozen=True)
class Params:
    """``window`` and ``rows`` as of token_spectra; windows that end before the token ``start`` take no part (give the first
    token of a response). ``walks`` random walks and as many walks of turned updates from ``seed``."""

    __no_type_check__ = True  # values come from people: refused in a sentence, not by the type hook of the tests

    window: int = WINDOW
    rows: Rows = "normed"
    start: int = 0
    walks: int = 4
    seed: int = 0

    def __post_init__(self) -> None:
        Windows(self.window, self.rows)
        require(whole(self.start), "cascade.start", "a whole number from 0", self.start)
        require(whole(self.walks) and 2 <= self.walks <= 50, "cascade.walks", "a whole number from 2 to 50", self.walks)
        require(whole(self.seed) and self.seed < 2**31, "cascade.seed", "a whole number from 0", self.seed)


spec = ProbeSpec(
    name="cascade",
    version=2,
    question="How far apart are layers that still move together along the text, and is that more than their states share anyway?",
    sites=frozenset({"resid"}),
    reductions=frozenset({"column_sum"}),
    tables=("layer_metrics",),
)


def compatible(model: LoadedModel) -> str | None:
    return None


def cost(params: Params, facts: ModelFacts, n_tokens: int) -> int:
    """Float64 states of the text, their steps and a walk, for each walk in work."""
    states = (facts.n_layers + 1) * max(1, n_tokens - max(0, params.start - params.window + 1)) * facts.d_model * 8
    return (1 + 3 * min(params.walks, n_workers())) * states + 4 * n_tokens * params.window**2 * 8


def run(capture: Capture, params: Params, context: Context) -> Result:
    """Rows of ``layer_metrics`` whose ``layer`` is the **distance** between two points, 1 to L: ``cascade_rho``; mean and range
    over the random walks (``cascade_rho_walk``, ``_low``, ``_high``) and over walks of turned updates
    (``cascade_rho_turned``, ...); mean and 95 % band of the shifted gradients
    (``cascade_rho_shift``, ``_low``, ``_high``) and their one-sided p (``cascade_p``). ``n_used`` counts pairs of points.

    Without a layer, of the fit rho = A exp(-rate distance): ``cascade_rate`` (1/tau; 0 is no decay),
    ``cascade_amplitude``, ``cascade_r2``, and ``cascade_rate_walk``, ``cascade_rate_turned`` of the mean of the walks;
    ``n_used`` counts windows.
    Where there is no cascade all are missing with its reason. Raises BadRequest for a window longer than the text or a
    start outside it.
    """
    check_window(params.window, capture.n_tokens, "cascade.window")
    if params.start >= capture.n_tokens:
        raise BadRequest(f"cascade.start must be from 0 to {capture.n_tokens - 1} here, not {params.start}.")
    first = min(max(0, params.start - params.window + 1), capture.n_tokens - params.window)
    keep = capture.mask(context.mask)[first:]
    points = range(capture.model.facts.n_layers + 1)
    resid = torch.stack([capture.resid(point)[first:] for point in points])
    alpha = _alphas(resid, keep, params, context)
    found = cascade(alpha, params.start - first)
    if found.status != "ok":
        return Result({"layer_metrics": _nothing(found)})
    ran = _walks(resid, keep, params, params.start - first, context)
    shifted = time_shift_null([alpha], [params.start - first], shifts=SHIFTS, seed=params.seed)
    by_distance = {"cascade_rho": found.rho}
    for name, rhos in ran.items():
        by_distance |= {
            f"cascade_rho_{name}": rhos.mean(axis=0),
            f"cascade_rho_{name}_low": rhos.min(axis=0),
            f"cascade_rho_{name}_high": rhos.max(axis=0),
        }
    by_distance |= {
        "cascade_rho_shift": shifted.mean,
        "cascade_rho_shift_low": shifted.low,
        "cascade_rho_shift_high": shifted.high,
        "cascade_p": shifted.p,
    }
    rows: list[tuple[int | None, str, Measured]] = [
        (distance + 1, name, _measured(float(value), int(found.pairs[distance]), "rank_deficient"))
        for name, values in by_distance.items()
        for distance, value in enumerate(values)
    ]
    own = fit_decay(found.rho[None], found.pairs)
    beside = {name: fit_decay(rhos.mean(axis=0)[None], found.pairs) for name, rhos in ran.items()}
    rows += [(None, name, measured) for name, measured in _fit(own, beside, found).items()]
    return Result({"layer_metrics": _frame(rows)})


def _alphas(
    resid: Float[Tensor, "points tokens d_model"], keep: Bool[Tensor, " tokens"], params: Params, context: Context
) -> Float64[np.ndarray, "points tokens"]:
    normed, parts = params.rows == "normed", []
    for part in in_parallel(lambda one: alpha_windows(one[None], params.window, keep, normed=normed), list(resid)):
        parts.append(part)
        context.progress.step(0.2 * len(parts) / len(resid), "alpha of every window")
    return np.concatenate(parts)


def _walks(
    resid: Float[Tensor, "points tokens d_model"],
    keep: Bool[Tensor, " tokens"],
    params: Params,
    start: int,
    context: Context,
) -> dict[str, Float64[np.ndarray, "walks distances"]]:
    """rho of every walk of each kind, several at once."""
    todo = [(name, params.seed + i) for name in _NULLS for i in range(params.walks)]
    found: dict[str, list[Float64[np.ndarray, " distances"]]] = {name: [] for name in _NULLS}

    def walk(one: tuple[str, int]) -> Float64[np.ndarray, " distances"]:
        name, seed = one
        return _NULLS[name](resid, params.window, keep, normed=params.rows == "normed", start=start, seed=seed)

    walked = in_parallel(walk, todo)
    for done, ((name, _), rho) in enumerate(zip(todo, walked, strict=True), 1):
        context.progress.step(0.2 + 0.75 * done / len(todo), f"walk {done} of {len(todo)}")
        found[name].append(rho)
    return {name: np.stack(rhos) for name, rhos in found.items()}


def _fit(own: Decay, beside: Mapping[str, Decay], found: Cascade) -> dict[str, Measured]:
    values = {"cascade_rate": own, **{f"cascade_rate_{name}": one for name, one in beside.items()}}
    rates = {name: 1 / one.tau if one.tau else np.nan for name, one in values.items()}
    rates |= {"cascade_amplitude": own.amplitude, "cascade_r2": own.r2}
    return {name: _measured(float(value), found.n_windows, "not_applicable") for name, value in rates.items()}


def _measured(value: float, n_used: int, otherwise: Status) -> Measured:
    return undefined(otherwise, n_used) if np.isnan(value) else Measured(value, n_used)


def _nothing(found: Cascade) -> pd.DataFrame:
    """The refusal: how many windows there were, and why that is no cascade."""
    rows: list[tuple[int | None, str, Measured]] = [
        (distance, "cascade_rho", undefined(found.status)) for distance in range(1, len(found.rho) + 1)
    ]
    return _frame([*rows, (None, "cascade_rate", undefined(found.status, found.n_windows))])


def _frame(rows: list[tuple[int | None, str, Measured]]) -> pd.DataFrame:
    columns = [(layer, name, one.value, one.n_used, one.status) for layer, name, one in rows]
    frame = pd.DataFrame(columns, columns=["layer", "metric", "value", "n_used", "status"])
    return frame.astype({"layer": "Int64"})
