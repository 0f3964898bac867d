"""What an edit puts in: numbers, means of a bank, states of another run, vectors, and what an SAE knows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from probes.checks import shown, within_float32
from probes.model.sae_sources import SAE_SOURCES, SAESource, fault, read_sae_source

__all__ = ["FromRun", "Mean", "Source", "Vector", "read_source", "source_fault", "source_json"]


@dataclass(frozen=True, slots=True)
class Mean:
    """The mean state at this site over the texts of a bank, by dimension and by class (position 0, or any other)."""

    bank: str

    def as_dict(self) -> dict[str, Any]:
        return {"mean": self.bank}

    def __str__(self) -> str:
        return f"mean {self.bank[:16]}"


@dataclass(frozen=True, slots=True)
class FromRun:
    """What stood at this site, layer and position in another run."""

    run: str

    def as_dict(self) -> dict[str, Any]:
        return {"run": self.run}

    def __str__(self) -> str:
        return f"run {self.run[:16]}"


@dataclass(frozen=True, slots=True)
class Vector:
    """Numbers for the dims of the edit, in their order."""

    __no_type_check__ = True  # checked by the edit, in a sentence

    values: tuple[float, ...]

    def as_dict(self) -> dict[str, Any]:
        return {"vector": list(self.values)}

    def __str__(self) -> str:
        return f"a vector of {len(self.values)}"


Source = Literal["zero", "uniform"] | int | float | Mean | FromRun | Vector | SAESource


def read_source(given: Any) -> Any:
    """The source JSON values mean; what is no object comes back as it is. Raises ValueError for an object that names none."""
    if not isinstance(given, Mapping):
        return given
    of_sae = read_sae_source(given)
    if of_sae is not None:
        return of_sae
    if {"sae", "latent", "concept"} & set(given):
        raise ValueError(f"a source with an SAE is {SAE_SOURCES}, not {shown(dict(given))}")
    if len(given) != 1:
        raise ValueError(f'a source names one thing, such as {{"mean": "builtin"}}, not {shown(dict(given))}')
    [(kind, value)] = given.items()
    if kind == "mean" and isinstance(value, str):
        return Mean(value)
    if kind == "run" and isinstance(value, str):
        return FromRun(value)
    if kind == "vector" and isinstance(value, list | tuple):
        return Vector(tuple(value))
    raise ValueError(f"a source is a mean, a run or a vector, at resid what an SAE knows, not {shown(dict(given))}")


def source_json(source: Any) -> Any:
    """A source as the JSON value :func:`read_source` reads."""
    return source.as_dict() if isinstance(source, Mean | FromRun | Vector | SAESource) else source


def source_fault(source: Any, site: str, op: str) -> str | None:
    """What is wrong with the source of an edit at any site but ``pattern``, whatever the model; None if nothing is."""
    number = isinstance(source, int | float) and not isinstance(source, bool)
    if number and not within_float32(source):
        return f"the number must be finite and within float32, not {shown(source)}"
    if op == "scale" and not number:
        return f"scale takes a number as its source, not {shown(source)}"
    if isinstance(source, SAESource):
        return fault(source, op) if site == "resid" else f"an SAE reads resid, not {site}"
    if not (number or (source == "zero" and op == "set") or isinstance(source, Mean | FromRun | Vector)):
        wanted = '"zero" (with set), a number, {"mean": bank}, {"run": id} or {"vector": [...]}'
        if site == "resid":
            wanted = wanted.replace(" or ", ", ") + f", {SAE_SOURCES}"
        return f"the source must be {wanted}, not {shown(source)}"
    if isinstance(source, Vector) and not (source.values and all(map(within_float32, source.values))):
        return "a vector needs at least one number, all of them finite"
    return None
