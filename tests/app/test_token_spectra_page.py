"""The pages Token spectra and Response over runs of a tiny model, answered before the page asks."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from app.components.run_form import JOB
from app.figures.token_spectra import token_map
from app.panels import registry
from app.panels.panel import Click
from app.panels.token_spectra import cascade_call, first_token, windows_call
from app.selection import Selection
from app.services import Services
from app.view import View
from cache import Store
from probes.model.loaded import LoadedModel
from probes.model.shelf import Shelf
from probes.model.tokenise import pieces, text_ids
from probes.progress import Progress
from probes.request import ProbeCall, RunRequest
from probes.respond import Generation, respond, response_start
from probes.runner import Runner, RunResult
from tests import tiny
from tests.app.fakes import told

CALLS = (ProbeCall("tokens"), ProbeCall("sinks"), ProbeCall("massive"))
HOW = Generation(tokens=40, temperature=1.0)
LAYERS = 7


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    return tiny.loaded("llama", num_hidden_layers=LAYERS)


@pytest.fixture(scope="module")
def held(model: LoadedModel) -> Iterator[Services]:
    with Store.open(":memory:") as store:
        shelf = Shelf()
        shelf.put(model)
        services = Services(store, shelf, Runner(store, shelf))
        services.decode = lambda name, ids, tokenizer=None: pieces(model.tokenizer, ids)  # type: ignore[method-assign]
        yield services
        services.desk.close()


@pytest.fixture(scope="module")
def given(held: Services, model: LoadedModel) -> RunResult:
    return held.runner.run(RunRequest(model.facts.name, text_ids(model, tiny.TEXT), CALLS))


@pytest.fixture(scope="module")
def answered(held: Services, model: LoadedModel) -> RunResult:
    request = RunRequest(model.facts.name, text_ids(model, tiny.TEXT[:60]), CALLS)
    return respond(held.runner, model, request, HOW, Progress())


def view_of(held: Services, result: RunResult) -> View:
    return View(held, result, Selection(3, 9))


@pytest.fixture
def opened(held: Services, monkeypatch: pytest.MonkeyPatch, empty_home: Path) -> Iterator[Callable[..., AppTest]]:
    def open_page(name: str, result: RunResult, *calls: ProbeCall) -> AppTest:
        for call in calls:
            held.runner.run(result.info.request.with_probes(call))
        monkeypatch.setattr("app.components.backend.start", lambda: held)
        st.cache_resource.clear()
        app = AppTest.from_string(f"from app.views.{name} import page\n\npage()\n", default_timeout=60)
        app.query_params["run"] = result.info.run_id
        return app.run()

    yield open_page
    st.cache_resource.clear()


def test_maps_cascade_and_boundaries_are_drawn(
    held: Services, given: RunResult, opened: Callable[..., AppTest]
) -> None:
    view = view_of(held, given)
    app = opened("token_spectra", given, windows_call(32, "normed"), cascade_call(view, 32, "normed", "text"))
    assert not app.exception
    for title in (
        "Alpha along the text", "Steps of alpha", "Cascade of the whole text", "Which points move together",
        "Jumps at boundaries",
    ):  # fmt: skip
        assert f"**{title}**" in told(app), title
    assert "Windows of 32 tokens, normed rows, centred; none before token 31." in told(app)
    assert "of the random walk" in told(app)
    assert "by 1000 circular shifts" in told(app)


def test_the_papers_window_is_one_click(held: Services, given: RunResult, opened: Callable[..., AppTest]) -> None:
    view = view_of(held, given)
    calls = [windows_call(w, "normed") for w in (10, 32)] + [cascade_call(view, w, "normed", "text") for w in (10, 32)]
    app = opened("token_spectra", given, *calls)
    app.button(key="windows-paper").click().run()
    assert not app.exception
    assert "Windows of 10 tokens" in told(app)


def test_a_cascade_of_few_windows_is_a_gap_with_its_reason(held: Services, given: RunResult) -> None:
    view, window = view_of(held, given), len(given.tokens) - 10
    for call in (windows_call(window, "normed"), cascade_call(view, window, "normed", "text")):
        held.runner.run(given.info.request.with_probes(call))
    for key in ("windows-cascade", "windows-matrix"):
        drawn = registry.panel(key).draw(view, {"window": window, "over": "text"})
        assert drawn.fig is None
        assert "11 windows are too few: a cascade needs 24." in str(drawn.note)


def test_a_click_selects_point_and_token(held: Services, given: RunResult) -> None:
    held.runner.run(given.info.request.with_probes(windows_call(32, "normed")))
    drawn = registry.panel("windows-step").draw(view_of(held, given))
    assert drawn.picked(Click(40, 3)) == {"point": 3, "position": 40}
    table = drawn.table()
    assert table is not None
    assert table["value"].isna().sum() == 32 * (LAYERS + 1), "31 windows that do not fit, and the last token's step"


def test_steps_are_drawn_around_zero_and_boundaries_above_the_map() -> None:
    rows = pd.DataFrame({"layer": [0, 1], "pos": [1, 1], "value": [-0.2, 0.1], "n_used": 8, "status": "ok"})
    figure = token_map(rows.assign(metric="token_alpha_step"), ("a", "."), 1, boundaries=[1], start=1)
    heat, ticks = figure.data[0], figure.data[1]
    assert (heat.zmid, heat.zmin) == (0, -heat.zmax)
    assert np.isnan(heat.z[:, 0]).all()
    assert list(ticks.x) == [1]
    assert ticks.y[0] > 1
    assert [note.text for note in figure.layout.annotations] == ["response"]


def test_the_cascade_of_a_response_begins_where_it_does(held: Services, answered: RunResult) -> None:
    view = view_of(held, answered)
    assert first_token(view, "response") == response_start(answered.info.request) == 61
    assert first_token(view, "text") == 0


def test_a_text_that_was_given_whole_offers_to_be_continued(given: RunResult, opened: Callable[..., AppTest]) -> None:
    app = opened("response", given)
    assert not app.exception
    assert "This text was given whole." in told(app)
    assert registry.panel("response-shift").draw(view_of_nothing(given)).fig is None


def view_of_nothing(result: RunResult) -> View:
    return View(Services(None, None, None), result, Selection(3, 9))  # type: ignore[arg-type]


def test_a_response_is_shown_beside_its_prompt(answered: RunResult, opened: Callable[..., AppTest]) -> None:
    app = opened("response", answered, windows_call(32, "normed"))
    assert not app.exception
    n = len(answered.tokens) - 61
    assert f"{n} tokens from position 61 · ln p " in told(app)
    assert "**From prompt to response**" in told(app)
    assert f"{n} tokens of each side" in told(app)
    assert "**Alpha as the response grows**" in told(app)


def test_the_form_writes_another_response(held: Services, answered: RunResult, opened: Callable[..., AppTest]) -> None:
    app = opened("response", answered, windows_call(32, "normed"))
    app.number_input(key="response-tokens").set_value(7)
    app.number_input(key="response-seed").set_value(5)
    app.number_input(key="response-temperature").set_value(1.0)
    next(button for button in app.button if button.label == "Write another").click().run()
    job = held.desk.get(("ask", "respond", *app_key(held, answered, Generation(7, 1.0, 5))))
    assert job is not None
    assert job.wait(60)
    assert job.error is None
    made = held.open(str(job.result))
    assert made is not None
    assert response_start(made.info.request) == 61
    assert made.info.n_tokens <= 61 + 7


def app_key(held: Services, result: RunResult, how: Generation) -> tuple[object, ...]:
    return held.respond(result.info.request, how).key[2:]


def test_a_changed_text_is_no_response_any_more(held: Services, answered: RunResult) -> None:
    from probes.variations import Variation

    held_tokenizer = replace(held, memo=held.memo)
    held_tokenizer.tokenizer = lambda name: held.shelf.get(name).tokenizer  # type: ignore[method-assign]
    request, _ = held_tokenizer.varied(answered, Variation("shuffled"))
    assert response_start(request) is None
    assert [call.name for call in request.probes] == ["tokens", "sinks", "massive"]


def test_the_job_of_a_response_opens_as_any_run_does(held: Services, given: RunResult) -> None:
    job = held.respond(given.info.request, Generation(tokens=5))
    assert job.key[0] == "ask", "the header opens the run of such a job"
    assert JOB == "_job"
    assert job.wait(60)
