"""Tuned lenses on disk, in the format of the package tuned-lens: ``config.json`` and ``params.pt`` in a folder.

``params.pt`` is a pickle by nature. It is read with ``torch.load(weights_only=True)``, which runs no code, and only after
its members have been measured: a file that claims more than its configuration allows is not opened.
"""

import dataclasses
import hashlib
import json
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor

from analysis.tuned_lens import Translators
from cache.home import home
from probes.errors import BadRequest
from probes.model.loaded import LoadedModel, ModelFacts

__all__ = [
    "CONFIG",
    "PARAMS",
    "LensConfig",
    "config_of",
    "content_digest",
    "digest_of",
    "fitting_lenses",
    "installed_lenses",
    "lens_folder",
    "lenses_folder",
    "load_lens",
    "misfit",
    "read_config",
    "read_params",
    "save_lens",
]

CONFIG, PARAMS = "config.json", "params.pt"
_TYPE = "linear_tuned_lens"
_MAX_CONFIG, _MAX_LAYERS, _MAX_WIDTH = 1 << 16, 1000, 1 << 16
_SLACK = 1 << 20  # bytes of a params.pt beside its numbers


@dataclass(frozen=True, slots=True)
class LensConfig:
    """What ``config.json`` says. ``unembed_hash`` names the unembedding the lens was trained with."""

    base_model_name_or_path: str
    d_model: int
    num_hidden_layers: int
    bias: bool
    base_model_revision: str | None
    unembed_hash: str
    lens_type: str = _TYPE


def lenses_folder() -> Path:
    """Where installed lenses are: a folder each, by name."""
    return home() / "lenses"


def installed_lenses() -> dict[str, Path]:
    """The folders of installed lenses by name, in order of their names, whether they can be read or not."""
    place = lenses_folder()
    folders = sorted(place.iterdir()) if place.is_dir() else []
    return {folder.name: folder for folder in folders if folder.name[0] != "." and (folder / CONFIG).is_file()}


def config_of(model: LoadedModel) -> LensConfig:
    """The configuration of a lens for this model."""
    facts = model.facts
    return LensConfig(facts.name, facts.d_model, facts.n_layers, True, None, model.unembed_hash)


def read_config(folder: Path) -> LensConfig:
    """Raises BadRequest naming what is wrong with ``config.json``; keys it does not know are ignored."""
    where = f"The tuned lens {folder.name[:80]!r}"
    try:
        with (folder / CONFIG).open("rb") as file:
            content = file.read(_MAX_CONFIG + 1)
        said = json.loads(content) if len(content) <= _MAX_CONFIG else None
    except (OSError, ValueError, RecursionError):
        said = None
    if not isinstance(said, dict):
        raise BadRequest(f"{where} has no {CONFIG} that is a JSON object of at most {_MAX_CONFIG // 1024} KB.")
    if said.get("lens_type", _TYPE) != _TYPE:
        raise BadRequest(f"{where} must have lens_type {_TYPE!r}, not {str(said['lens_type'])[:40]!r}.")
    for name, most in (("d_model", _MAX_WIDTH), ("num_hidden_layers", _MAX_LAYERS)):
        value = said.get(name)
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
            raise BadRequest(f"{where} must have a whole {name} from 1 to {most:,}, not {str(value)[:40]!r}.")
    if not isinstance(said.get("bias", True), bool):
        raise BadRequest(f"{where} must have a bias of true or false, not {str(said['bias'])[:40]!r}.")
    if not isinstance(said.get("unembed_hash"), str):
        raise BadRequest(f"{where} has no unembed_hash, so nothing says which model it was trained on.")
    revision = said.get("base_model_revision")
    return LensConfig(
        str(said.get("base_model_name_or_path", "")),
        said["d_model"],
        said["num_hidden_layers"],
        said.get("bias", True),
        None if revision is None else str(revision),
        said["unembed_hash"],
    )


