"""The list of claims: a new claim is a new module beside this one and one line here."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from functools import cache
from typing import cast

from probes.claims.claim import Claim, Tested
from probes.errors import BadRequest

__all__ = ["MODULES", "claims", "collect", "find_claim"]

MODULES = (
    "reasoning_alpha",
    "reversal",
    "response_shift",
    "scaling",
    "cascade",
    "punctuation",
    "correctness",
    "sink_bos",
    "mlp_origin",
    "fixed_dimensions",
    "idiom_convergence",
    "dimension_loss",
    "shuffled_dimension",
)


def collect(modules: Iterable[Tested]) -> dict[str, Tested]:
    """Claims by their name, in order. Raises ValueError where two have the same."""
    found: dict[str, Tested] = {}
    for module in modules:
        if module.claim.name in found:
            raise ValueError(f"Two claims are called {module.claim.name!r}.")
        found[module.claim.name] = module
    return found


@cache
def _registry() -> dict[str, Tested]:
    return collect(cast(Tested, importlib.import_module(f"probes.claims.{name}")) for name in MODULES)


def claims() -> tuple[Claim, ...]:
    """All claims, in their order."""
    return tuple(module.claim for module in _registry().values())


def find_claim(name: str) -> Tested:
    """The claim of a name. Raises BadRequest naming those there are."""
    if name not in _registry():
        raise BadRequest(f"There is no claim {name[:80]!r}; there are {', '.join(_registry())}.")
    return _registry()[name]
