"""A store and a runner over the tests' own model."""

from collections.abc import Iterator

import pytest

from cache.store import Store
from probes.model.loaded import LoadedModel
from probes.model.shelf import Shelf
from probes.runner import Runner


@pytest.fixture
def store() -> Iterator[Store]:
    with Store.open(":memory:") as opened:
        yield opened


@pytest.fixture
def runner(model: LoadedModel, store: Store) -> Runner:
    """On the fixture ``model`` of the file."""
    shelf = Shelf()
    shelf.put(model)
    return Runner(store, shelf)
