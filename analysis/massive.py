"""Massive activations: single entries that dwarf a layer, their life, and who writes them (docs/methods, 3.1)."""

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor

from analysis.measured import Measured, Status, undefined

__all__ = [
    "CRITERIA",
    "MassivePoint",
    "Origin",
    "RogueDimensions",
    "birth_origin",
    "constancy",
    "life_spans",
    "massive_entries",
    "rogue_dimensions",
    "top_writers",
]

CRITERIA = ("strict", "relative", "robust")
_ABSOLUTE = 100.0
_RATIO = 1000.0
_ROBUST_FACTOR = 20.0
_ROBUST_TAIL = 0.001
_ROGUE_FACTOR = 20.0
_N_TOP = 3
_MAX_ENTRIES = 1000
_COLUMNS = ["pos", "dim", "value", "median", "ratio", *CRITERIA]


@dataclass(frozen=True, eq=False)
class MassivePoint:
    """The largest entries of one residual point.

    ``entries`` has the three largest and every flagged entry (``pos, dim, value, median, ratio, strict, relative,
    robust``), largest first, at most 1000; ``n_flagged`` counts them all, by criterion. ``median`` is of ``|H|``.
    ``status`` is ``not_applicable`` when the median is 0, and ``non_finite`` when there is a NaN or infinite entry:
    ``non_finite`` then gives the first (pos, dim), and nothing else is measured.
    """

    entries: pd.DataFrame
    top: Float64[Tensor, "3"]
    median: float
    n_flagged: dict[str, int]
    status: Status = "ok"
    non_finite: tuple[int, int] | None = None


@dataclass(frozen=True)
class Origin:
    """What attention and MLP added to one entry in the block that made it massive."""

    attn_delta: float
    mlp_delta: float
    mlp_share: Measured


@dataclass(frozen=True, eq=False)
class RogueDimensions:
    """Dimensions that are large at many tokens: ``share`` of tokens above 20 medians of ``|H|``, mean and sd."""

    share: Float64[Tensor, "d_model"]
    mean: Float64[Tensor, "d_model"]
    sd: Float64[Tensor, "d_model"]
    status: Status


