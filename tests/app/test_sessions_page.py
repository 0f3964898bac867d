"""The page Sessions over a real store without a run: a bundle that comes in, comes again, or brings a deleted one back."""

import io
from collections.abc import Iterator

import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from app.components.keeping import begin
from app.services import Services
from cache import Store
from cache.bundle_write import export_bundle
from tests.app.fakes import TEXT, FakeRunner, FakeShelf, fake_result, told


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Iterator[Services]:
    with Store.open(":memory:") as store:
        made = Services(store, FakeShelf(), FakeRunner(fake_result()))  # type: ignore[arg-type]
        monkeypatch.setattr("app.components.backend.start", lambda: made)
        for module in ("app.views.sessions", "app.components.session_share"):
            monkeypatch.setattr(f"{module}.local", lambda: True)
        st.cache_resource.clear()
        yield made
        st.cache_resource.clear()


def bundle(store: Store, session_id: str) -> bytes:
    out = io.BytesIO()
    export_bundle(store, session_id, out, runs=(), tensors=(), vocabulary={})
    return out.getvalue()


def opened() -> AppTest:
    app = AppTest.from_string("from app.views.sessions import page\n\npage()\n", default_timeout=60).run()
    assert not app.exception
    return app


def bring(app: AppTest, content: bytes) -> AppTest:
    app.file_uploader(key="bundle-in").set_value(("one.eigenscope", content, "application/zip")).run()
    assert not app.exception
    return app


def noted(store: Store) -> str:
    session, _ = store.create_session("The mill")
    store.save_session(session.session_id, notes="a note")
    return session.session_id


def test_a_bundle_that_is_there_is_told_to_be_unchanged(held: Services) -> None:
    content = bundle(held.store, noted(held.store))
    app = bring(opened(), content)
    assert [toast.value for toast in app.toast] == ["“The mill” is already here, unchanged."]
    assert len(held.store.sessions()) == 1


def test_a_session_that_came_back_is_no_longer_told_as_deleted(held: Services) -> None:
    session_id = noted(held.store)
    content = bundle(held.store, session_id)
    app = opened()
    app.button(key=f"session-{session_id}").click().run()
    app.button(key="session-delete").click().run()
    assert "was deleted" in told(app)
    bring(app, content)
    assert [toast.value for toast in app.toast] == ["Imported “The mill”."]
    assert "was deleted" not in told(app)


def test_a_session_restored_elsewhere_is_no_longer_told_as_deleted(held: Services) -> None:
    session_id = noted(held.store)
    app = opened()
    app.button(key=f"session-{session_id}").click().run()
    app.button(key="session-delete").click().run()
    held.store.restore_session(session_id)
    assert "was deleted" not in told(app.run())


def test_a_title_made_from_text_ends_with_a_word(held: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(st, "session_state", {"_edit-keys": {}})
    made = begin(held, "run0")
    assert made is not None
    assert made.title.endswith("…")
    assert f" {made.title.removesuffix('…').split()[-1]}" in TEXT
