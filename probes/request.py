"""A request: everything that decides a run's numbers, frozen, checked, with one canonical form and two keys."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import version
from typing import Any, Literal, get_args

from cache.keys import canonical_json, digest
from probes.errors import BadRequest
from probes.model.edits import Edit, parse_edit
from probes.model.load import DTYPES
from probes.model.loaded import ModelFacts
from probes.registry import in_order, make_params, probe

__all__ = ["DEFAULT_PROBES", "MASKS", "Mask", "ProbeCall", "RunRequest", "capture_id", "library_versions", "run_id"]

Mask = Literal["all", "no_bos", "no_sink"]
MASKS: tuple[str, ...] = get_args(Mask)
_LIBRARIES = ("torch", "transformers", "transformer-lens", "sae-lens", "numpy", "scipy", "scikit-learn", "duckdb")


@dataclass(frozen=True)
class ProbeCall:
    """A probe with parameters. Parameters left out take the probe's defaults."""

    name: str
    params: Mapping[str, Any] = field(default_factory=dict)

    def full_params(self) -> Any:
        """The probe's frozen parameter object; raises BadRequest for what does not fit."""
        return make_params(self.name, self.params)


@dataclass(frozen=True)
class RunRequest:
    """One run: a model, token ids, what to change inside the pass (``edits``, in order), and what to find out.

    ``mask`` selects tokens for headline numbers.

    Raises BadRequest when built with an empty prompt, an unknown probe, parameter, mask or dtype.
    """

    model: str
    token_ids: tuple[int, ...]
    probes: tuple[ProbeCall, ...]
    mask: str = "all"
    dtype: str = "float32"
    device: str = "auto"
    edits: tuple[Edit, ...] = ()

    def __post_init__(self) -> None:
        if not self.token_ids:
            raise BadRequest("The prompt has no tokens: give at least one.")
        if not self.probes:
            raise BadRequest("Ask for at least one probe.")
        if self.mask not in MASKS:
            raise BadRequest(f"mask must be one of {', '.join(MASKS)}, not {str(self.mask)[:80]!r}.")
        if self.dtype not in DTYPES:
            raise BadRequest(f"dtype must be one of {', '.join(DTYPES)}, not {str(self.dtype)[:80]!r}.")
        in_order(call.name for call in self.probes)
        for call in self.probes:
            call.full_params()

    def ordered(self) -> tuple[ProbeCall, ...]:
        """The calls in the order they run."""
        by_name = {call.name: call for call in self.probes}
        return tuple(by_name[name] for name in in_order(by_name))

    def with_probes(self, *calls: ProbeCall) -> RunRequest:
        """The same prompt, asked something else."""
        return dataclasses.replace(self, probes=calls)

    def as_json(self) -> str:
        """The canonical form: equal requests give equal text."""
        plain = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        calls = [dataclasses.asdict(call) for call in self.probes]
        return canonical_json(plain | {"probes": calls, "edits": [edit.as_dict() for edit in self.edits]})

    @classmethod
    def from_stored(cls, stored: Mapping[str, Any]) -> RunRequest:
        """The request back from its parsed canonical form."""
        calls = tuple(ProbeCall(call["name"], call["params"]) for call in stored["probes"])
        edits = tuple(parse_edit(edit) for edit in stored.get("edits", ()))
        return cls(**{**stored, "token_ids": tuple(stored["token_ids"]), "probes": calls, "edits": edits})


DEFAULT_PROBES: tuple[ProbeCall, ...] = (
    ProbeCall("tokens"),
    ProbeCall("spectral"),
    ProbeCall("sinks"),
    ProbeCall("massive"),
    ProbeCall("lens", {"positions": "sample"}),
    ProbeCall("latents"),
    ProbeCall("events"),
)


def capture_id(facts: ModelFacts, token_ids: tuple[int, ...], edits: tuple[Edit, ...] = ()) -> str:
    """The key of what one forward pass leaves behind: weights, tokeniser, token ids, edits, dtype."""
    return digest(
        {
            "fingerprint": facts.fingerprint,
            "tokenizer": facts.tokenizer,
            "token_ids": list(token_ids),
            "edits": [edit.as_dict() for edit in edits],
            "dtype": facts.dtype,
        }
    )


def run_id(capture: str, request: RunRequest) -> str:
    """The key of result tables: the capture, the mask, every probe with all its parameters and its version, libraries."""
    calls = [
        [call.name, probe(call.name).spec.version, dataclasses.asdict(call.full_params())] for call in request.ordered()
    ]
    return digest({"capture": capture, "mask": request.mask, "probes": calls, "versions": library_versions()})


@cache
def library_versions() -> Mapping[str, str]:
    """The libraries whose version can move a number."""
    return {name: version(name) for name in _LIBRARIES}