def massive_entries(H: Float[Tensor, "tokens d_model"]) -> MassivePoint:
    """Flag the massive entries of one point by three criteria, never merged.

    ``strict``: ``|a| > 100`` and ``|a| >= 1000 median|H|`` (Sun et al. 2024). ``relative``: the ratio alone.
    ``robust``: ``|a| > 20`` times the 99.9 % quantile of ``|H|`` over all other dimensions.
    """
    bad = (~H.isfinite()).nonzero()
    if len(bad):
        pos, dim = bad[0].tolist()
        empty = pd.DataFrame(columns=_COLUMNS)
        missing = torch.full((_N_TOP,), math.nan, dtype=torch.float64)
        return MassivePoint(empty, missing, math.nan, dict.fromkeys(CRITERIA, 0), "non_finite", (pos, dim))
    d_model = H.shape[1]
    magnitude = H.abs().flatten()
    median = float(np.median(magnitude.numpy()))  # torch's own takes the lower of the two middle values
    if median > 0:
        relative = magnitude.double() >= _RATIO * median
        strict = relative & (magnitude > _ABSOLUTE)
        robust = _robust(H.abs()).flatten()
    else:
        strict = relative = robust = torch.zeros_like(magnitude, dtype=torch.bool)
    largest = magnitude.topk(min(_N_TOP, len(magnitude)))
    top = torch.full((_N_TOP,), math.nan, dtype=torch.float64)
    top[: len(largest.values)] = largest.values.double()
    listed = relative | robust
    listed[largest.indices] = True
    where = listed.nonzero()[:, 0]
    where = where[magnitude[where].argsort(descending=True, stable=True)][:_MAX_ENTRIES]
    values = H.flatten()[where].double().numpy()
    flags = {"strict": strict, "relative": relative, "robust": robust}
    entries = pd.DataFrame(
        {
            "pos": (where // d_model).numpy(),
            "dim": (where % d_model).numpy(),
            "value": values,
            "median": median,
            "ratio": np.abs(values) / median if median > 0 else math.nan,
            **{name: flag[where].numpy() for name, flag in flags.items()},
        }
    )
    counts = {name: int(flag.sum()) for name, flag in flags.items()}
    return MassivePoint(entries, top, median, counts, "ok" if median > 0 else "not_applicable")


def life_spans(entries: pd.DataFrame, n_points: int, criterion: str = "strict") -> pd.DataFrame:
    """When each entry becomes massive and when it stops.

    Args:
        entries: rows with ``layer, pos, dim`` and the flag columns of ``massive_entries``, of all points.
        n_points: number of residual points, L + 1.
        criterion: the flag that counts.

    Returns:
        One row per uninterrupted span: ``pos, dim, birth, death``; ``death`` is the first later point without the
        flag, and missing if it holds at the last point. An entry that comes back has a row for each span.

    Raises:
        ValueError: an unknown criterion.
    """
    if criterion not in CRITERIA:
        raise ValueError(f"criterion must be one of {', '.join(CRITERIA)}, not {criterion!r}")
    rows = []
    for (pos, dim), group in entries[entries[criterion].astype(bool)].groupby(["pos", "dim"]):
        layers = np.sort(group["layer"].to_numpy())
        for span in np.split(layers, np.flatnonzero(np.diff(layers) > 1) + 1):
            end = int(span[-1]) + 1
            rows.append((int(pos), int(dim), int(span[0]), end if end < n_points else None))
    table = pd.DataFrame(rows, columns=["pos", "dim", "birth", "death"]).astype("Int64")
    return table.sort_values(["birth", "pos", "dim"], ignore_index=True)


def birth_origin(
    before: Float[Tensor, "d_model"],
    attn_out: Float[Tensor, "d_model"],
    mlp_out: Float[Tensor, "d_model"],
    after: Float[Tensor, "d_model"],
    dim: int,
    tolerance: float = 1e-4,
) -> Origin:
    """Split the growth of one entry in one block, at one position, into attention and MLP.

    ``mlp_share`` is ``|mlp| / (|attn| + |mlp|)``, undefined when both are 0.

    Raises:
        ValueError: ``before + attn_out + mlp_out`` differs from ``after`` by more than ``tolerance`` of its largest
            entry.
    """
    error = float((before.double() + attn_out.double() + mlp_out.double() - after.double()).abs().max())
    allowed = tolerance * float(after.abs().max())
    if not error <= allowed:
        raise ValueError(
            f"attention and MLP do not add up to the block's output: off by {error:.3g}, at most {allowed:.3g}"
        )
    attn, mlp = float(attn_out[dim]), float(mlp_out[dim])
    total = abs(attn) + abs(mlp)
    share = Measured(abs(mlp) / total, 1) if total > 0 else undefined("not_applicable", 1)
    return Origin(attn, mlp, share)


def top_writers(activations: Float[Tensor, "d_mlp"], w_out_column: Float[Tensor, "d_mlp"], n: int = 10) -> pd.DataFrame:
    """The neurons that write most to one dimension at one position: ``neuron, contribution`` by ``|contribution|``.

    ``contribution`` is the activation times the neuron's output weight to that dimension; over all neurons they sum to
    the MLP's output there, less its bias and any norm after the MLP.
    """
    contributions = activations.double() * w_out_column.double()
    neurons = contributions.abs().topk(min(n, len(contributions))).indices
    return pd.DataFrame({"neuron": neurons.numpy(), "contribution": contributions[neurons].numpy()})


def rogue_dimensions(
    H: Float[Tensor, "tokens d_model"], keep: Bool[Tensor, "tokens"], median: float
) -> RogueDimensions:
    """Dimensions that are large at every kept token of one point, which is not the same as massive.

    ``median`` is that of ``|H|`` over all tokens. The values are NaN with ``too_few_tokens`` below two kept tokens,
    ``non_finite`` for NaN or infinity, ``not_applicable`` when the median is 0.
    """
    kept = H[keep].double()
    missing = torch.full((H.shape[1],), math.nan, dtype=torch.float64)
    if len(kept) < 2:
        return RogueDimensions(missing, missing, missing, "too_few_tokens")
    if not kept.isfinite().all():
        return RogueDimensions(missing, missing, missing, "non_finite")
    if median == 0:
        return RogueDimensions(missing, missing, missing, "not_applicable")
    share = (kept.abs() > _ROGUE_FACTOR * median).double().mean(dim=0)
    return RogueDimensions(share, kept.mean(dim=0), kept.std(dim=0), "ok")


def constancy(entries: pd.DataFrame, n_prompts: int) -> pd.DataFrame:
    """How reliably a dimension is massive over prompts, and how little its value varies.

    Args:
        entries: rows ``prompt, dim, value`` of massive entries; of several in one dimension and prompt the largest is
            taken.
        n_prompts: number of prompts looked at.

    Returns:
        ``dim, n_prompts, share, mean, sd, constancy``; ``constancy`` = sd / \\|mean\\|, NaN with fewer than two prompts
        that have the entry.

    Raises:
        ValueError: more prompts in the table than ``n_prompts``.
    """
    if entries["prompt"].nunique() > n_prompts:
        raise ValueError(f"n_prompts must be at least {entries['prompt'].nunique()}, not {n_prompts}")
    order = entries["value"].abs().sort_values(ascending=False).index
    largest = entries.loc[order].drop_duplicates(["prompt", "dim"])
    table = largest.groupby("dim")["value"].agg(n_prompts="count", mean="mean", sd="std").reset_index()
    table.insert(2, "share", table["n_prompts"] / n_prompts)
    table["constancy"] = table["sd"] / table["mean"].abs()
    return table.sort_values(["share", "dim"], ascending=[False, True], ignore_index=True)


def _robust(magnitude: Float[Tensor, "tokens d_model"]) -> Bool[Tensor, "tokens d_model"]:
    """Entries above 20 times the 99.9 % quantile (linear) of all other dimensions.

    Leaving a dimension out removes one entry per token, so each quantile is among the first ``steps + 2 + tokens`` of
    the sorted whole: one partial sort serves every dimension.
    """
    n_tokens, d_model = magnitude.shape
    flags = torch.zeros_like(magnitude, dtype=torch.bool)
    n_others = n_tokens * (d_model - 1)
    if n_others == 0:
        return flags
    place = (n_others - 1) * _ROBUST_TAIL
    steps = int(place)
    n_sorted = min(steps + 2 + n_tokens, n_tokens * d_model)
    largest = magnitude.flatten().topk(n_sorted)
    dims = largest.indices % d_model
    candidates = dims[largest.values > _ROBUST_FACTOR * largest.values[-1]]
    for dim in sorted(set(candidates.tolist())):
        others = largest.values[dims != dim].double()
        upper, lower = float(others[steps]), float(others[min(steps + 1, n_others - 1)])
        quantile = upper + (lower - upper) * (place - steps)
        flags[:, dim] = magnitude[:, dim] > _ROBUST_FACTOR * quantile
    return flags
