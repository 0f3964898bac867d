"""Steering as it is asked for, plain JSON: with one latent, or with the latents of a concept prompt. No streamlit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar, Literal

import numpy as np

from app.text import shortened
from probes.checks import shown, some_whole, whole, within_float32
from probes.errors import BadRequest
from probes.model.edits import Concept, Latent
from probes.model.sae_sources import CONCEPT_CHARACTERS
from probes.request import ProbeCall
from probes.runner import RunResult
from probes.saes.folder import SAEInfo

__all__ = [
    "CONCEPT", "FIRST", "LIMIT", "MODES", "WRITTEN", "ConceptSteer", "Steer", "control_of", "controls_of", "read_steer",
]  # fmt: skip

Mode = Literal["add", "clamp"]
CONCEPT = "concept"
MODES = {"add": "add", "clamp": "clamp", CONCEPT: "concept prompt"}
LIMIT = 10.0
"""Strength goes from minus this to this, in units of the latent's typical size or of what the concept prompt has."""
FIRST, WRITTEN = 32, 40
"""Tokens of the open text that are gone on from, and tokens written, unless asked otherwise."""
_MAX_PROMPT = 2_000


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What every steering says: an installed SAE, a strength, and what is written under it.

    ``generated``: only at what is written, else at the prompt too. The text goes on from ``prompt``, or where it is empty
    from the ``first`` tokens of the open text. Raises BadRequest for what does not fit.
    """

    __no_type_check__ = True  # values come from people: refused in a sentence, not by the type hook of the tests

    needs: ClassVar[tuple[str, ...]]

    sae: str
    strength: float = 2.0
    generated: bool = True
    prompt: str = ""
    first: int = FIRST
    tokens: int = WRITTEN
    temperature: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        _require(isinstance(self.sae, str) and bool(self.sae), "sae", "the name of an SAE", self.sae)
        for name in ("first", "tokens", "seed"):
            _require(whole(getattr(self, name)), name, "a whole number from 0", getattr(self, name))
        self._number("strength", -LIMIT, LIMIT)
        self._number("temperature", 0, 5)
        _require(isinstance(self.generated, bool), "generated", "true or false", self.generated)
        _require(1 <= self.tokens <= 512, "tokens", "a whole number from 1 to 512", self.tokens)
        _require(self.first >= 1, "first", "a whole number from 1", self.first)
        fits = isinstance(self.prompt, str) and len(self.prompt) <= _MAX_PROMPT
        _require(fits, "prompt", f"a text of at most {_MAX_PROMPT:,} characters", self.prompt)

    def as_dict(self) -> dict[str, Any]:
        """As plain JSON, for links, sessions and reports."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    def check(self, info: SAEInfo) -> None:
        """Raise BadRequest for a latent the SAE does not have."""
        for name in ("latent", "latents", "control"):
            named = getattr(self, name, 0)
            largest = max(named) if isinstance(named, tuple) else named
            if largest >= info.d_sae:
                raise BadRequest(f"{name} must lie in 0..{info.d_sae - 1} for {info.name}, not {largest}.")

    def _number(self, name: str, low: float, high: float) -> None:
        given = getattr(self, name)
        number = isinstance(given, int | float) and not isinstance(given, bool)
        _require(number and low <= given <= high, name, f"a number from {low:g} to {high:g}", given)
        object.__setattr__(self, name, float(given))


@dataclass(frozen=True, kw_only=True)
class Steer(Asked):
    """Steering with a latent, added at ``strength`` times its ``typical`` size m, or clamped to that.

    ``control`` is another latent, along which the same lengths are written.
    """

    __no_type_check__ = True

    needs = ("sae", "latent", "control", "typical")

    latent: int
    control: int
    typical: float
    mode: Mode = "add"

    def __post_init__(self) -> None:
        super().__post_init__()
        _require(self.mode in ("add", "clamp"), "mode", "add or clamp", self.mode)
        for name in ("latent", "control"):
            _require(whole(getattr(self, name)), name, "a whole number from 0", getattr(self, name))
        self._number("typical", 0, 1e30)
        _require(self.typical > 0, "typical", "above 0", self.typical)
        _require(self.control != self.latent, "control", "another latent than the steered one", self.control)

    @property
    def named(self) -> str:
        """What it steers with."""
        return f"latent {self.latent}"

    @property
    def control_named(self) -> str:
        """What its control steers with."""
        return f"latent {self.control}"

    @property
    def amount(self) -> str:
        """How strongly, in words."""
        if self.mode == "add":
            return f"{self.strength:+g} × its size"
        return f"clamped to {self.strength * self.typical:.4g}"

    @property
    def effect(self) -> ProbeCall:
        """The question whose answer holds the tokens it promotes."""
        return ProbeCall("latent_effect", {"sae": self.sae, "latent": self.latent})

    def promoted(self, answer: RunResult) -> list[int]:
        """The tokens that the latent makes likelier on the direct path, by the answer to :attr:`effect`."""
        return list(answer.tensor("effect_ids")[0].tolist())

    def change(self, content: str, control: bool) -> tuple[Literal["add", "set"], Latent]:
        """The op and source of the edit, or those of its control; ``content`` is the digest of the SAE."""
        along = self.control if control else None
        if self.mode == "add":
            source = Latent(
                self.sae, self.latent, add=self.strength, typical=self.typical, along=along, content=content
            )
            return "add", source
        clamp = self.strength * self.typical
        return "set", Latent(self.sae, self.latent, clamp=clamp, along=along, content=content)


