"""Which numbers of a bundle a run here reproduces: its runs made again, compared number by number. No streamlit."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import pandas as pd
from torch import Tensor

from cache.bundle_format import Bundle
from cache.bundle_import import import_bundle
from cache.store import Store
from probes.errors import BadRequest, ModelRefused, NonFinite, PlanRefused
from probes.progress import Progress
from probes.request import RunRequest
from probes.runner import Runner

__all__ = ["RTOL", "Verdict", "Verified", "verify_bundle"]

RTOL = 1e-4  # of the value, or of a thousandth of the largest of its kind: float32 on another processor

Outcome = Literal["reproduced", "differs", "cannot run"]


class _Shelf(Protocol):
    def get(self, name: str, dtype: str, device: str, progress: Progress | None = None) -> Any: ...


@dataclass(frozen=True, slots=True)
class Verdict:
    """One kind of number of one run: how many there are, how many agree, and the largest relative difference."""

    run_id: str
    table: str
    metric: str
    outcome: Outcome
    n: int
    agreeing: int
    largest: float
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Verified:
    """What came of a bundle: the verdicts, and whether every number that could be made again was."""

    verdicts: tuple[Verdict, ...]

    @property
    def reproduced(self) -> bool:
        return all(one.outcome == "reproduced" for one in self.verdicts)

    def table(self) -> pd.DataFrame:
        """One row a verdict."""
        columns = ["run_id", "table", "metric", "outcome", "n", "agreeing", "largest", "reason"]
        return pd.DataFrame([[getattr(one, name) for name in columns] for one in self.verdicts], columns=columns)


def verify_bundle(bundle: Bundle, shelf: _Shelf, progress: Progress) -> Verified:
    """Make every run of a bundle again and compare. A run whose model is not here, or is another one, says so."""
    verdicts: list[Verdict] = []
    with Store.open(":memory:") as carried, Store.open(":memory:") as fresh:
        names = import_bundle(carried, bundle).aliased
        runner = Runner(fresh, shelf)  # type: ignore[arg-type]
        table = bundle.tables["runs"]
        captures = dict(zip(table["run_id"].to_pylist(), table["capture_id"].to_pylist(), strict=True))
        order = sorted(bundle.runs, key=lambda one: _reads_others(bundle.runs[one]))
        for index, run_id in enumerate(order):
            part = progress.part(index / len(order), (index + 1) / len(order))
            part.step(0.0, f"run {run_id[:8]}")
            stored = carried.run(names.get(run_id, run_id))
            if stored is not None:
                owners = {run_id, captures[run_id]}
                tensors = {name: value for (owner, name), value in bundle.tensors.items() if owner in owners}
                verdicts.extend(_run_again(runner, shelf, carried, stored, tensors, part))
    return Verified(tuple(verdicts))


def _reads_others(run: Mapping[str, Any]) -> bool:
    """Runs that read other runs come last: those they read have been made by then."""
    request = str(run["request"])
    return "against" in request or "'run'" in request or "source" in request


def _run_again(
    runner: Runner,
    shelf: _Shelf,
    carried: Store,
    stored: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    progress: Progress,
) -> Iterator[Verdict]:
    run_id = str(stored["run_id"])
    try:
        request = RunRequest.from_stored(stored["request"])
        facts = shelf.get(request.model, request.dtype, request.device, progress.part(0.0, 0.2)).facts
        if facts.fingerprint != stored["fingerprint"]:
            raise BadRequest(f"the model {request.model} here has other weights (fingerprint {facts.fingerprint}).")
        made = runner.run(request, progress.part(0.2, 1.0))
    except (BadRequest, ModelRefused, PlanRefused, NonFinite, OSError) as problem:
        yield Verdict(run_id, "", "", "cannot run", 0, 0, float("nan"), str(problem))
        return
    for name in ("tokens", *made.table_names):
        yield from _compared(run_id, name, carried.table(run_id, name), made.table(name))
    for name, old in tensors.items():
        try:
            yield _same_tensor(run_id, name, old, made.tensor(name))
        except KeyError:
            yield Verdict(
                run_id, "tensor", name, "differs", old.numel(), 0, float("inf"), "a run here leaves no such tensor"
            )


def _same_tensor(run_id: str, name: str, old: Tensor, new: Tensor) -> Verdict:
    if old.shape != new.shape:
        return Verdict(run_id, "tensor", name, "differs", old.numel(), 0, float("inf"), "it has another shape")
    a, b = (one.double().numpy().ravel() for one in (old, new))
    largest, fine = _differences(a, b)
    return _verdict(run_id, "tensor", name, a.size, int(fine.sum()), largest)


def _compared(run_id: str, name: str, old: pd.DataFrame, new: pd.DataFrame) -> Iterator[Verdict]:
    """Verdicts of one table: a number column by column, split by ``metric`` where there is one."""
    kinds = sorted(set(old["metric"]) | set(new["metric"])) if "metric" in old.columns else [""]
    for kind in kinds:
        parts = [frame[frame["metric"] == kind] if kind else frame for frame in (old, new)]
        floats = [
            column
            for column in old.columns
            if pd.api.types.is_float_dtype(old[column]) and column not in ("layer", "pos")
        ]
        keys = [column for column in old.columns if column not in (*floats, "status", "text", "evidence")]
        if not len(parts[0]) and not len(parts[1]):
            continue
        joined = parts[0].merge(parts[1], on=keys, how="outer", suffixes=("_a", "_b"), indicator=True) if keys else None
        if joined is None or not floats:
            old_rows, new_rows = (Counter(_said(part)) for part in parts)
            agreeing = (old_rows & new_rows).total()
            n = max(old_rows.total(), new_rows.total())
            yield _verdict(run_id, name, kind, n, agreeing, 0.0 if agreeing == n else float("inf"))
            continue
        agree, largest = np.asarray(joined["_merge"] == "both"), 0.0
        for column in floats:
            a, b = (joined[f"{column}_{side}"].to_numpy(dtype=float) for side in "ab")
            difference, fine = _differences(a, b)
            agree = agree & fine
            largest = max(largest, difference)
        yield _verdict(run_id, name, kind, len(joined), int(agree.sum()), largest)


def _said(rows: pd.DataFrame) -> Iterator[tuple[str, ...]]:
    """Rows as texts, the same for the same values: a table has no order, and a bundle brings it sorted.

    Without ``evidence``: it repeats, to the last digit, numbers that stand in tables of their own.
    """
    said = rows.drop(columns="evidence", errors="ignore")
    yield from said.astype(object).where(said.notna(), None).astype(str).itertuples(index=False, name=None)


def _differences(a: np.ndarray, b: np.ndarray) -> tuple[float, np.ndarray]:
    """The largest relative difference of two columns, and which values agree; what is missing in both agrees."""
    both = np.isfinite(a) & np.isfinite(b)
    scale = np.maximum(np.abs(a), 1e-3 * (np.abs(a[both]).max() if both.any() else 0.0))
    with np.errstate(invalid="ignore", divide="ignore"):
        relative = np.where(a == b, 0.0, np.abs(a - b) / scale)
    fine = np.where(both, relative <= RTOL, (np.isnan(a) & np.isnan(b)) | (a == b))
    return (float(relative[both].max()) if both.any() else 0.0), fine


def _verdict(run_id: str, table: str, metric: str, n: int, agreeing: int, largest: float) -> Verdict:
    outcome: Outcome = "reproduced" if agreeing == n else "differs"
    return Verdict(run_id, table, metric, outcome, n, agreeing, largest)
