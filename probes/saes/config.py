"""The configuration of an SAE folder: read within limits, brought up to sae-lens 6, refused by key.

Nothing but JSON is opened here. Every refusal is one sentence naming the file or key.
"""

from __future__ import annotations

import importlib
import json
import math
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from probes.errors import BadRequest

__all__ = [
    "CONFIG",
    "SUPPORTED",
    "TRANSCODERS",
    "WEIGHTS",
    "SAEFormatError",
    "checked_name",
    "inside",
    "optional_whole",
    "positive",
    "read_config",
    "read_json",
    "sae_lens",
    "said",
    "whole",
]

CONFIG, WEIGHTS = "cfg.json", "sae_weights.safetensors"
TRANSCODERS = ("transcoder", "skip_transcoder", "jumprelu_transcoder", "jumprelu_skip_transcoder")
SUPPORTED = ("standard", "topk", "jumprelu", "gated", *TRANSCODERS)
_TRAINING: Mapping[str, str] = MappingProxyType({"batchtopk": "jumprelu", "matryoshka_batchtopk": "jumprelu"})
_NEEDS_STATISTICS = ("expected_average_only_in", "covariance_whitening")
_NORMALISATIONS = ("none", "constant_norm_rescale", "layer_norm")
_MAX_CONFIG = 1 << 20
_NAME = re.compile(r"\w[\w .+=@-]{0,119}")
_PICKLED = (".pt", ".pth", ".bin", ".pkl", ".ckpt")


class SAEFormatError(BadRequest):
    """A folder is no SAE that can be used: a file or key is missing or wrong, or its kind is not supported."""