def read_params(folder: Path, config: LensConfig) -> Translators:
    """The translators, float32. Raises BadRequest naming what is wrong with ``params.pt``; nothing in it is run."""
    where = f"The tuned lens {folder.name[:80]!r}"
    layers, d = config.num_hidden_layers, config.d_model
    most = layers * (d * d + d) * 4 + _SLACK
    try:
        with zipfile.ZipFile(folder / PARAMS) as members:
            size = sum(member.file_size for member in members.infolist())
        if size > most:
            raise BadRequest(f"{where} has a {PARAMS} of {size:,} bytes; its configuration allows {most:,}.")
        found = torch.load(folder / PARAMS, map_location="cpu", weights_only=True)
    except (OSError, zipfile.BadZipFile, UnpicklingError, RuntimeError, EOFError, KeyError, ValueError) as error:
        if isinstance(error, BadRequest):
            raise
        raise BadRequest(f"{where} has no {PARAMS} that holds plain tensors and nothing else.") from None
    shapes: dict[str, tuple[int, ...]] = {f"{i}.weight": (d, d) for i in range(layers)}
    shapes |= {f"{i}.bias": (d,) for i in range(layers)} if config.bias else {}
    tensors = found if isinstance(found, dict) else {}
    if set(tensors) != set(shapes):
        odd = sorted(str(name) for name in set(shapes) ^ set(tensors))
        raise BadRequest(
            f"{where} must hold a weight and bias of each of its {layers} layers; {odd[0][:40]!r} differs."
        )
    for name, shape in shapes.items():
        part = tensors[name]
        if not isinstance(part, Tensor) or tuple(part.shape) != shape or not part.is_floating_point():
            raise BadRequest(f"{where}: {name} must be floating-point numbers of the shape {list(shape)}.")
        if not bool(torch.isfinite(part).all()):
            raise BadRequest(f"{where}: {name} holds numbers that are not finite.")
    weight = torch.stack([tensors[f"{i}.weight"].float() for i in range(layers)])
    bias = torch.stack([tensors[f"{i}.bias"].float() for i in range(layers)]) if config.bias else torch.zeros(layers, d)
    return Translators(weight, bias)


def load_lens(folder: Path, model: LoadedModel) -> Translators:
    """The translators of a lens for this model. Raises BadRequest if it cannot be read or was trained on another."""
    config, wanted = read_config(folder), config_of(model)
    reason = misfit(config, model.facts)
    if reason is not None:
        raise BadRequest(f"The tuned lens {folder.name[:80]!r} does not fit: {reason}.")
    if config.unembed_hash != wanted.unembed_hash:
        raise BadRequest(
            f"The tuned lens {folder.name[:80]!r} was trained with another unembedding than that of {model.facts.name}: "
            f"unembed_hash {config.unembed_hash[:8]}, not {wanted.unembed_hash[:8]}."
        )
    return read_params(folder, config)


def save_lens(folder: Path, translators: Translators, config: LensConfig) -> None:
    """Write both files, as ``TunedLens.load`` of tuned-lens reads them."""
    folder.mkdir(parents=True, exist_ok=True)
    parts: dict[str, Tensor] = {}
    for layer, (weight, bias) in enumerate(zip(translators.weight, translators.bias, strict=True)):
        parts |= {f"{layer}.weight": weight.clone(), f"{layer}.bias": bias.clone()}
    for name, write in (
        (PARAMS, lambda path: torch.save(parts, path)),
        (CONFIG, lambda path: path.write_text(json.dumps(dataclasses.asdict(config)), encoding="utf-8")),
    ):
        with _replacing(folder / name) as part:
            write(part)


def fitting_lenses(facts: ModelFacts) -> list[str]:
    """Names of the installed lenses of this model's shape, those that say they were trained on it first."""
    found: dict[str, bool] = {}
    for name, folder in installed_lenses().items():
        with suppress(BadRequest):
            config = read_config(folder)
            if misfit(config, facts) is None:
                found[name] = config.base_model_name_or_path == facts.name
    return sorted(found, key=lambda name: not found[name])


def lens_folder(name: str) -> Path:
    """The folder of an installed lens. Raises BadRequest naming those there are if there is none of that name."""
    found = installed_lenses()
    if name not in found:
        known = ", ".join(found) or "none"
        raise BadRequest(f"No tuned lens is called {name[:80]!r}; installed: {known[:400]}.")
    return found[name]


def misfit(config: LensConfig, facts: ModelFacts) -> str | None:
    """Why a lens cannot be of a model of this shape, or None; whether the unembedding is the same is seen when it is loaded."""
    for name, wanted in (("d_model", facts.d_model), ("num_hidden_layers", facts.n_layers)):
        if getattr(config, name) != wanted:
            return f"it has {name} {getattr(config, name)}, {facts.name} has {wanted}"
    return None


def digest_of(name: str) -> str:
    """:func:`content_digest` of the lens of that name; empty where there is none."""
    folder = installed_lenses().get(name)
    return "" if folder is None else content_digest(folder)


def content_digest(folder: Path) -> str:
    """Hash of both files, cached until one changes: what a stored reading of this lens depends on."""
    there = [path for path in (folder / CONFIG, folder / PARAMS) if path.is_file()]
    return _digest(tuple((path, path.stat().st_mtime_ns, path.stat().st_size) for path in there))


@cache
def _digest(stamps: tuple[tuple[Path, int, int], ...]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for path, *_ in stamps:
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "blake2b").digest())
    return digest.hexdigest()


@contextmanager
def _replacing(path: Path) -> Iterator[Any]:
    part = path.with_name(f"{path.name}.part")
    yield part
    part.replace(path)
