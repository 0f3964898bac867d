"""One metric over the runs of a prompt set, as the array that statistics take: prompts x points."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64

from cache.store import Store
from probes.errors import BadRequest

__all__ = ["SetValues", "set_values"]


@dataclass(frozen=True, eq=False)
class SetValues:
    """A metric by prompt and point, NaN where undefined, and the tokens of each prompt, in the order asked for."""

    metric: str
    run_ids: tuple[str, ...]
    values: Float64[np.ndarray, "prompts points"]
    tokens: Int64[np.ndarray, " prompts"]

    def part(self, chosen: Bool[np.ndarray, " prompts"]) -> SetValues:
        """Some of the prompts."""
        ids = tuple(run_id for run_id, kept in zip(self.run_ids, chosen, strict=True) if kept)
        return SetValues(self.metric, ids, self.values[chosen], self.tokens[chosen])


def set_values(store: Store, run_ids: Sequence[str], metric: str) -> SetValues:
    """Read one metric of stored runs (of one model). Raises BadRequest if none of them has it at any point."""
    rows = store.layer_values(set(run_ids), metric)
    if rows.empty:
        raise BadRequest(f"None of the {len(run_ids)} runs has the metric {metric[:64]!r} by layer.")
    table = rows.pivot(index="run_id", columns="layer", values="value")
    table = table.reindex(index=list(run_ids), columns=range(int(table.columns.max()) + 1))
    tokens = rows.groupby("run_id")["n_tokens"].first().reindex(list(run_ids))
    missing = int(tokens.isna().sum())
    if missing:
        raise BadRequest(f"{missing} of the {len(run_ids)} runs do not have the metric {metric[:64]!r} by layer.")
    return SetValues(metric, tuple(run_ids), table.to_numpy(dtype=np.float64), tokens.to_numpy(dtype=np.int64))
