"""Pages over a stored run without a model: what they say, what they refuse, what they do not lose."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from app.components.inspector import facts, lens
from app.components.strip import token_values
from app.selection import Selection
from app.services import Services
from app.view import View
from tests.app.fakes import HOSTILE, TEXT, fake_result, fake_services, told

MAIN = str(Path(__file__).parents[2] / "app" / "main.py")


@pytest.fixture
def held(empty_home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Services]:
    """The services of the app, serving a fake run; its model counts as installed."""
    made = fake_services(fake_result(TEXT * 5 + HOSTILE))
    monkeypatch.setattr("app.components.backend.start", lambda: made)
    st.cache_resource.clear()
    yield made
    st.cache_resource.clear()
    made.close()


def opened(**query: str) -> AppTest:
    app = AppTest.from_file(MAIN, default_timeout=60)
    for key, value in query.items():
        app.query_params[key] = value
    return app.run()


def test_an_address_opens_its_run_with_no_job(held: Services) -> None:
    app = opened(run="run0", point="3", pos="7")
    assert not app.exception
    assert "random" in told(app)
    assert "no forward pass" in told(app)
    assert app.query_params["pos"] == "7"
    assert held.desk.active() == ()


def test_events_are_buttons_that_jump(held: Services) -> None:
    app = opened(run="run0", point="6")
    app.button(key="event-1").click().run()
    assert not app.exception
    assert (app.query_params["point"], app.query_params["pos"], app.query_params["dim"]) == ("3", "0", "7")


def test_the_evidence_of_an_event_is_told_in_words(held: Services) -> None:
    said = opened(run="run0", point="6").button(key="event-1").help
    assert "{" not in said
    assert '"' not in said
    assert "position 0" in said
    assert "dimension 7" in said


def test_what_an_address_gets_wrong_is_one_warning_each(held: Services) -> None:
    app = opened(run="run0", point="99", pos="x", mask="no_sink")
    assert not app.exception
    assert len(app.warning) == 3
    assert app.query_params["point"] == "4"


def test_an_unknown_run_is_told_and_without_a_model_one_is_offered(held: Services) -> None:
    app = opened(run="**nope**")
    assert not app.exception
    assert any("\\*\\*nope\\*\\*" in warning.value for warning in app.warning)
    assert "No model is installed yet" in told(app)
    assert app.button(key="fetch-embedded").label == "Fetch smollm2-135m-instruct"


def test_a_store_that_cannot_open_is_one_sentence(empty_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise OSError("The store is held by another process.")

    monkeypatch.setattr("app.components.backend.start", refuse)
    st.cache_resource.clear()
    app = opened()
    assert not app.exception
    assert [error.value for error in app.error] == ["The store is held by another process\\."]


def test_models_says_what_is_missing(held: Services) -> None:
    def script() -> None:
        from app.views.models import page

        page()

    app = AppTest.from_function(script, default_timeout=60).run()
    assert not app.exception
    assert "the embedded model" in told(app)
    app.button(key="FormSubmitter:hub-Fetch and check").click().run()
    assert "Choose a preset" in told(app)


def test_the_strip_takes_the_selected_point_and_the_only_layer_of_a_metric(held: Services) -> None:
    result = fake_result()
    rows = result.tables["token_metrics"]
    only = pd.DataFrame(
        {"layer": 2, "pos": [0, 1], "metric": "sae_l0", "value": [5.0, np.nan], "status": ["ok", "gap_of_two"]}
    )
    result.tables["token_metrics"] = pd.concat([rows, only], ignore_index=True)
    view = View(held, result, Selection(point=4, position=0))
    values, missing = token_values(view, "sae_l0")
    assert (values[0], missing) == (5.0, "gap of two")
    assert np.isnan(values[1:]).all()
    values, _ = token_values(view, "resid_norm")
    there = rows[(rows["metric"] == "resid_norm") & (rows["layer"] == 4)].sort_values("pos")
    np.testing.assert_array_equal(values, there["value"].to_numpy(dtype=float))
    values, missing = token_values(view, "nll")
    assert np.isnan(values[0])
    assert missing == "not applicable"


@pytest.mark.parametrize("position", range(len(HOSTILE)))
def test_the_inspector_says_everything_it_knows(held: Services, position: int) -> None:
    view = View(held, held.open("run0"), Selection(point=3, position=50 + position))
    parts = {section.title.split(":")[0].split(" (")[0]: section for section in (*lens(view), *facts(view))}
    assert parts["Logit lens"].head == ("mean-corrected", "raw")
    assert len(parts["Logit lens"].rows) == 5
    assert len(parts["SAE latents at point 3"].rows) == 3
    assert parts["State"].rows[0][0] == "norm"
    assert "|" in parts["What block 2 added"].rows[0][1]


def test_the_inspector_gives_a_reason_for_every_gap(held: Services) -> None:
    result = fake_result()
    result.tables.clear()
    view = View(held, result, Selection(point=0, position=0))
    for section in (*lens(view)[1:], *facts(view)):
        assert section.gap or all("not asked" in " ".join(row) for row in section.rows), section
