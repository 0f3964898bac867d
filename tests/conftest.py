"""Shapes and types are checked at every call in tests; models are tiny and random, or the embedded one."""

import os
import shutil
from pathlib import Path

import pytest
from jaxtyping import install_import_hook

install_import_hook(["analysis", "probes", "cache"], "beartype.beartype")

from cache.home import home  # noqa: E402  the hook must come first
from probes.model.catalog import EMBEDDED  # noqa: E402
from probes.model.loaded import LoadedModel  # noqa: E402
from probes.model.shelf import Shelf  # noqa: E402
from tests.serve import furnish  # noqa: E402

REPO = Path(__file__).parents[1]
INSTALLED = home() / "models" / EMBEDDED


def _absent(what: str, how: str) -> None:
    """Skip what this machine cannot run; in CI nothing is skipped."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"CI must have {what}: {how}")
    pytest.skip(f"{what} is not installed: {how}")


@pytest.fixture(scope="session")
def embedded_folder() -> Path:
    """The folder of the embedded model."""
    if not (INSTALLED / "config.json").is_file():
        _absent("the embedded model", "make model")
    return INSTALLED


@pytest.fixture(scope="session")
def shelf(embedded_folder: Path) -> Shelf:
    """One shelf for the whole session: the embedded model is loaded once."""
    return Shelf(max_models=1)


@pytest.fixture(scope="session")
def embedded(shelf: Shelf) -> LoadedModel:
    return shelf.get(EMBEDDED)


@pytest.fixture
def empty_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An EIGENSCOPE_HOME of its own with nothing in it."""
    monkeypatch.setenv("EIGENSCOPE_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def linked_home(empty_home: Path, embedded_folder: Path) -> Path:
    """An EIGENSCOPE_HOME of its own in which the embedded model and its mean bank are installed."""
    return furnish(empty_home, embedded_folder)


@pytest.fixture(scope="session")
def chromium() -> str:
    found = shutil.which("chromium")
    if found is None:
        _absent("Chromium", "apt-get install chromium")
    return str(found)
