"""What an edit may take from a sparse autoencoder: its reconstruction of the state, one of its latents, or a concept.

A source that was settled (:mod:`probes.saes.settling`) says the digest of the SAE it means, the size of a latent and the
latents of a concept, so the key of an edited run depends on them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from probes.checks import shown, some_whole, whole, within_float32

__all__ = [
    "CONCEPT_CHARACTERS",
    "SAE_SOURCES",
    "Concept",
    "Latent",
    "Rebuilt",
    "SAESource",
    "along_fault",
    "fault",
    "read_sae_source",
]

SAE_SOURCES = '{"sae": name}, {"latent": [sae, i], "add" or "clamp": number} or {"concept": [sae, text], "add": number}'
CONCEPT_CHARACTERS = 500
"""A concept prompt is a sentence or two: the mean over a long text is that of any text."""


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """The SAE's reconstruction x_hat; with ``keep_error`` x_hat + (x - x_hat): the state as it is, to the bit."""

    __no_type_check__ = True  # checked by the edit, in a sentence

    sae: str
    keep_error: bool = False
    content: str | None = None

    def as_dict(self) -> dict[str, Any]:
        return _said({"sae": self.sae, "keep_error": self.keep_error, "content": self.content})

    def __str__(self) -> str:
        return f"what {self.sae[:40]} rebuilds{' plus its error' if self.keep_error else ''}"


@dataclass(frozen=True, slots=True)
class Latent:
    """One latent of an SAE, f_i its activation and W_dec[i] what it writes per unit; the rest of the state stays.

    ``add`` c: x + c * m_i * W_dec[i], where ``typical`` m_i is the latent's own typical size. ``clamp`` v:
    x + (v - f_i) W_dec[i]. ``along`` j writes the same lengths along W_dec[j]: the control of a direction.
    """

    __no_type_check__ = True  # checked by the edit, in a sentence

    sae: str
    latent: int
    add: float | None = None
    clamp: float | None = None
    typical: float | None = None
    along: int | None = None
    content: str | None = None

    def as_dict(self) -> dict[str, Any]:
        more = {name: getattr(self, name) for name in ("add", "clamp", "typical", "along", "content")}
        return _said({"latent": [self.sae, self.latent], **more})

    def __str__(self) -> str:
        where = "" if self.along is None else f" along latent {self.along}"
        what = f"latent {self.latent} of {self.sae[:40]}{where}"
        if self.clamp is not None:
            return f"{what} at {self.clamp:g}"
        return f"{self.add:g} x {what}" + ("" if self.typical is None else f" (typical {self.typical:.4g})")


@dataclass(frozen=True, slots=True)
class Concept:
    """What an SAE reads in a concept prompt (Kim and Ghadiyaram 2025, Concept Steerers): x + ``add`` * f W_dec.

    f holds the prompt's strongest latents, ``latents``, at their mean activations, ``values``, strongest first
    (:mod:`probes.saes.concept`); the decoder's bias is no part of it. ``along`` as many other latents, which are given the
    same values and then the same length: the control of a direction.
    """

    __no_type_check__ = True  # checked by the edit, in a sentence

    sae: str
    text: str
    add: float
    latents: tuple[int, ...] | None = None
    values: tuple[float, ...] | None = None
    along: tuple[int, ...] | None = None
    content: str | None = None

    def as_dict(self) -> dict[str, Any]:
        lists = {name: getattr(self, name) for name in ("latents", "values", "along")}
        more = {name: None if given is None else list(given) for name, given in lists.items()}
        return _said({"concept": [self.sae, self.text], "add": self.add, **more, "content": self.content})

    def __str__(self) -> str:
        where = "" if self.along is None else f" along {len(self.along)} other latents"
        return f"{self.add:g} x the concept {self.text[:40]!r} of {self.sae[:40]}{where}"


SAESource = Rebuilt | Latent | Concept


