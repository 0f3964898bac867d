"""The shelf of loaded models: at most a few in memory, each loaded once however many ask for it."""

from __future__ import annotations

import gc
import threading
from collections import OrderedDict

from probes.model.catalog import find
from probes.model.load import load, resolve_device
from probes.model.loaded import LoadedModel
from probes.progress import Progress

__all__ = ["Shelf"]


class Shelf:
    """Loads models by name, one at a time, and keeps the most recently used ones. Who asks for one that is in memory never
    waits for another to load."""

    def __init__(self, max_models: int = 1, *, allow_paths: bool = False) -> None:
        self._max_models = max_models
        self._allow_paths = allow_paths
        self._models: OrderedDict[tuple[str, str, str], LoadedModel] = OrderedDict()
        self._lock = threading.Lock()
        self._loading = threading.Lock()

    def get(
        self, name: str, dtype: str = "float32", device: str = "auto", progress: Progress | None = None
    ) -> LoadedModel:
        """The model by name (or ``NAME@int4``, a variant of it), loaded and checked if it is not on the shelf.

        Raises BadRequest for an unknown name, dtype or device, ModelRefused for a model that does not load or check.
        """
        key = (name, dtype, resolve_device(device))
        known = self._known(key)
        if known is not None:
            return known
        with self._loading:
            known = self._known(key)
            if known is not None:
                return known
            source = find(name, allow_paths=self._allow_paths)
            self._make_room()
            model = load(source, dtype, device, progress or Progress())
            with self._lock:
                self._models[key] = model
            return model

    def _known(self, key: tuple[str, str, str]) -> LoadedModel | None:
        with self._lock:
            if key in self._models:
                self._models.move_to_end(key)
            return self._models.get(key)

    def _make_room(self) -> None:
        """Let go of what is over the limit before the next one comes, and of its memory: a bridge refers to itself."""
        with self._lock:
            if len(self._models) < self._max_models:
                return
            while len(self._models) >= self._max_models:
                self._models.popitem(last=False)
        gc.collect()

    def loaded(self, name: str) -> LoadedModel | None:
        """The model if it is in memory at any dtype or device, most recent first; never loads."""
        with self._lock:
            return next((m for (n, _, __), m in reversed(self._models.items()) if n == name), None)

    def put(self, model: LoadedModel) -> None:
        """Take in a model that was built in memory, under its own name."""
        with self._lock:
            self._models[(model.facts.name, model.facts.dtype, model.facts.device)] = model
