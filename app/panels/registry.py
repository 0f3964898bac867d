"""Every panel by its key. A new page's panels are one name in `_MODULES`."""

from difflib import get_close_matches
from functools import cache
from importlib import import_module

from app.panels.panel import REGISTRY, Panel
from probes.errors import BadRequest

__all__ = ["panel", "panels"]

_MODULES = (
    "overview", "spectra", "spectrum", "weights", "token_spectra", "response", "sinks", "attention", "massive", "lens",
    "lens_tokens", "attribution", "latents", "latent", "geometry", "linearity", "loss", "find", "quality", "sae_compare",
    "steer", "test", "interventions", "compare", "two_prompts", "groups", "group_models", "predicting", "claims",
    "story",
)  # fmt: skip


@cache
def _load() -> None:
    for name in _MODULES:
        import_module(f"app.panels.{name}")


def panels() -> tuple[Panel, ...]:
    """Every panel, in the order of the pages."""
    _load()
    return tuple(REGISTRY.values())


def panel(key: str) -> Panel:
    """The panel of that key. Raises BadRequest if there is none."""
    _load()
    if key not in REGISTRY:
        near = get_close_matches(key, REGISTRY, 8, 0.3) or sorted(REGISTRY)[:8]
        raise BadRequest(f"There is no panel {key[:64]!r}; among the {len(REGISTRY)} there are {', '.join(near)}.")
    return REGISTRY[key]
