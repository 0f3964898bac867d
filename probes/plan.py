"""The plan of a run: what the union of its probes needs, how many bytes that takes, and a refusal before any is taken."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass

import psutil

from probes.errors import BadRequest, PlanRefused
from probes.model.attention import QUERY_BLOCK
from probes.model.editing import UNTOUCHED, left_by
from probes.model.forward import site_shape
from probes.model.loaded import ModelFacts
from probes.probe import Reduction, Site
from probes.registry import probe
from probes.request import ProbeCall, RunRequest

__all__ = ["LIMIT_VARIABLE", "Plan", "batch_bytes", "make_plan", "memory_limit"]

LIMIT_VARIABLE = "EIGENSCOPE_MEMORY_LIMIT"
_FREE_SHARE = 0.8
_FLOAT, _DOUBLE = 4, 8
_HEAP = 2  # working memory is freed in pieces, and the heap hands back only part of them (measured by make bench)
_WRITING = 96 << 20  # what DuckDB holds of the prompts before, while a sweep goes on writing (measured by make bench)
_MASKS_NEED_SITES: frozenset[Site] = frozenset({"resid"})
_MASKS_NEED_REDUCTIONS: frozenset[Reduction] = frozenset({"column_sum"})


@dataclass(frozen=True, slots=True)
class Plan:
    """What one forward pass must keep for all probes of a request, and the bytes predicted beyond the model."""

    sites: frozenset[Site]
    reductions: frozenset[Reduction]
    capture_bytes: int
    passing_bytes: int
    probing_bytes: int

    @property
    def bytes(self) -> int:
        return self.capture_bytes + _HEAP * max(self.passing_bytes, self.probing_bytes)


def make_plan(request: RunRequest, facts: ModelFacts) -> Plan:
    """Union of what the probes name, priced for this model and prompt.

    Raises PlanRefused when it would not fit into ``EIGENSCOPE_MEMORY_LIMIT`` bytes (by default 80 % of what is free).
    """
    n_tokens = len(request.token_ids)
    specs = [probe(call.name).spec for call in request.probes]
    sites: frozenset[Site] = frozenset().union(*(spec.sites for spec in specs))
    reductions: frozenset[Reduction] = frozenset().union(*(spec.reductions for spec in specs))
    if any(spec.masks for spec in specs):
        sites, reductions = sites | _MASKS_NEED_SITES, reductions | _MASKS_NEED_REDUCTIONS
    for call in request.probes:
        _check_ranges(call, facts, n_tokens)
    kept = sum(math.prod(site_shape(site, facts, n_tokens)) for site in sites) * _FLOAT
    kept += facts.n_layers * facts.n_heads * n_tokens * (8 + 4 * _FLOAT)
    kept += len({*left_by(request.edits)} - {UNTOUCHED}) * n_tokens * facts.d_model * _DOUBLE
    attention = 3 * facts.n_heads * min(QUERY_BLOCK, n_tokens) * n_tokens * _FLOAT
    passing = attention + 4 * n_tokens * max(facts.d_mlp, 4 * facts.d_model) * _FLOAT
    probing = max(probe(call.name).cost(call.full_params(), facts, n_tokens) for call in request.probes)
    plan = Plan(sites, reductions, kept, passing, probing)
    limit, says = memory_limit()
    if plan.bytes > limit:
        raise PlanRefused(
            f"This run needs about {plan.bytes >> 20} MB beyond the model for {n_tokens} tokens, but {limit >> 20} MB may be "
            f"used ({says}); shorten the text, ask for fewer probes, or set {LIMIT_VARIABLE} in bytes."
        )
    return plan


def batch_bytes(plans: Sequence[Plan], workers: int) -> int:
    """Bytes beyond the model for one right-padded pass over prompts of these plans, then ``workers`` probed at once and
    written one after the other; one alone is a single run."""
    passing = len(plans) * max(plan.passing_bytes for plan in plans)
    probing = min(workers, len(plans)) * max(plan.probing_bytes for plan in plans)
    writing = _WRITING if len(plans) > 1 else 0
    return sum(plan.capture_bytes for plan in plans) + _HEAP * max(passing, probing) + writing


def _check_ranges(call: ProbeCall, facts: ModelFacts, n_tokens: int) -> None:
    """Parameters that name a place are checked against this model and prompt by their name, the same for every probe."""
    ends = {"point": facts.n_layers, "block": facts.n_layers - 1, "position": n_tokens - 1, "head": facts.n_heads - 1}
    for name, given in dataclasses.asdict(call.full_params()).items():
        end = ends.get(name.removesuffix("s"))
        numbers = given if isinstance(given, tuple) else (given,)
        outside = [n for n in numbers if isinstance(n, int) and not 0 <= n <= (end if end is not None else n)]
        if end is not None and outside:
            raise BadRequest(f"{call.name}.{name} must lie in 0..{end} here, not {outside[0]}.")


def memory_limit() -> tuple[int, str]:
    """The bytes that may be used, and who says so."""
    given = os.environ.get(LIMIT_VARIABLE)
    if given is None:
        return int(psutil.virtual_memory().available * _FREE_SHARE), "80 % of the free memory"
    if not given.isdigit():
        raise BadRequest(f"{LIMIT_VARIABLE} must be a number of bytes, not {given[:80]!r}.")
    return int(given), LIMIT_VARIABLE
