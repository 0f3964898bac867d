"""Where models come from: installed folders, named folders, and hub ids."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path

from cache.home import home
from probes.errors import BadRequest

__all__ = ["EMBEDDED", "PRESETS", "ModelSource", "find", "installed", "models_folder", "write_provenance"]

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
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")
_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,95}")


@dataclass(frozen=True, slots=True)
class ModelSource:
    """A model before it is loaded. Exactly one of ``folder`` and ``hub_id`` is set."""

    name: str
    folder: Path | None
    hub_id: str | None
    weights: str | None = None


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
    """The model a person means: an installed name, a hub id, or (on the command line) a path.

    It is a path only if it starts with ``/``, ``./`` or ``~``. Raises BadRequest for anything else that is not known.
    """
    if name.startswith(("/", "./", "~")):
        if not allow_paths:
            raise BadRequest("Paths are taken on the command line only; put the folder below EIGENSCOPE_MODEL_DIRS.")
        folder = Path(name).expanduser()
        if not (folder / "config.json").is_file():
            raise BadRequest(f"There is no model folder with a config.json at {name}.")
        return _from_folder(folder)
    known = installed()
    if name in known:
        return known[name]
    if _HUB_ID.fullmatch(name):
        return ModelSource(name, None, name)
    if name == EMBEDDED:
        raise BadRequest(f"The embedded model is not installed yet: run python -m app models fetch {EMBEDDED}.")
    listed = ", ".join(sorted(known)) or "none"
    raise BadRequest(
        f"No model is called {name[:80]!r}: give an installed name ({listed}) or a hub id such as Qwen/Qwen3-0.6B."
    )


def write_provenance(folder: Path, weights: str, source: str) -> None:
    """Say beside the weights how they are stored and where they came from."""
    (folder / PROVENANCE).write_text(json.dumps({"weights": weights, "source": source}, indent=1) + "\n")


def _from_folder(folder: Path) -> ModelSource:
    note = folder / PROVENANCE
    weights = json.loads(note.read_text()).get("weights") if note.is_file() else None
    return ModelSource(folder.name, folder, None, str(weights) if weights else None)
