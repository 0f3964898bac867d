"""What training an SAE on own text is asked for, and which values it may have."""

import dataclasses
import math
import re
from dataclasses import dataclass
from typing import Any

from probes.errors import BadRequest
from probes.saes.activations import CONTEXT
from probes.saes.folder import installed_folders

__all__ = ["MIN_CHUNKS", "STATES_A_CHUNK", "OwnRequest", "Text", "check_name", "read_text", "width_of"]

STATES_A_CHUNK = CONTEXT - 1  # position 0 is left out
MIN_CHUNKS = 16
MAX_TOKENS, MAX_FACTOR, MAX_K = 20_000_000, 64, 512
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_WIDTH = re.compile(r"(\d{1,3}(?:\.\d{1,3})?)x|(\d{1,7})")
_RESERVED = ("auto", "none")


@dataclass(frozen=True, slots=True)
class Text:
    """One document of own text. ``name`` is what people called it; it is never used as a path."""

    name: str
    text: str


@dataclass(frozen=True, slots=True)
class OwnRequest:
    """An SAE to train on own text. Refuses what no model could take; :meth:`check` what this model cannot.

    ``point`` is where it reads the residual stream, ``width`` the number of latents or a multiple of d_model (``8x``),
    ``tokens`` how many are used at most, ``epochs`` how often each is seen.
    """

    name: str
    model: str
    point: int
    width: str = "8x"
    k: int = 32
    tokens: int = 1_000_000
    epochs: float = 3.0
    learning_rate: float = 1e-3
    seed: int = 0

    def __post_init__(self) -> None:
        _check_form(self.name)
        if _WIDTH.fullmatch(self.width) is None:
            raise BadRequest(f"width must be a number of latents or a multiple such as 8x, not {self.width[:40]!r}.")
        _within("tokens", self.tokens, MIN_CHUNKS * STATES_A_CHUNK, MAX_TOKENS)
        _within("k", self.k, 1, MAX_K)
        _within("epochs", self.epochs, 0.1, 100)
        _within("learning rate", self.learning_rate, 1e-6, 0.1)
        _within("seed", self.seed, 0, 2**31 - 1)
        _within("point", self.point, 1, 10_000)

    def check(self, n_layers: int, d_model: int) -> int:
        """The number of latents for a model of this shape. Raises BadRequest naming what does not fit it."""
        if not 1 <= self.point <= n_layers:
            raise BadRequest(f"point must lie in 1..{n_layers} for {self.model}, not {self.point}.")
        d_sae = width_of(self.width, d_model)
        if self.k > d_sae:
            raise BadRequest(f"k must lie in 1..{min(MAX_K, d_sae)} for a width of {d_sae}, not {self.k}.")
        return d_sae

    def as_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def width_of(width: str, d_model: int) -> int:
    """Latents that ``8x`` or ``4608`` means. Raises BadRequest outside d_model / 4 .. 64 d_model."""
    match = _WIDTH.fullmatch(width)
    low, high = max(2, d_model // 4), MAX_FACTOR * d_model
    latents = 0 if match is None else round(float(match[1]) * d_model) if match[1] else int(match[2])
    if not low <= latents <= high:
        raise BadRequest(f"width must lie in {low}..{high} latents (0.25x..{MAX_FACTOR}x) here, not {width[:40]!r}.")
    return latents


def check_name(name: str) -> None:
    """Raises BadRequest unless an SAE may be made under this name: a plain one that is not taken, in any case."""
    _check_form(name)
    taken = next((one for one in installed_folders() if one.casefold() == name.casefold()), None)
    if taken is not None:
        raise BadRequest(f"There is an SAE called {taken!r} already; choose another name, or remove its folder first.")


def read_text(name: str, content: bytes) -> Text:
    """A document of a file's bytes. Raises BadRequest unless it is UTF-8 text with something in it."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise BadRequest(f"The file {name[:80]!r} is not UTF-8 text.") from None
    if "\0" in text:
        raise BadRequest(f"The file {name[:80]!r} holds zero bytes; it is no text.")
    if not text.strip():
        raise BadRequest(f"The file {name[:80]!r} is empty.")
    return Text(name, text.replace("\r\n", "\n"))


def _check_form(name: str) -> None:
    if _NAME.fullmatch(name) is None or name.endswith(".") or name.casefold() in _RESERVED:
        raise BadRequest(
            f"name must be 1..64 letters, digits, '.', '_' or '-', begin with a letter or digit, not end with '.', and not "
            f"be {' or '.join(_RESERVED)}; {name[:80]!r} is not."
        )


def _within(what: str, value: int | float, low: int | float, high: int | float) -> None:
    if isinstance(value, bool) or not (math.isfinite(value) and low <= value <= high):
        raise BadRequest(f"{what} must lie in {low:,g}..{high:,.10g}, not {value:,.10g}.")
