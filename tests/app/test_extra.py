"""One more question about a run: asked once, watched, refused in a sentence, read from the store ever after."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from app.jobs import Desk
from app.services import Services
from probes.errors import PlanRefused
from tests.app.fakes import FakeRunner, fake_services


@pytest.fixture
def held(empty_home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Services]:
    made = fake_services()
    monkeypatch.setattr("app.components.backend.start", lambda: made)
    monkeypatch.setattr("app.components.extra._PATIENCE", 5.0)
    st.cache_resource.clear()
    yield made
    st.cache_resource.clear()
    made.close()


def script(auto: bool = False) -> None:
    import streamlit as st

    from app.components.backend import services
    from app.components.extra import extra
    from app.selection import Selection
    from app.view import View
    from probes.request import ProbeCall

    held = services()
    view = View(held, held.open("run0"), Selection())
    answer = extra(view, ProbeCall("lens", {"positions": (3,)}), label="Read it", auto=auto)
    st.write("nothing yet" if answer is None else f"answered by {answer.info.run_id}")


def test_a_button_asks_and_the_store_answers_afterwards(held: Services) -> None:
    app = AppTest.from_function(script, default_timeout=30).run()
    assert app.markdown[0].value == "nothing yet"
    app.button[0].click().run()
    assert not app.exception
    answer = app.markdown[0].value
    assert answer.startswith("answered by ")
    held.desk = Desk()  # as after a restart of the server: only the store remembers
    assert AppTest.from_function(script, default_timeout=30).run().markdown[0].value == answer
    assert len(held.runner.requests) == 1  # type: ignore[attr-defined]


def test_auto_asks_by_itself(held: Services) -> None:
    app = AppTest.from_function(script, kwargs={"auto": True}, default_timeout=30).run()
    assert app.markdown[0].value.startswith("answered by ")


def test_a_refusal_is_told_once_and_may_be_tried_again(held: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PlanRefused("That would take 9 GB; ask for fewer positions.")

    monkeypatch.setattr(FakeRunner, "run", refuse)
    app = AppTest.from_function(script, kwargs={"auto": True}, default_timeout=30).run()
    assert [warning.value for warning in app.warning] == ["That would take 9 GB\\; ask for fewer positions\\."]
    app.run()
    assert len(app.warning) == 1
    assert app.button[0].label == "Try again"


def test_long_work_shows_progress_and_is_cancelled(held: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.components.extra._PATIENCE", 0.0)
    gate = threading.Event()

    def slow(self: FakeRunner, request: object, progress: object) -> None:
        progress.step(0.5, "thinking")  # type: ignore[attr-defined]
        gate.wait(10)
        progress.step(0.6, "thinking on")  # type: ignore[attr-defined]

    monkeypatch.setattr(FakeRunner, "run", slow)
    app = AppTest.from_function(script, kwargs={"auto": True}, default_timeout=30).run()
    assert app.markdown[0].value == "nothing yet"
    (job,) = held.desk.active()
    app.button(key=f"cancel-{job.number}").click().run()
    gate.set()
    assert job.wait(5)
    assert job.state == "cancelled"
