"""The list of probes: a name, the module behind it. A new probe is a new module and one line here."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any, cast

from probes.errors import BadRequest
from probes.probe import Probe

__all__ = ["MODULES", "in_order", "make_params", "names", "probe"]

MODULES = (
    "tokens",
    "spectral",
    "matched",
    "sinks",
    "massive",
    "lens",
    "latents",
    "events",
    "attribution",
    "pattern",
    "projection",
    "latent_effect",
    "concept",
    "concept_effect",
    "weights",
    "effect",
    "head_effects",
    "patching",
    "continuation",
    "trace",
    "token_spectra",
    "cascade",
    "response",
    "geometry",
    "linearity",
    "recall",
)


@cache
def _registry() -> dict[str, Probe]:
    """Import the probes when one is first asked for, so that the command line answers fast."""
    found: dict[str, Probe] = {}
    for name in MODULES:
        module = cast(Probe, importlib.import_module(f"probes.{name}"))
        if module.spec.name in found:
            raise ValueError(f"Two probes are called {module.spec.name!r}.")
        found[module.spec.name] = module
    return found


def names() -> tuple[str, ...]:
    """All probe names, in the order they run."""
    return tuple(_registry())


def probe(name: str) -> Probe:
    """The probe by name; raises BadRequest naming the known ones."""
    if name not in _registry():
        raise BadRequest(f"No probe is called {name[:80]!r}; the probes are {', '.join(names())}.")
    return _registry()[name]


def make_params(name: str, given: Mapping[str, Any]) -> Any:
    """The frozen parameters of a probe from plain values; lists become tuples. Raises BadRequest for what does not fit."""
    params = probe(name).Params
    known = [field.name for field in dataclasses.fields(params)]
    for key in given:
        if key not in known:
            raise BadRequest(
                f"The probe {name} has no parameter {str(key)[:80]!r}; it has {', '.join(known) or 'none'}."
            )
    try:
        return params(**{key: _frozen(value) for key, value in given.items()})
    except BadRequest:
        raise
    except (ValueError, TypeError) as error:
        raise BadRequest(str(error)) from error


def in_order(wanted: Iterable[str]) -> tuple[str, ...]:
    """The wanted probes such that each comes after those whose tables it reads. Raises BadRequest if one is asked twice."""
    asked = list(wanted)
    if len(set(asked)) != len(asked):
        raise BadRequest(f"Each probe can be asked for once, not {', '.join(asked)}.")
    order: list[str] = []

    def place(name: str) -> None:
        for earlier in probe(name).spec.after:
            if earlier in asked and earlier not in order:
                place(earlier)
        if name not in order:
            order.append(name)

    for name in sorted(asked, key=lambda name: names().index(probe(name).spec.name)):
        place(name)
    return tuple(order)


def _frozen(value: Any) -> Any:
    return tuple(_frozen(part) for part in value) if isinstance(value, list | tuple) else value
