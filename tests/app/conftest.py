"""Pages over stored runs, without a model, and the command line in this process."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from app.cli import main
from app.services import Services
from tests.app.fakes import FakeResult, fake_services

OpenPage = Callable[..., AppTest]
Ran = tuple[int, str, str]


@pytest.fixture
def open_page(monkeypatch: pytest.MonkeyPatch) -> Iterator[OpenPage]:
    """``open_page(name, result, **query)``: the page of that name on a run, at an address."""
    made: list[Services] = []

    def opened(name: str, shown: FakeResult, **query: str) -> AppTest:
        held = fake_services(shown)
        made.append(held)
        monkeypatch.setattr("app.components.backend.start", lambda: held)
        st.cache_resource.clear()
        app = AppTest.from_string(f"from app.views.{name} import page\n\npage()\n", default_timeout=60)
        for key, value in {"run": "run0", **query}.items():
            app.query_params[key] = value
        return app.run()

    yield opened
    st.cache_resource.clear()
    for held in made:
        held.close()


@pytest.fixture
def command_line(
    empty_home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Ran]:
    """``command_line(*arguments)``: the exit status of ``python -m app`` with an empty home, what it wrote and what it said."""

    def call(*arguments: str) -> Ran:
        monkeypatch.setattr(sys, "argv", ["app", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        return int(ended.value.code or 0), captured.out, captured.err

    return call
