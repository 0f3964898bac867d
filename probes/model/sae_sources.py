"""What an edit may take from a sparse autoencoder: its reconstruction of the state, or one of its latents.

A source that was settled (:mod:`probes.saes.settling`) says the digest of the SAE it means and the size of a latent, so
the key of an edited run depends on both.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from probes.checks import whole

__all__ = ["SAE_SOURCES", "Latent", "Rebuilt", "fault", "read_sae_source"]

SAE_SOURCES = '{"sae": name} or {"latent": [sae, i], "add" or "clamp": number}'
_LARGEST = 3.0e38  # float32


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


def read_sae_source(given: Mapping[str, Any]) -> Rebuilt | Latent | None:
    """The source JSON values mean; None where they name no SAE. What is wrong in it, :func:`fault` says."""
    values = dict(given)
    if "sae" in values and set(values) <= {"sae", "keep_error", "content"}:
        return Rebuilt(**values)
    pair = values.pop("latent", None)
    named = isinstance(pair, list | tuple) and len(pair) == 2
    if not named or not set(values) <= {"add", "clamp", "typical", "along", "content"}:
        return None
    return Latent(pair[0], pair[1], **values)


def fault(source: Rebuilt | Latent, op: str) -> str | None:
    """What is wrong with a source on any model, or None."""
    if not isinstance(source.sae, str) or not source.sae:
        return f"an SAE is named by a text, not {_shown(source.sae)}"
    if source.content is not None and not isinstance(source.content, str):
        return f"content must be the digest of an SAE, not {_shown(source.content)}"
    if isinstance(source, Rebuilt):
        if not isinstance(source.keep_error, bool):
            return f"keep_error must be true or false, not {_shown(source.keep_error)}"
        return None if op == "set" else f"a reconstruction goes with op set, not {op}"
    for name, number in (("latent", source.latent), ("along", source.along)):
        if not whole(number) and (name == "latent" or number is not None):
            return f"{name} must be a whole number from 0, not {_shown(number)}"
    if (source.add is None) == (source.clamp is None):
        return 'a latent takes one of "add" and "clamp"'
    wanted = "add" if source.add is not None else "set"
    if op != wanted:
        return f"a latent with {'add' if wanted == 'add' else 'clamp'} goes with op {wanted}, not {op}"
    for name in ("add", "clamp", "typical"):
        number = getattr(source, name)
        if number is not None and not _fits(number):
            return f"{name} must be a finite number within float32, not {_shown(number)}"
    if source.typical is not None and (source.add is None or source.typical <= 0):
        return "typical must be above 0 and goes with add"
    return None


def _said(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _fits(value: Any) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and abs(value) <= _LARGEST  # NaN is not


def _shown(value: Any) -> str:
    return repr(value if isinstance(value, str) else str(value))[:120]