@dataclass(frozen=True, kw_only=True)
class ConceptSteer(Asked):
    """Steering with a concept prompt: ``strength`` times its ``latents`` at their mean activations, ``values``, is added.

    ``control`` are as many other latents, which are given the same values and then the same length.
    """

    __no_type_check__ = True

    needs = ("sae", "concept", "latents", "values", "control")

    concept: str
    latents: tuple[int, ...]
    values: tuple[float, ...]
    control: tuple[int, ...]

    def __post_init__(self) -> None:
        super().__post_init__()
        text = isinstance(self.concept, str) and self.concept.strip() and len(self.concept) <= CONCEPT_CHARACTERS
        _require(bool(text), "concept", f"a text of 1 to {CONCEPT_CHARACTERS} characters", self.concept)
        for name in ("latents", "values", "control"):
            given = getattr(self, name)
            object.__setattr__(self, name, tuple(given) if isinstance(given, list) else given)
        for name in ("latents", "control"):
            given = getattr(self, name)
            different = some_whole(given) and len(set(given)) == len(given)
            _require(different, name, "different whole numbers from 0", given)
        count = len(self.latents)
        numbers = isinstance(self.values, tuple) and all(within_float32(one) and one > 0 for one in self.values)
        _require(numbers and len(self.values) == count, "values", f"{count} numbers above 0", self.values)
        others = len(self.control) == count and not set(self.control) & set(self.latents)
        _require(others, "control", f"{count} latents that are not its own", self.control)

    @property
    def named(self) -> str:
        return f"the concept prompt “{shortened(self.concept, 40)}”"

    @property
    def control_named(self) -> str:
        return f"{len(self.control)} other latents"

    @property
    def amount(self) -> str:
        return f"{self.strength:+g} × what it has"

    @property
    def effect(self) -> ProbeCall:
        given = {"sae": self.sae, "latents": list(self.latents), "values": list(self.values)}
        return ProbeCall("concept_effect", given)

    def promoted(self, answer: RunResult) -> list[int]:
        """Those that what is added makes likelier: what f W_dec promotes, or where it is taken away what it suppresses."""
        return list(answer.tensor("concept_effect_ids")[0 if self.strength >= 0 else 1].tolist())

    def change(self, content: str, control: bool) -> tuple[Literal["add"], Concept]:
        """As :meth:`Steer.change`."""
        along = self.control if control else None
        return "add", Concept(self.sae, self.concept, self.strength, self.latents, self.values, along, content)


def read_steer(given: Mapping[str, Any]) -> Steer | ConceptSteer:
    """A steering from JSON. Raises BadRequest for what cannot be meant."""
    kind = ConceptSteer if "concept" in given else Steer
    known = [field.name for field in fields(kind)]
    unknown = [name for name in given if name not in known]
    if unknown:
        raise BadRequest(f"A steering has no {str(unknown[0])[:64]!r}; it has {', '.join(known)}.")
    missing = [name for name in kind.needs if name not in given]
    if missing:
        raise BadRequest(f"A steering needs {missing[0]}.")
    return kind(**given)


def control_of(latent: int, d_sae: int, alive: Sequence[int] = ()) -> int:
    """Another latent, drawn by the number of the steered one: among ``alive``, those that fire somewhere, where known.

    Raises BadRequest for an SAE with a single latent.
    """
    others = [one for one in (alive if len(alive) else range(d_sae)) if one != latent]
    if not others:
        raise BadRequest("An SAE of one latent has no other to compare with.")
    return int(others[int(np.random.default_rng(latent).integers(len(others)))])


def controls_of(latents: Sequence[int], d_sae: int, alive: Sequence[int] = ()) -> tuple[int, ...]:
    """As many other latents, drawn without repeats by the numbers of ``latents``, among ``alive`` where known.

    Raises BadRequest where there are too few.
    """
    others = np.setdiff1d(np.asarray(alive if len(alive) else range(d_sae), dtype=int), latents)
    if len(others) < len(latents):
        raise BadRequest(f"{len(latents)} latents need as many others to compare with, and there are {len(others)}.")
    drawn = np.random.default_rng(list(latents)).choice(others, len(latents), replace=False)
    return tuple(drawn.tolist())


def _require(fits: bool, name: str, allowed: str, given: Any) -> None:
    if not fits:
        raise BadRequest(f"{name} of a steering must be {allowed}, not {shown(given)}.")
