"""Events: what happens where in this run, by written rules over the tables of the other probes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from analysis.events import find_events
from probes.probe import Context, ProbeSpec, Result

if TYPE_CHECKING:
    from probes.model.capture import Capture
    from probes.model.loaded import LoadedModel, ModelFacts

__all__ = ["Params", "compatible", "cost", "run", "spec"]


@dataclass(frozen=True)
class Params:
    """Nothing to choose: the rules are fixed and documented."""


spec = ProbeSpec(
    name="events",
    version=2,
    question="What happens at which layer of this run?",
    sites=frozenset(),
    reductions=frozenset(),
    tables=("events",),
    after=("tokens", "spectral", "sinks", "massive", "lens"),
)


def compatible(model: LoadedModel) -> str | None:
    return None


def cost(params: Params, facts: ModelFacts, n_tokens: int) -> int:
    return 0


def run(capture: Capture, params: Params, context: Context) -> Result:
    """One row an event; a rule that finds nothing has a row that says so."""
    return Result({"events": find_events(context.tables)})
