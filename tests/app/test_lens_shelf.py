"""Tuned lenses on the page Models: trained in the background, cancelled, resumed, discarded, and usable at once."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from app.jobs import Job
from app.lens_training import KEY
from app.services import Services, start
from probes.lenses.folder import fitting_lenses, installed_lenses
from probes.lenses.shelf import unfinished
from tests import tiny
from tests.app.fakes import told


@pytest.fixture
def held(empty_home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Services]:
    """Real services over a home with one tiny model."""
    tiny.save(empty_home / "models" / "small")
    made = start()
    monkeypatch.setattr("app.components.backend.start", lambda: made)
    st.cache_resource.clear()
    yield made
    st.cache_resource.clear()
    made.close()


def models_page() -> None:
    from app.views.models import page

    page()


def opened() -> AppTest:
    app = AppTest.from_function(models_page, default_timeout=60).run()
    app.button_group(key="lens-train-source").select("Built-in texts").run()
    assert not app.exception
    return app


def asked(held: Services, app: AppTest, name: str, tokens: int) -> Job:
    app.text_input(key="lens-train-name").input(name)
    app.number_input(key="lens-train-tokens").set_value(tokens)
    app.run()
    app.button(key="lens-train-start").click().run()
    assert not app.exception
    job = held.desk.get(KEY)
    assert job is not None
    return job


def plain(app: AppTest) -> str:
    return told(app).replace("\\", "").replace("\u2060", "") + " ".join(one.value for one in (*app.info, *app.warning))


def test_a_lens_is_trained_and_stands_in_the_list_at_once(held: Services) -> None:
    app = opened()
    job = asked(held, app, "", 2_100)
    assert job.wait(60)
    assert job.error is None
    app.run()
    assert not app.exception
    assert "**small-tuned** is trained and installed." in plain(app)
    assert "positions of held-out text" in plain(app)
    model = held.shelf.loaded("small")
    assert model is not None
    assert fitting_lenses(model.facts) == ["small-tuned"]
    assert "A tuned lens is called" not in plain(app)
    app.text_input(key="lens-train-name").input("small-tuned").run()
    assert "There is a tuned lens called 'small-tuned' already" in plain(app)
    assert app.button(key="lens-train-start").disabled
    app.text_input(key="lens-train-name").input("../x").run()
    assert "name must be 1..64 letters" in plain(app)


def test_a_cancelled_training_is_resumed_or_discarded(held: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    app = opened()
    job = asked(held, app, "mine", 20_000)
    until = time.monotonic() + 60
    while "step 2 " not in job.what and job.active and time.monotonic() < until:
        time.sleep(0.002)
    job.cancel()
    assert job.wait(60)
    app.run()
    assert not app.exception
    assert "it can be resumed" in plain(app)
    (begun,) = unfinished()
    assert 0 < begun.done < begun.work.steps
    app.button(key="lens-resume-mine").click().run()
    job = held.desk.get(KEY)
    assert job is not None
    assert job.wait(60)
    assert job.error is None
    assert list(installed_lenses()) == ["mine"]


def test_other_machines_train_nothing(held: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.components.lens_shelf.local", lambda: False)
    app = AppTest.from_function(models_page, default_timeout=60).run()
    assert "python -m app lens train" in plain(app)
    assert "lens-train-start" not in [button.key for button in app.button]
