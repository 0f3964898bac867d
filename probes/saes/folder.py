"""SAE folders in SAELens' format: which are installed, and what their configuration says.

Nothing but JSON and safetensors is ever opened. Every refusal is one sentence naming the file or key.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import math
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from cache.home import home
from probes.errors import BadRequest

__all__ = [
    "CONFIG",
    "SUPPORTED",
    "WEIGHTS",
    "InstalledSAE",
    "SAEFormatError",
    "SAEInfo",
    "content_digest",
    "installed_folders",
    "installed_saes",
    "point_of_hook",
    "read_info",
    "sae_lens",
]

SUPPORTED = ("standard", "topk", "jumprelu", "gated")
CONFIG, WEIGHTS = "cfg.json", "sae_weights.safetensors"
_SHIPPED = Path(__file__).parent
_HOOK = re.compile(r"blocks\.(\d+)\.hook_resid_(pre|post)")
_CURRENT = re.compile(r"([6-9]|\d\d+)\.")  # versions whose configurations need no bringing up
_NEEDS_STATISTICS = ("expected_average_only_in", "covariance_whitening")


class SAEFormatError(BadRequest):
    """A folder is no SAE that can be used: a file or key is missing or wrong, or its kind is not supported."""


@dataclass(frozen=True, slots=True)
class SAEInfo:
    """What an SAE says of itself.

    ``point`` is where in the residual stream it reads, ``remark`` its maker's caveat, ``corpus_variance`` the reference
    of explained variance stored with it (None if it brings none).
    """

    name: str
    folder: Path
    shipped: bool
    architecture: str
    d_in: int
    d_sae: int
    k: int | None
    stored_dtype: str
    hook_name: str
    point: int
    model_name: str
    context_size: int | None
    training_tokens: int | None
    corpus_variance: float | None
    remark: str

    @property
    def card(self) -> str | None:
        """The text of its README.md, None if it has none."""
        path = self.folder / "README.md"
        return path.read_text(encoding="utf-8") if path.is_file() else None


@dataclass(frozen=True, slots=True)
class InstalledSAE:
    """A folder among the installed ones: its info, or the problem that keeps it from being used."""

    name: str
    folder: Path
    info: SAEInfo | None
    problem: str | None


def installed_folders() -> dict[str, Path]:
    """The folders that hold a configuration, shipped or below ``EIGENSCOPE_HOME/saes``, by name; nothing is read."""
    folders = {folder.name: folder for place in (_SHIPPED, home() / "saes") for folder in _folders(place)}
    return dict(sorted(folders.items()))


def installed_saes() -> tuple[InstalledSAE, ...]:
    """What the installed folders say of themselves, by name; home wins where both have a name."""
    found = []
    for name, folder in installed_folders().items():
        try:
            found.append(InstalledSAE(name, folder, read_info(folder), None))
        except SAEFormatError as error:
            found.append(InstalledSAE(name, folder, None, str(error)))
    return tuple(found)


def read_info(folder: Path) -> SAEInfo:
    """What the configuration of a folder says. Weights must be there but are not read.

    Raises:
        SAEFormatError: a file or key is missing, there are only pickled weights, or the architecture, normalisation or
            hook is not supported.
    """
    name = folder.name
    config = _config(folder)
    metadata = config.get("metadata", {})
    normalisation = config.get("normalize_activations", "none")
    if normalisation in _NEEDS_STATISTICS:
        raise SAEFormatError(
            f"{name}: normalize_activations is {normalisation!r}, whose statistics are not in the folder; fold them into "
            f"the weights first."
        )
    hook = metadata.get("hook_name")
    d_sae = _whole(config, "d_sae", name)
    architecture = str(config["architecture"])
    return SAEInfo(
        name=name,
        folder=folder,
        shipped=folder.parent == _SHIPPED,
        architecture=architecture,
        d_in=_whole(config, "d_in", name),
        d_sae=d_sae,
        k=_whole(config, "k", name, at_most=d_sae) if architecture == "topk" else None,
        stored_dtype=str(config.get("dtype", "float32")),
        hook_name=str(hook),
        point=point_of_hook(str(hook), name),
        model_name=str(metadata.get("model_name") or ""),
        context_size=_optional_whole(metadata, "context_size", name),
        training_tokens=_optional_whole(metadata, "training_tokens", name),
        corpus_variance=_variance(metadata, name),
        remark=str(metadata.get("remark") or ""),
    )


def point_of_hook(hook_name: str, name: str = "SAE") -> int:
    """The residual point of a TransformerLens hook: ``blocks.b.hook_resid_pre`` is b, ``hook_resid_post`` is b + 1.

    Raises:
        SAEFormatError: any other hook.
    """
    match = _HOOK.fullmatch(hook_name)
    if match is None:
        raise SAEFormatError(
            f"{name}: hook_name must be blocks.N.hook_resid_pre or blocks.N.hook_resid_post, not {hook_name[:80]!r}."
        )
    return int(match[1]) + (match[2] == "post")


def content_digest(folder: Path) -> str:
    """Hash of configuration and weights, those that are there: what a stored result of this SAE depends on.

    Cached until a file changes.
    """
    there = [path for path in (folder / CONFIG, folder / WEIGHTS) if path.is_file()]
    return _digest(tuple((path, path.stat().st_mtime_ns, path.stat().st_size) for path in there))


def sae_lens() -> Any:
    """The library, imported when first needed: it brings TransformerLens along, which takes seconds."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The 'utils' module has been deprecated", category=DeprecationWarning)
        return importlib.import_module("sae_lens")


