"""The TRY row: one click, a second run, its outcome; what cannot be made is disabled with its reason."""

from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from analysis.alignment import by_position
from app.outcome import Largest, outcome
from app.services import Ask, Services, start
from probes.runner import RunResult
from probes.variations import Variation
from tests import tiny
from tests.app.fakes import told

TEXT = "The river that runs past the old mill has changed its bed three times."


@pytest.fixture
def held(empty_home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Services]:
    """Real services over a home with one tiny model."""
    tiny.save(empty_home / "models" / "mine")
    made = start()
    monkeypatch.setattr("app.components.backend.start", lambda: made)
    monkeypatch.setattr("app.components.tries._PATIENCE", 60.0)
    st.cache_resource.clear()
    yield made
    st.cache_resource.clear()
    made.close()


@pytest.fixture
def run(held: Services) -> RunResult:
    job = held.ask(Ask("mine", TEXT))
    assert job.wait(120)
    result = held.open(job.result)
    assert result is not None
    return result


def row(run_id: str) -> None:
    from app.components.backend import services
    from app.components.tries import tries
    from app.selection import Selection
    from app.view import View

    held = services()
    tries(View(held, held.open(run_id), Selection()))


def shown(run: RunResult) -> AppTest:
    app = AppTest.from_function(row, kwargs={"run_id": run.info.run_id}, default_timeout=120).run()
    assert not app.exception
    return app


def test_a_click_runs_the_text_without_bos_and_tells_the_outcome(held: Services, run: RunResult) -> None:
    app = shown(run)
    app.button(key="try-no_bos").click().run()
    assert not app.exception
    line = next(text for text in told(app).splitlines() if text.startswith(":small[**without BOS**"))
    n = run.info.n_tokens
    assert f"({n - 2} tokens both predict)" in line
    assert "largest activation" in line
    assert "sink heads" in line
    job = held.desk.get(("try", run.info.run_id, Variation("no_bos")))
    assert job is not None
    second = held.open(job.result)
    assert second is not None
    assert second.info.request.token_ids == run.info.request.token_ids[1:]
    assert (second.info.model, second.info.mask) == (run.info.model, run.info.mask)
    assert [call.name for call in second.info.request.probes] == [call.name for call in run.info.request.probes]


def test_what_is_stored_is_told_at_once_and_takes_no_pass(
    held: Services, run: RunResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = held.try_(run, Variation("twice"))
    assert job.wait(120)
    monkeypatch.setattr(held.runner, "run", lambda *_: pytest.fail("it is in the store"))
    again = held.try_(run, Variation("twice"))
    assert again.wait(60)
    assert (again.result, again.error) == (job.result, None)
    app = shown(run)
    app.button(key="try-twice").click().run()
    assert "**passage twice**: perplexity" in told(app)


def test_what_cannot_be_made_is_disabled_with_its_reason(run: RunResult) -> None:
    app = shown(run)
    assert not app.button(key="try-twice").disabled
    chat = app.button(key="try-chat")
    assert chat.disabled
    assert chat.help == "mine has no chat template\\."


def test_a_first_token_is_typed(held: Services, run: RunResult) -> None:
    app = shown(run)
    app.text_input(key="try-first_token-text").input("<mark>")
    submit(app, "first_token")
    assert "**another first token \\<mark\\>**: perplexity" in told(app)
    app.text_input(key="try-first_token-text").input("two")
    submit(app, "first_token")
    assert "is 3 tokens of mine; the first token must be one" in told(app).replace("\\", "")
    assert "**another first token \\<mark\\>**: perplexity" in told(app), "earlier outcomes stay"


def test_an_own_text_is_read_whole(held: Services, run: RunResult) -> None:
    app = shown(run)
    app.text_area(key="try-own-text").input("x" * 40)
    submit(app, "own")
    assert f"({run.info.n_tokens - 1} and 40 tokens)" in told(app)


def submit(app: AppTest, kind: str) -> None:
    next(button for button in app.button if button.form_id == f"try-{kind}-form").click()
    app.run()
    assert not app.exception


class Tables:
    """A run as far as an outcome reads it."""

    def __init__(self, losses: list[float | None], largest: float, sinks: list[float | None]) -> None:
        n = len(losses)
        self.tables = {
            "token_metrics": pd.DataFrame({"metric": "nll", "pos": range(n), "value": pd.array(losses, "Float64")}),
            "massive": pd.DataFrame({"layer": [0, 2], "pos": [1, 0], "dim": [5, 7], "value": [3.0, largest]}),
            "head_metrics": pd.DataFrame({"metric": "is_sink", "value": pd.array(sinks, "Float64")}),
        }

    def table(self, name: str) -> pd.DataFrame:
        return self.tables[name]


def test_an_outcome_reads_both_runs_on_the_tokens_both_predict() -> None:
    a = Tables([None, 1.0, 2.0, 9.0], -40.0, [1.0, 0.0, 1.0, 0.0])
    b = Tables([None, 2.0, 2.0], 4.0, [None, None])
    read = outcome(a, b, by_position(3, 3))  # type: ignore[arg-type]
    assert read.scored == (2, 2)
    assert read.perplexity == (pytest.approx(2.718281828**1.5), pytest.approx(2.718281828**2))
    assert read.largest == (Largest(-40.0, 2, 0, 7), Largest(4.0, 2, 0, 7))
    assert read.sinks == (0.5, None)
    assert outcome(a, b, None).scored == (3, 2)  # type: ignore[arg-type]
