"""Matched: spectra at one number of tokens, so that prompts of different lengths can be compared (core.md 1.2)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import pandas as pd
import torch
from torch import Tensor

from analysis.alpha import ESTIMATORS, WINDOWS, Estimator, RankWindow
from analysis.descriptors import describe
from analysis.matched import DRAWS, alpha_of, matched_spectra, matched_starts, mean_over_draws
from analysis.measured import Measured, undefined
from analysis.nulls import gaussian_null, permuted_null
from analysis.preparation import HEADLINE, PREPARATIONS, RAW_MASKS, Preparation, prepare
from analysis.spectrum import Spectrum, spectra
from analysis.windows import MIN_WINDOW
from probes.checks import require, whole
from probes.errors import BadRequest
from probes.parallel import in_parallel, n_workers
from probes.probe import Context, ProbeSpec, Result

if TYPE_CHECKING:
    from probes.model.capture import Capture
    from probes.model.loaded import LoadedModel, ModelFacts

__all__ = ["CONVENTIONS", "DESCRIPTORS", "Params", "alpha_name", "compatible", "cost", "run", "spec"]

CONVENTIONS: tuple[tuple[Preparation, RankWindow, Estimator], ...] = tuple(
    (prep, window, estimator) for prep in PREPARATIONS for window in WINDOWS for estimator in ESTIMATORS
)
DESCRIPTORS = ("erank_sigma", "participation_ratio", "stable_rank", "spectral_entropy", "anisotropy", "top1_energy")
_LONGEST = 1 << 20
_NULLS = 8  # permuted matrices a point: shared out among the windows


@dataclass(frozen=True)
class Params:
    """``n`` tokens a window; ``draws`` windows a prompt, placed by ``seed``."""

    __no_type_check__ = True  # values come from people: they are refused in a sentence, not by a type hook

    n: int = 32
    draws: int = DRAWS
    seed: int = 0

    def __post_init__(self) -> None:
        n = whole(self.n) and MIN_WINDOW <= self.n <= _LONGEST
        require(n, "matched.n", f"a whole number from {MIN_WINDOW} to {_LONGEST}", self.n)
        draws = whole(self.draws) and 1 <= self.draws <= 1000
        require(draws, "matched.draws", "a whole number from 1 to 1000", self.draws)
        seed = whole(self.seed) and self.seed < 2**32
        require(seed, "matched.seed", "a whole number from 0 to 4294967295", self.seed)


spec = ProbeSpec(
    name="matched",
    version=1,
    question="What would a spectrum be if every prompt had the same number of tokens?",
    sites=frozenset({"resid"}),
    reductions=frozenset({"column_sum"}),
    tables=("layer_metrics",),
)


def compatible(model: LoadedModel) -> str | None:
    return None


def cost(params: Params, facts: ModelFacts, n_tokens: int) -> int:
    """Float64 copies of the prepared matrices of the points in work and their windows' Gram matrices, and the rows."""
    n = min(params.n, n_tokens)
    at_work = n_workers() * (8 * n_tokens * facts.d_model + n_tokens**2 + 4 * params.draws * n * n) * 8
    return at_work + (facts.n_layers + 1) * (len(CONVENTIONS) + 8) * 80


def run(capture: Capture, params: Params, context: Context) -> Result:
    """``layer_metrics`` at every point, each the mean over windows of ``n`` kept tokens; ``n_used`` is ``n``.

    Alpha under every convention (:func:`alpha_name`), the descriptors of the headline preparation, and the alpha of both
    nulls: ``alpha_null`` of windows with permuted columns, ``alpha_null_iid`` of Gaussian noise. Raises BadRequest where
    a mask leaves fewer than ``n`` tokens.
    """
    masks = {prep: getattr(capture.masks, RAW_MASKS.get(prep, context.mask)) for prep in PREPARATIONS}
    kept = min(int(mask.sum()) for mask in masks.values())
    if params.n > kept:
        raise BadRequest(
            f"matched.n must be at most the {kept} tokens that every mask keeps of this text, not {params.n}."
        )
    last = capture.model.facts.n_layers
    rows: list[tuple[int, str, float, int, str]] = []
    for point, found in enumerate(in_parallel(partial(_at_point, capture, params, masks), range(last + 1))):
        context.progress.step(point / (last + 1), f"matched spectra, point {point} of {last}")
        rows += [(point, name, one.value, one.n_used, one.status) for name, one in found.items()]
    return Result({"layer_metrics": pd.DataFrame(rows, columns=["layer", "metric", "value", "n_used", "status"])}, {})


def alpha_name(prep: Preparation, window: RankWindow, estimator: Estimator) -> str:
    """The metric of a convention: ``alpha_sigma``, then ranks, ``_weighted`` and the raw preparation where they differ."""
    ranks = "" if window == "all" else f"_{window}"
    weighted = "" if estimator == "slope" else f"_{estimator}"
    return f"alpha_sigma{ranks}{weighted}" + ("" if prep == HEADLINE else f"@{prep}")


def _at_point(capture: Capture, params: Params, masks: dict[Preparation, Tensor], point: int) -> dict[str, Measured]:
    resid = capture.resid(point)[None]
    windows: dict[Preparation, list[Spectrum]] = {}
    for prep, keep in masks.items():
        normed = prep == HEADLINE
        [windows[prep]] = matched_spectra(resid, params.n, keep, normed=normed, draws=params.draws, seed=params.seed)
    metrics = {
        alpha_name(prep, window, estimator): mean_over_draws(windows[prep], alpha_of(window, estimator))
        for prep, window, estimator in CONVENTIONS
    }
    for name in DESCRIPTORS:
        metrics[name] = mean_over_draws(windows[HEADLINE], partial(_descriptor, name))
    metrics["alpha_null"] = _permuted(resid[0], params, masks[HEADLINE])
    iid = gaussian_null(params.n, resid.shape[-1]).alpha
    metrics["alpha_null_iid"] = (
        Measured(iid, params.n, metrics["alpha_null"].status) if iid == iid else undefined("not_applicable", params.n)
    )
    return metrics


def _descriptor(name: str, spectrum: Spectrum) -> Measured:
    described = describe(spectrum)
    return Measured(getattr(described, name), spectrum.n, described.status)


def _permuted(resid: Tensor, params: Params, keep: Tensor) -> Measured:
    """Alpha of the windows with each column permuted over their tokens, some draws of each window."""
    starts = matched_starts(int(keep.sum()), params.n, params.draws, params.seed).tolist()
    share = max(2, -(-_NULLS // len(starts)))
    found = []
    for place, x in enumerate(_windows(resid, keep, starts, params.n)):
        [observed] = spectra([x])
        null = permuted_null(x, observed, draws=share, seed=params.seed + place)
        if null.status not in ("ok", "low_confidence"):
            return undefined(null.status, params.n)
        found.append(null)
    alpha = sum(null.alpha for null in found) / len(found)
    return Measured(alpha, params.n, found[0].status)


def _windows(resid: Tensor, keep: Tensor, starts: list[int], n: int) -> Iterator[Tensor]:
    places = keep.nonzero().flatten()
    for start in starts[:_NULLS]:
        own = torch.zeros_like(keep)
        own[places[start : start + n]] = True
        yield prepare(resid, own, normed=True)
