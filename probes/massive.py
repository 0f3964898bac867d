"""Massive activations: where single entries dwarf a layer, from when to when, and who writes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch
from torch import Tensor

from analysis.massive import (
    CRITERIA,
    MassivePoint,
    birth_origin,
    life_spans,
    rogue_dimensions,
    top_writers,
)
from probes.checks import require, whole
from probes.probe import Context, ProbeSpec, Result

if TYPE_CHECKING:
    from probes.model.capture import Capture
    from probes.model.loaded import LoadedModel, ModelFacts
    from probes.model.replay import BlockReplay

__all__ = ["Params", "compatible", "cost", "run", "spec"]

_FLOAT32_TOLERANCE = 1e-4
_UNEXPLAINED = 0.01


@dataclass(frozen=True)
class Params:
    """``criterion``: the flag by which entries are born and die. ``n_neurons``: writers kept of each birth."""

    criterion: str = "strict"
    n_neurons: int = 10

    def __post_init__(self) -> None:
        require(self.criterion in CRITERIA, "massive.criterion", f"one of {', '.join(CRITERIA)}", self.criterion)
        known = whole(self.n_neurons) and 1 <= self.n_neurons <= 100
        require(known, "massive.n_neurons", "a whole number from 1 to 100", self.n_neurons)


spec = ProbeSpec(
    name="massive",
    version=1,
    question="Which single activations dwarf all others, from which layer to which, and who writes them?",
    sites=frozenset({"resid"}),
    reductions=frozenset({"column_sum"}),
    tables=("massive", "massive_events", "massive_neurons", "layer_metrics"),
)


def compatible(model: LoadedModel) -> str | None:
    return None


def cost(params: Params, facts: ModelFacts, n_tokens: int) -> int:
    """Copies of one residual point, and one block run again for the writers."""
    point = 8 * n_tokens * facts.d_model * 8
    replayed = n_tokens * (facts.d_mlp + 2 * facts.d_model + facts.n_heads * facts.d_head) * 4
    return point + 2 * replayed + facts.d_mlp * facts.d_model * 4


def run(capture: Capture, params: Params, context: Context) -> Result:
    """``massive`` holds the three largest and all flagged entries of every point, three flags apart.

    ``massive_events`` has a row for each span of the chosen criterion, with what attention and MLP of block birth - 1
    added (missing for entries born in the embeddings). ``massive_neurons`` names the block in ``layer``. The tensors
    ``rogue_share``, ``rogue_mean`` and ``rogue_sd`` are [points, d_model], over the tokens that are no sinks.
    """
    n_layers = capture.model.facts.n_layers
    points = capture.massive
    entries = pd.concat([found.entries.assign(layer=point) for point, found in enumerate(points)], ignore_index=True)
    entries = entries[["layer", "pos", "dim", "value", "median", "ratio", *CRITERIA]]
    spans = life_spans(entries, n_layers + 1, params.criterion)
    events, neurons, notes = _origins(capture, params, context, spans)
    return Result(
        {
            "massive": entries,
            "massive_events": events,
            "massive_neurons": neurons,
            "layer_metrics": pd.concat([_layer_metrics(points, capture.n_tokens), _without_sinks(capture)]),
        },
        _rogue(capture, points),
        (*_none_found(points, spans, params.criterion), *notes),
    )


def _layer_metrics(points: Sequence[MassivePoint], n_tokens: int) -> pd.DataFrame:
    rows: list[tuple[int, str, float, int, str]] = []
    for layer, found in enumerate(points):
        status = "non_finite" if found.status == "non_finite" else "ok"
        top = [(f"massive_top{rank}", value) for rank, value in enumerate(found.top.tolist(), start=1)]
        counts = [(f"massive_{name}", float(found.n_flagged[name])) for name in CRITERIA]
        # A median of 0 is a number; the flags that divide by it are what cannot be said.
        rows += [(layer, name, value, n_tokens, status) for name, value in [*top, ("massive_median", found.median)]]
        rows += [(layer, name, value, n_tokens, found.status) for name, value in counts]
    frame = pd.DataFrame(rows, columns=["layer", "metric", "value", "n_used", "status"])
    missing = ~frame["status"].isin(["ok", "low_confidence"])
    return frame.assign(
        value=frame["value"].mask(missing),
        status=frame["status"].mask(frame["value"].isna() & ~missing, "not_applicable"),
    )


def _without_sinks(capture: Capture) -> pd.DataFrame:
    """The largest entry among the tokens that are no sinks: what is left when the known cause is out."""
    keep = capture.masks.no_sink
    n_kept = int(keep.sum())
    points = range(capture.model.facts.n_layers + 1)
    values = [float(capture.resid(point)[keep].abs().max()) if n_kept else float("nan") for point in points]
    frame = pd.DataFrame({"layer": points, "metric": "massive_top1@no_sink", "value": values, "n_used": n_kept})
    return frame.assign(status="ok" if n_kept else "too_few_tokens")


def _origins(
    capture: Capture, params: Params, context: Context, spans: pd.DataFrame
) -> tuple[pd.DataFrame, pd.DataFrame, tuple[str, ...]]:
    """Replay each block in which something was born, once."""
    deltas: dict[int, tuple[float, float]] = {}
    written, notes = [], []
    blocks = sorted({int(birth) - 1 for birth in spans["birth"] if birth > 0})
    for done, block in enumerate(blocks):
        context.progress.step(0.6 + 0.4 * done / len(blocks), f"writers of massive activations, block {block}")
        replayed = capture.replay(block, ())
        before, after = capture.resid(block), capture.resid(block + 1)
        moved = capture.moved("resid", block + 1)
        after = after if moved is None else after - moved  # what the block itself wrote
        unexplained = False
        for index, span in spans[spans["birth"] == block + 1].iterrows():
            pos, dim = int(span["pos"]), int(span["dim"])
            origin = birth_origin(
                before[pos], replayed.attn_out[pos], replayed.mlp_out[pos], after[pos], dim, _tolerance(capture)
            )
            deltas[int(index)] = (origin.attn_delta, origin.mlp_delta)
            writers = top_writers(replayed.neurons[pos], replayed.w_out[:, dim].float().cpu(), params.n_neurons)
            written.append(writers.assign(pos=pos, dim=dim, layer=block))
            unexplained |= _differs(replayed, pos, dim)
        if unexplained:
            notes.append(
                f"In block {block} the neurons do not add up to what the MLP adds: its bias or norm writes the rest."
            )
    nan = (float("nan"), float("nan"))
    pairs = [deltas.get(index, nan) for index in range(len(spans))]
    events = spans.assign(attn_delta=[attn for attn, _ in pairs], mlp_delta=[mlp for _, mlp in pairs])
    columns = ["pos", "dim", "layer", "neuron", "contribution"]
    neurons = pd.concat(written, ignore_index=True)[columns] if written else pd.DataFrame(columns=columns)
    return events, neurons, tuple(notes)


def _tolerance(capture: Capture) -> float:
    """Half precision rounds the sum of the parts by its own unit."""
    dtype: Any = getattr(torch, capture.model.facts.dtype)
    return max(_FLOAT32_TOLERANCE, 2 * torch.finfo(dtype).eps)


def _differs(replayed: BlockReplay, pos: int, dim: int) -> bool:
    by_neurons = float(replayed.neurons[pos].double() @ replayed.w_out[:, dim].double().cpu())
    added = float(replayed.mlp_out[pos, dim])
    return abs(by_neurons - added) > _UNEXPLAINED * max(abs(added), abs(by_neurons))


def _rogue(capture: Capture, points: Sequence[MassivePoint]) -> dict[str, Tensor]:
    keep = capture.masks.no_sink
    found = [rogue_dimensions(capture.resid(point), keep, of.median) for point, of in enumerate(points)]
    return {
        "rogue_share": torch.stack([point.share for point in found]).float(),
        "rogue_mean": torch.stack([point.mean for point in found]).float(),
        "rogue_sd": torch.stack([point.sd for point in found]).float(),
    }


def _none_found(points: Sequence[MassivePoint], spans: pd.DataFrame, criterion: str) -> tuple[str, ...]:
    if len(spans):
        return ()
    ratios = [float(found.top[0]) / found.median if found.median > 0 else 0.0 for found in points]
    largest = max(ratios)
    return (
        f"No entry is massive by the {criterion} criterion; the largest is {largest:,.0f} times its median "
        f"({float(points[ratios.index(largest)].top[0]):,.4g} at point {ratios.index(largest)}).",
    )
