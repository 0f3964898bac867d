"""Pages over stored runs, without a model."""

from collections.abc import Callable, Iterator

import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from app.services import Services
from tests.app.fakes import FakeResult, fake_services

OpenPage = Callable[..., AppTest]


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