def sae_lens() -> Any:
    """The library, imported when first needed: it brings TransformerLens along, which takes seconds."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The 'utils' module has been deprecated", category=DeprecationWarning)
        return importlib.import_module("sae_lens")


def checked_name(name: str) -> str:
    """A name that an SAE folder may have. Raises SAEFormatError for any other."""
    if not _NAME.fullmatch(name) or not name.isprintable() or name.endswith((" ", ".")):
        raise SAEFormatError(
            f"An SAE cannot be called {name[:80]!r}: a name begins with a letter or digit and holds at most 120 letters, "
            "digits, spaces and . _ - + = @."
        )
    return name


def inside(folder: Path, file: str) -> Path:
    """A file of a folder. Raises SAEFormatError if it is a link that leads out of it."""
    path = folder / file
    if not path.resolve().is_relative_to(folder.resolve()):
        raise SAEFormatError(f"{folder.name}: {file} is a link that leads out of the folder.")
    return path


def read_json(folder: Path, file: str) -> dict[str, Any]:
    """A JSON object of at most 1 MB, without NaN.

    Raises:
        SAEFormatError: the file is anything else.
    """
    name, path = folder.name, inside(folder, file)
    size = path.stat().st_size
    if size > _MAX_CONFIG:
        raise SAEFormatError(f"{name}: {file} has {size:,} bytes; a configuration has at most {_MAX_CONFIG:,}.")
    try:
        found = json.loads(path.read_text(encoding="utf-8"), parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise SAEFormatError(f"{name}: {file} is no valid JSON: {str(error)[:120]}.") from None
    if not isinstance(found, dict):
        raise SAEFormatError(f"{name}: {file} must be a JSON object.")
    return found


def read_config(folder: Path) -> dict[str, Any]:
    """The configuration in the form of sae-lens 6, older forms brought up by sae-lens itself.

    Raises:
        SAEFormatError: a file is missing or only pickled weights are there, or the configuration is no JSON object, or
            its architecture, activation function or normalisation is not supported.
    """
    name = folder.name
    checked_name(name)
    _check_files(folder)
    raw = read_json(folder, CONFIG)
    if not isinstance(raw.get("metadata", {}), dict):
        raise SAEFormatError(f"{name}: {CONFIG} and its metadata must be JSON objects.")
    _check_kind(raw, name)
    sae_lens()
    from sae_lens.loading.pretrained_sae_loaders import handle_config_defaulting

    try:
        config: dict[str, Any] = handle_config_defaulting({"dtype": "float32", **raw})
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise SAEFormatError(
            f"{name}: {CONFIG} cannot be read ({type(error).__name__}: {str(error)[:120]!a})."
        ) from error
    if "architecture" not in config:
        raise SAEFormatError(f"{name}: {CONFIG} has no architecture.")
    _check_normalisation(config, name)
    return config


def whole(values: Mapping[str, Any], key: str, name: str, at_most: int = 2**31) -> int:
    """A whole number of the configuration in 1..``at_most``. Raises SAEFormatError for anything else."""
    value = values.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= at_most:
        raise SAEFormatError(f"{name}: {key} must be a whole number in 1..{at_most}, not {ascii(value)[:80]}.")
    return value


def optional_whole(values: Mapping[str, Any], key: str, name: str) -> int | None:
    """The same, None where it is not told."""
    return None if values.get(key) is None else whole(values, key, name, at_most=2**63)


def positive(values: Mapping[str, Any], key: str, name: str) -> float | None:
    """A finite number above 0, None where it is not told. Raises SAEFormatError for anything else."""
    value = values.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not (math.isfinite(value) and value > 0):
        raise SAEFormatError(f"{name}: {key} must be a finite number above 0, not {ascii(value)[:80]}.")
    return float(value)


def said(values: Mapping[str, Any], key: str, at_most: int = 200) -> str:
    """A text of the configuration on one line, cut to ``at_most`` signs; what cannot be printed becomes �."""
    text = str(values.get(key) or "")[:at_most]
    return "".join(sign if sign.isprintable() else "�" for sign in text)


def _check_files(folder: Path) -> None:
    name = folder.name
    if not inside(folder, CONFIG).is_file():
        raise SAEFormatError(f"{name}: there is no {CONFIG}.")
    if not inside(folder, WEIGHTS).is_file():
        if (folder / "sae.safetensors").is_file():
            raise SAEFormatError(
                f"{name}: this is a folder of EleutherAI's sparsify; take it in with python -m app sae add FOLDER."
            )
        pickled = sorted(path.name for path in folder.iterdir() if path.suffix in _PICKLED)
        shown = pickled[0] if pickled and pickled[0].isprintable() else "pickled weights"
        reason = f" but {shown[:80]}, which can run code and is never opened" if pickled else ""
        raise SAEFormatError(f"{name}: there is no {WEIGHTS}{reason}.")


def _check_kind(raw: Mapping[str, Any], name: str) -> None:
    """The architecture, and the activation function that older configurations name beside it."""
    architecture = raw.get("architecture", "standard")
    if architecture not in SUPPORTED:
        hint = ""
        if isinstance(architecture, str) and architecture in _TRAINING:
            hint = f" ({architecture} is a form for training: save it for inference, which makes it {_TRAINING[architecture]})"
        raise SAEFormatError(
            f"{name}: the architecture {ascii(architecture)[:80]} is not supported{hint}; it must be one of "
            f"{', '.join(SUPPORTED)}."
        )
    activation = raw.get("activation_fn", raw.get("activation_fn_str", "relu"))
    if activation not in ("relu", "topk", None):
        raise SAEFormatError(
            f"{name}: the activation function {ascii(activation)[:80]} is not supported; it must be relu or topk."
        )
    if architecture in TRANSCODERS and raw.get("apply_b_dec_to_input") is not False:
        raise SAEFormatError(f"{name}: apply_b_dec_to_input must be false for a {architecture}.")


def _check_normalisation(config: Mapping[str, Any], name: str) -> None:
    normalisation = config.get("normalize_activations", "none")
    if normalisation in _NEEDS_STATISTICS:
        raise SAEFormatError(
            f"{name}: normalize_activations is {normalisation!r}, whose statistics are not in the folder; fold them into "
            f"the weights first."
        )
    if normalisation not in _NORMALISATIONS:
        raise SAEFormatError(
            f"{name}: normalize_activations must be one of {', '.join(_NORMALISATIONS)}, not {ascii(normalisation)[:80]}."
        )


def _no_constant(text: str) -> float:
    raise ValueError(f"{text} is no number of JSON")
