"""Models and their variants: chosen beside the model, checked like any, named in what is run."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from app.services import Services, load_tokenizer, start
from tests import tiny
from tests.app.fakes import told


@pytest.fixture
def held(empty_home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Services]:
    """Real services over a home with one tiny model."""
    tiny.save(empty_home / "models" / "mine")
    made = start()
    monkeypatch.setattr("app.components.backend.start", lambda: made)
    st.cache_resource.clear()
    yield made
    st.cache_resource.clear()
    made.close()


def models_page() -> None:
    from app.views.models import page

    page()


def run_form() -> None:
    from app.components.run_form import run_dialog

    run_dialog("mine@int8")


def test_a_variant_is_checked_and_says_its_weight_error(held: Services) -> None:
    app = AppTest.from_function(models_page, default_timeout=60).run()
    app.selectbox(key="weights-mine").select("int4").run()
    app.button(key="check-mine@int4").click().run()
    job = held.desk.get(("fetch", "mine@int4"))
    assert job is not None
    assert job.wait(60)
    app.run()
    assert not app.exception
    assert "**mine@int4** int4 per output channel, weight error " in told(app).replace("\\", "").replace("\u2060", "")
    assert "8 of 8 checks passed" in told(app)
    assert held.model_names() == ["mine"]
    app.selectbox(key="weights-mine").select(None).run()
    assert [button.label for button in app.button if button.key == "check-mine"] == ["Load and check"]


def test_the_run_form_starts_with_the_variant_of_the_open_run(held: Services) -> None:
    app = AppTest.from_function(run_form, default_timeout=60).run()
    assert not app.exception
    assert app.selectbox(key="run-weights").value == "int8"
    app.text_area(key="run-text").input("The mill")
    next(button for button in app.button if button.label == "Run").click().run()
    (job,) = [held.desk.get(app.session_state["_job"])]
    assert job is not None
    assert job.wait(120)
    assert job.error is None
    result = held.open(job.result)
    assert result is not None
    assert result.info.model == "mine@int8"
    assert result.info.weights.startswith("int8 per output channel")
    assert held.decode("mine@int8", [5]) == held.decode("mine", [5])


def test_a_tokenizer_is_read_by_the_name_of_a_variant(held: Services) -> None:
    assert load_tokenizer("mine@bf16").bos_token == "<s>"
