"""Values of the command line, read strictly: what does not fit is named with what would."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from probes.errors import BadRequest

__all__ = ["assignments", "integers", "merge", "positions"]

_SETTING = re.compile(r"(\w+)\.(\w+)=(.*)", re.DOTALL)


def integers(text: str | None, name: str) -> tuple[int, ...] | None:
    """``0,12,30`` as numbers, in order, without repeats."""
    if text is None:
        return None
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdigit() for part in parts):
        raise BadRequest(f"--{name} must be whole numbers separated by commas, such as 0,12,30, not {text[:80]!r}.")
    return tuple(sorted({int(part) for part in parts}))


def positions(text: str) -> str | tuple[int, ...]:
    """``all``, ``sample``, ``last``, a range ``0-63`` or numbers ``3,5``."""
    if text in ("all", "sample", "last"):
        return text
    ends = re.fullmatch(r"(\d{1,7})-(\d{1,7})", text)
    if ends and int(ends[1]) <= int(ends[2]):
        return tuple(range(int(ends[1]), int(ends[2]) + 1))
    if re.fullmatch(r"\d+(,\d+)*", text):
        return integers(text, "positions") or ()
    raise BadRequest(
        f"--positions must be all, sample, last, a range such as 0-63 or numbers such as 3,5, not {text[:80]!r}."
    )


def assignments(settings: Sequence[str]) -> dict[str, dict[str, Any]]:
    """``probe.parameter=value`` by probe; a value that is not JSON is text."""
    given: dict[str, dict[str, Any]] = {}
    for setting in settings:
        parts = _SETTING.fullmatch(setting)
        if parts is None:
            raise BadRequest(f"--set takes probe.parameter=value, not {setting[:80]!r}.")
        try:
            value = json.loads(parts[3])
        except (json.JSONDecodeError, RecursionError):
            value = parts[3]
        given.setdefault(parts[1], {})[parts[2]] = value
    return given


def merge(
    names: Sequence[str],
    given: Mapping[str, Mapping[str, Any]],
    *,
    points: tuple[int, ...] | None,
    positions: str | tuple[int, ...],
    sae: str | None,
) -> dict[str, dict[str, Any]]:
    """Parameters of every probe that was asked for: what the shared options say, then what ``--set`` says."""
    stray = [name for name in given if name not in names]
    if stray:
        raise BadRequest(f"--set names {stray[0][:80]!r}, which is not among the probes asked for: {', '.join(names)}.")
    shared: dict[str, dict[str, Any]] = {"spectral": {}, "lens": {"positions": positions}, "latents": {}}
    if points is not None:
        shared["spectral"]["points"] = shared["lens"]["points"] = points
    if sae is not None:
        if "latents" not in names:
            raise BadRequest("--sae needs the probe latents.")
        shared["latents"]["sae"] = sae
    return {name: {**shared.get(name, {}), **given.get(name, {})} for name in names}
