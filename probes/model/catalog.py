"""Where models come from: installed folders, named folders, and hub ids."""

from __future__ import annotations

import dataclasses
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path

from cache.home import home
from probes.errors import BadRequest

__all__ = [
    "EMBEDDED",
    "PRESETS",
    "VARIANTS",
    "ModelSource",
    "base_name",
    "find",
    "installed",
    "models_folder",
    "split_variant",
    "write_provenance",
]

EMBEDDED = "smollm2-135m-instruct"
PROVENANCE = "eigenscope.json"
PRESETS: dict[str, str] = {
    "EleutherAI/pythia-70m-deduped": "Pythia 70M",
    "EleutherAI/pythia-160m-deduped": "Pythia 160M",
    "EleutherAI/pythia-410m-deduped": "Pythia 410M",
    "Qwen/Qwen2.5-0.5B": "Qwen2.5 0.5B",
    "Qwen/Qwen2.5-0.5B-Instruct": "Qwen2.5 0.5B Instruct",
    "Qwen/Qwen3-0.6B": "Qwen3 0.6B",
    "meta-llama/Llama-3.2-1B": "Llama 3.2 1B (gated)",
    "microsoft/phi-1_5": "Phi-1.5",
    "openai-community/gpt2": "GPT-2 small",
    "HuggingFaceTB/SmolLM2-135M": "SmolLM2 135M",
    "HuggingFaceTB/SmolLM2-360M-Instruct": "SmolLM2 360M Instruct",
    "google/gemma-2-2b": "Gemma 2 2B (gated)",
}
VARIANTS: dict[str, str] = {
    "int8": "int8 per output channel",
    "int4": "int4 per output channel",
    "bf16": "rounded to bfloat16",
    "fp16": "rounded to float16",
}
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")
_PATHS = ("/", "./", "~")


@dataclass(frozen=True, slots=True)
class ModelSource:
    """A model before it is loaded. Exactly one of ``folder`` and ``hub_id`` is set.

    ``weights`` says how they are stored, before ``variant`` changes them at load; ``name`` ends with the variant.
    """

    name: str
    folder: Path | None
    hub_id: str | None
    weights: str | None = None
    variant: str | None = None


def models_folder() -> Path:
    return home() / "models"


def installed() -> dict[str, ModelSource]:
    """Models the app offers without a network: folders with a ``config.json`` below the known places, by name."""
    extra = [Path(part).expanduser() for part in os.environ.get("EIGENSCOPE_MODEL_DIRS", "").split(os.pathsep) if part]
    found: dict[str, ModelSource] = {}
    for place in [models_folder(), *extra]:
        for config in sorted(place.glob("*/config.json")) if place.is_dir() else []:
            folder = config.parent
            if not folder.name.startswith("."):
                found.setdefault(folder.name, _from_folder(folder))
    return found


def find(name: str, *, allow_paths: bool) -> ModelSource:
    """The model a person means: an installed name, a hub id, or (on the command line) a path; each may end with a
    variant, as in ``NAME@int4``.

    It is a path only if it starts with ``/``, ``./`` or ``~``. Raises BadRequest for anything else that is not known.
    """
    exact = _exact(name, allow_paths)
    if exact is not None:
        return exact
    base, variant = split_variant(name)
    if variant is not None:
        source = find(base, allow_paths=allow_paths)
        if source.variant is not None:
            raise BadRequest(f"{name[:80]!r} names two variants; a model has one.")
        return dataclasses.replace(source, name=f"{source.name}@{variant}", variant=variant)
    if name.startswith(_PATHS):
        raise BadRequest(f"There is no model folder with a config.json at {name}.")
    if _HUB_ID.fullmatch(name):
        return ModelSource(name, None, name)
    if name == EMBEDDED:
        raise BadRequest(f"The embedded model is not installed yet: run python -m app models fetch {EMBEDDED}.")
    listed = ", ".join(sorted(installed())) or "none"
    raise BadRequest(
        f"No model is called {name[:80]!r}: give an installed name ({listed}) or a hub id such as Qwen/Qwen3-0.6B."
    )


def split_variant(name: str) -> tuple[str, str | None]:
    """``NAME@int4`` as the name and the variant; a name without ``@`` has none.

    Raises BadRequest for a variant that does not exist.
    """
    base, at, variant = name.rpartition("@")
    if not at:
        return name, None
    if variant not in VARIANTS:
        raise BadRequest(f"There is no variant {variant[:80]!r}: after the @ stands one of {', '.join(VARIANTS)}.")
    return base, variant


def base_name(name: str) -> str:
    """The name without its variant, if it ends with one."""
    base, at, variant = name.rpartition("@")
    return base if at and variant in VARIANTS else name


def _exact(name: str, allow_paths: bool) -> ModelSource | None:
    """The folder of that very name or path, if there is one."""
    if not name.startswith(_PATHS):
        return installed().get(name)
    if not allow_paths:
        raise BadRequest("Paths are taken on the command line only; put the folder below EIGENSCOPE_MODEL_DIRS.")
    folder = Path(name).expanduser()
    return _from_folder(folder) if (folder / "config.json").is_file() else None


def write_provenance(folder: Path, weights: str, source: str) -> None:
    """Say beside the weights how they are stored and where they came from."""
    (folder / PROVENANCE).write_text(json.dumps({"weights": weights, "source": source}, indent=1) + "\n")


def _from_folder(folder: Path) -> ModelSource:
    note = folder / PROVENANCE
    weights = json.loads(note.read_text()).get("weights") if note.is_file() else None
    return ModelSource(folder.name, folder, None, str(weights) if weights else None)
