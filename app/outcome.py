"""What a changed text did to a run, in a few figures: both runs read on the positions they share. No streamlit."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.alignment import Alignment
from probes.runner import RunResult

__all__ = ["Largest", "Outcome", "outcome"]


@dataclass(frozen=True, slots=True)
class Largest:
    """The largest activation of a run by size, and where it stands."""

    value: float
    point: int
    position: int
    dimension: int

    @property
    def place(self) -> tuple[int, int, int]:
        return self.point, self.position, self.dimension


@dataclass(frozen=True, slots=True)
class Outcome:
    """Pairs (A, B); None where a run does not have the figure. ``scored`` is how many tokens each perplexity is of."""

    perplexity: tuple[float | None, float | None]
    scored: tuple[int, int]
    largest: tuple[Largest | None, Largest | None]
    sinks: tuple[float | None, float | None]


def outcome(a: RunResult, b: RunResult, alignment: Alignment | None) -> Outcome:
    """Read two runs. Perplexities are of the aligned tokens that both runs score, or, without an alignment, of all
    tokens that each scores."""
    losses = [_losses(run.table("token_metrics")) for run in (a, b)]
    if alignment is not None:
        pairs = [(i, j) for i, j in alignment.pairs if i in losses[0] and j in losses[1]]
        losses = [{i: losses[0][i] for i, _ in pairs}, {j: losses[1][j] for _, j in pairs}]
    perplexities = [_perplexity(values) for values in losses]
    return Outcome(
        (perplexities[0], perplexities[1]),
        (len(losses[0]), len(losses[1])),
        (_largest(a.table("massive")), _largest(b.table("massive"))),
        (_sinks(a.table("head_metrics")), _sinks(b.table("head_metrics"))),
    )


def _losses(tokens: pd.DataFrame) -> dict[int, float]:
    if tokens.empty:
        return {}
    rows = tokens[(tokens["metric"] == "nll") & tokens["value"].notna()]
    return dict(zip(rows["pos"].astype(int), rows["value"].astype(float), strict=True))


def _perplexity(losses: dict[int, float]) -> float | None:
    return float(np.exp(np.mean(list(losses.values())))) if losses else None


def _largest(massive: pd.DataFrame) -> Largest | None:
    values = massive["value"].astype(float).abs() if not massive.empty else pd.Series(dtype=float)
    if values.notna().sum() == 0:
        return None
    row = massive.loc[values.idxmax()]
    return Largest(float(row["value"]), int(row["layer"]), int(row["pos"]), int(row["dim"]))


def _sinks(heads: pd.DataFrame) -> float | None:
    """The share of all heads that are sinks; None where that is undefined (short texts)."""
    if heads.empty:
        return None
    flags = heads.loc[heads["metric"] == "is_sink", "value"].dropna()
    return None if flags.empty else float(flags.astype(float).mean())
