"""What is worth looking at in a run: written rules over its tables, each finding with its evidence (docs/methods/events.md).

Every rule gives at least one row; a rule that finds nothing says so, with ``layer`` missing.
"""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from analysis.descriptors import entropy_collapse
from analysis.massive import life_spans

__all__ = ["KINDS", "find_events"]

KINDS = ("massive_birth", "massive_death", "sinks_begin", "entropy_collapse", "lens_decides", "largest_update")
_MAX_BIRTHS = 5
_DECIDED_SHARE = 0.5
_MIN_STEPS = 3

Row = dict[str, Any]


def find_events(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Apply every rule to the tables of one run (any may be missing: its rules then say that the probe was not asked).

    Returns rows ``layer, kind, text, evidence``: ``layer`` is a point 0..L or missing, ``evidence`` JSON with the
    numbers the finding rests on and, where there is one, the position and dimension to jump to.
    """
    rows = [
        *_massive(tables.get("massive_events"), tables.get("massive"), tables.get("massive_neurons")),
        _sinks(tables.get("head_metrics")),
        _collapse(_layer_values(tables, "matrix_entropy")),
        _decides(tables.get("token_metrics")),
        _largest_update(_layer_values(tables, "update_size")),
    ]
    frame = pd.DataFrame(rows, columns=["layer", "kind", "text", "evidence"])
    return frame.astype({"layer": "Int64"})


def _row(kind: str, text: str, layer: int | None = None, **evidence: Any) -> Row:
    return {"layer": layer, "kind": kind, "text": text, "evidence": json.dumps(evidence, sort_keys=True)}


def _massive(events: pd.DataFrame | None, entries: pd.DataFrame | None, neurons: pd.DataFrame | None) -> list[Row]:
    """Births and deaths of strictly massive entries, the largest first; who wrote them, attention or MLP."""
    if events is None or entries is None:
        return [_row(kind, "not asked: needs the probe massive") for kind in ("massive_birth", "massive_death")]
    spans = life_spans(entries, int(entries["layer"].max()) + 1, "strict") if len(entries) else entries
    if spans.empty:
        return [_row(kind, "no strictly massive activation in this run") for kind in ("massive_birth", "massive_death")]
    rows: list[Row] = []
    # The spans of the run may be of another criterion: what wrote an entry is known where both were born at one point.
    known = events[["pos", "dim", "birth", "attn_delta", "mlp_delta"]]
    spans = spans[["pos", "dim", "birth", "death"]].merge(known, how="left", on=["pos", "dim", "birth"])
    peaks = entries.assign(size=entries["value"].abs()).groupby(["pos", "dim"])["size"].max()
    size = [peaks.get((pos, dim), np.nan) for pos, dim in zip(spans["pos"], spans["dim"], strict=True)]
    ordered = spans.assign(peak=size).sort_values("peak", ascending=False).head(_MAX_BIRTHS)
    for event in ordered.itertuples(index=False):
        at = {"position": int(event.pos), "dimension": int(event.dim), "peak": float(event.peak)}
        birth = int(event.birth)
        born = entries[(entries["pos"] == event.pos) & (entries["dim"] == event.dim) & (entries["layer"] == birth)]
        value = float(born["value"].iloc[0])
        writers = _writers(neurons, int(event.pos), int(event.dim), birth)
        by = _writer(float(event.attn_delta), float(event.mlp_delta), writers)
        text = f"{value:,.0f} born at position {event.pos}, dimension {event.dim}{by}"
        rows.append(_row("massive_birth", text, birth, value=value, neurons=writers, **at))
        if pd.notna(event.death):
            text = f"the activation at position {event.pos}, dimension {event.dim} is no longer massive"
            rows.append(_row("massive_death", text, int(event.death), **at))
    if not any(row["kind"] == "massive_death" for row in rows):
        which = "every massive activation lasts" if spans["death"].isna().all() else "the largest of them last"
        rows.append(_row("massive_death", f"{which} to the last point"))
    return rows


def _writers(neurons: pd.DataFrame | None, pos: int, dim: int, birth: int) -> list[int]:
    """The fewest MLP neurons that make up 90 % of the positive or negative sum written, at most 3."""
    if neurons is None or neurons.empty:
        return []
    own = neurons[(neurons["pos"] == pos) & (neurons["dim"] == dim) & (neurons["layer"] == birth - 1)]
    sizes = own["contribution"].abs().sort_values(ascending=False)
    if sizes.empty:
        return []
    share = (sizes.cumsum() / sizes.sum()).to_numpy()
    count = min(int(np.searchsorted(share, 0.9)) + 1, 3)
    return [int(own.loc[index, "neuron"]) for index in sizes.index[:count]]


def _writer(attn: float, mlp: float, neurons: list[int]) -> str:
    if not np.isfinite(attn) or not np.isfinite(mlp):
        return ""
    if abs(attn) > abs(mlp):
        return ", written by attention"
    return ", written by the MLP" + (f" (neurons {', '.join(map(str, neurons))})" if neurons else "")


def _sinks(heads: pd.DataFrame | None) -> Row:
    """The first block in which some head is a sink on position 0 (``a_0 > 0.3``, at least 32 tokens)."""
    if heads is None:
        return _row("sinks_begin", "not asked: needs the probe sinks")
    flags = heads[heads["metric"] == "is_sink"]
    if flags["value"].isna().all():
        return _row("sinks_begin", "too few tokens to call a head a sink (at least 32)")
    share = flags.groupby("layer")["value"].agg(["sum", "count"])
    on = share[share["sum"] > 0]
    if on.empty:
        return _row("sinks_begin", "no head is a sink on position 0")
    block = int(on.index.min())
    n_sinks, n_heads = int(on.loc[block, "sum"]), int(on.loc[block, "count"])
    text = f"sinks begin in block {block}: {n_sinks} of {n_heads} heads"
    return _row("sinks_begin", text, block + 1, block=block, sink_heads=n_sinks, heads=n_heads, position=0)


def _collapse(entropy: pd.Series | None) -> Row:
    """The largest drop of matrix entropy, if it passes the rule of the entropy collapse layer."""
    if entropy is None:
        return _row("entropy_collapse", "not asked: needs the probe spectral")
    entropy = entropy.reindex(range(int(entropy.index[0]), int(entropy.index[-1]) + 1))
    values = entropy.to_numpy(dtype=np.float64)
    if np.isfinite(np.diff(values)).sum() < _MIN_STEPS:
        return _row("entropy_collapse", "undefined: too few neighbouring points have a matrix entropy")
    at = entropy_collapse(values)
    if at is None:
        return _row("entropy_collapse", "no collapse of matrix entropy")
    point = int(entropy.index[at])
    text = f"matrix entropy falls from {values[at - 1]:.2f} to {values[at]:.2f}"
    return _row("entropy_collapse", text, point, before=float(values[at - 1]), after=float(values[at]))


def _decides(tokens: pd.DataFrame | None) -> Row:
    """The point by which the mean-corrected lens has settled on the final token at half of the positions read."""
    depth = None if tokens is None else tokens.loc[tokens["metric"] == "lens_depth@mean", "value"].dropna()
    if depth is None or depth.empty:
        return _row("lens_decides", "not asked: needs the mean-corrected variant of the probe lens, at every point")
    point = int(np.ceil(depth.quantile(_DECIDED_SHARE)))
    text = f"by point {point} the lens has settled at half of {len(depth)} positions"
    return _row("lens_decides", text, point, median_depth=float(depth.median()), positions=len(depth))


def _largest_update(size: pd.Series | None) -> Row:
    """The block whose update is largest relative to what it is added to, block 0 left out (it starts from embeddings)."""
    later = None if size is None else size[size.index > 1].dropna()
    if later is None or later.empty:
        return _row("largest_update", "not asked: needs the probe tokens and at least two blocks")
    point = int(later.idxmax())
    text = f"largest update after block 0: block {point - 1} moves the residual by {later[point]:.2f} of its length"
    return _row("largest_update", text, point, block=point - 1, size=float(later[point]))


def _layer_values(tables: Mapping[str, pd.DataFrame], metric: str) -> pd.Series | None:
    layers = tables.get("layer_metrics")
    rows = None if layers is None else layers[layers["metric"] == metric]
    return None if rows is None or rows.empty else rows.set_index("layer")["value"].sort_index()