@cache
def _digest(stamps: tuple[tuple[Path, int, int], ...]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for path, _, __ in stamps:
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "blake2b").digest())
    return digest.hexdigest()


def _folders(place: Path) -> Iterator[Path]:
    if place.is_dir():
        yield from (folder for folder in place.iterdir() if (folder / CONFIG).is_file())


def _config(folder: Path) -> dict[str, Any]:
    """The configuration in the form of sae-lens 6, older forms brought up by sae-lens itself."""
    name = folder.name
    if not (folder / CONFIG).is_file():
        raise SAEFormatError(f"{name}: there is no {CONFIG}.")
    if not (folder / WEIGHTS).is_file():
        pickled = sorted(
            path.name for path in folder.iterdir() if path.suffix in (".pt", ".pth", ".bin", ".pkl", ".ckpt")
        )
        reason = f" but {pickled[0]}, which can run code and is never opened" if pickled else ""
        raise SAEFormatError(f"{name}: there is no {WEIGHTS}{reason}.")
    try:
        raw = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise SAEFormatError(f"{name}: {CONFIG} is no valid JSON: {str(error)[:120]}.") from None
    if not isinstance(raw, dict) or not isinstance(raw.get("metadata", {}), dict):
        raise SAEFormatError(f"{name}: {CONFIG} and its metadata must be JSON objects.")
    if raw.get("architecture", "standard") not in SUPPORTED:
        raise SAEFormatError(
            f"{name}: architecture must be one of {', '.join(SUPPORTED)}, not {str(raw['architecture'])[:80]!r}."
        )
    sae_lens()
    from sae_lens.loading.pretrained_sae_loaders import handle_config_defaulting

    try:
        config: dict[str, Any] = handle_config_defaulting({"dtype": "float32", **raw})
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise SAEFormatError(
            f"{name}: {CONFIG} cannot be read ({type(error).__name__}: {str(error)[:120]})."
        ) from error
    if "architecture" not in config:
        raise SAEFormatError(f"{name}: {CONFIG} has no architecture.")
    return config


def _whole(values: dict[str, Any], key: str, name: str, at_most: int = 2**31) -> int:
    value = values.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= at_most:
        raise SAEFormatError(f"{name}: {key} must be a whole number in 1..{at_most}, not {str(value)[:80]}.")
    return value


def _optional_whole(values: dict[str, Any], key: str, name: str) -> int | None:
    return None if values.get(key) is None else _whole(values, key, name, at_most=2**63)


def _variance(metadata: dict[str, Any], name: str) -> float | None:
    value = metadata.get("corpus_variance")
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not (math.isfinite(value) and value > 0):
        raise SAEFormatError(f"{name}: corpus_variance must be a finite number above 0, not {str(value)[:80]}.")
    return float(value)