def read_sae_source(given: Mapping[str, Any]) -> SAESource | None:
    """The source JSON values mean; None where they name no SAE. What is wrong in it, :func:`fault` says."""
    values = dict(given)
    if "sae" in values and set(values) <= {"sae", "keep_error", "content"}:
        return Rebuilt(**values)
    kind = "concept" if "concept" in values else "latent"
    pair = values.pop(kind, None)
    if not isinstance(pair, list | tuple) or len(pair) != 2:
        return None
    if kind == "latent":
        known = set(values) <= {"add", "clamp", "typical", "along", "content"}
        return Latent(pair[0], pair[1], **values) if known else None
    if "add" not in values or not set(values) <= {"add", "latents", "values", "along", "content"}:
        return None
    return Concept(pair[0], pair[1], **{name: _frozen(value) for name, value in values.items()})


def fault(source: SAESource, op: str) -> str | None:
    """What is wrong with a source on any model, or None."""
    if not isinstance(source.sae, str) or not source.sae:
        return f"an SAE is named by a text, not {shown(source.sae)}"
    if source.content is not None and not isinstance(source.content, str):
        return f"content must be the digest of an SAE, not {shown(source.content)}"
    if isinstance(source, Rebuilt):
        if not isinstance(source.keep_error, bool):
            return f"keep_error must be true or false, not {shown(source.keep_error)}"
        return None if op == "set" else f"a reconstruction goes with op set, not {op}"
    return _fault_of_latent(source, op) if isinstance(source, Latent) else _fault_of_concept(source, op)


def _fault_of_latent(source: Latent, op: str) -> str | None:
    for name, number in (("latent", source.latent), ("along", source.along)):
        if not whole(number) and (name == "latent" or number is not None):
            return f"{name} must be a whole number from 0, not {shown(number)}"
    if (source.add is None) == (source.clamp is None):
        return 'a latent takes one of "add" and "clamp"'
    wanted = "add" if source.add is not None else "set"
    if op != wanted:
        return f"a latent with {'add' if wanted == 'add' else 'clamp'} goes with op {wanted}, not {op}"
    for name in ("add", "clamp", "typical"):
        number = getattr(source, name)
        if number is not None and not within_float32(number):
            return f"{name} must be a finite number within float32, not {shown(number)}"
    if source.typical is not None and (source.add is None or source.typical <= 0):
        return "typical must be above 0 and goes with add"
    return None


def _fault_of_concept(source: Concept, op: str) -> str | None:
    text = source.text
    if not isinstance(text, str) or not text.strip():
        return f"a concept prompt needs at least one visible character, not {shown(text)}"
    if len(text) > CONCEPT_CHARACTERS:
        return f"a concept prompt has at most {CONCEPT_CHARACTERS} characters, not {len(text):,}"
    if op != "add":
        return f"a concept goes with op add, not {op}"
    if not within_float32(source.add):
        return f"add must be a finite number within float32, not {shown(source.add)}"
    for name in ("latents", "along"):
        given = getattr(source, name)
        if given is not None and not (some_whole(given) and len(set(given)) == len(given)):
            return f"{name} of a concept must be different whole numbers from 0, not {shown(given)}"
    if (source.latents is None) != (source.values is None):
        return "latents and values of a concept go together"
    if source.latents is None or source.values is None:
        return None
    numbers = isinstance(source.values, tuple) and all(within_float32(one) and one > 0 for one in source.values)
    if not numbers or len(source.values) != len(source.latents):
        return f"values of a concept must be as many numbers above 0 as latents, not {shown(source.values)}"
    return along_fault(source)


def along_fault(source: Concept) -> str | None:
    """What is wrong with the control of a concept whose latents are known, or None."""
    along, latents = source.along, source.latents or ()
    if along is None or (len(along) == len(latents) and not set(along) & set(latents)):
        return None
    return f"along of a concept must be {len(latents)} latents that are not its own, not {shown(along)}"


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _said(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
