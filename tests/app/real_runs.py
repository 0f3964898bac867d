"""Pages over real runs of tiny models: the services, an opener, and what a test does and reads on such a page."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from app.services import Ask, Services, start
from probes.request import ProbeCall, run_id
from probes.runner import RunResult
from tests import tiny

__all__ = ["Open", "answered", "headline", "opener", "panels", "press", "ran", "services_over", "settled"]

Open = Callable[..., AppTest]


@contextmanager
def services_over(home: Path) -> Iterator[Services]:
    """Real services over a home with three tiny models: ``short`` has fewer blocks than ``mine``, ``wide`` more tokens."""
    for name, changes in (("mine", {}), ("short", {"num_hidden_layers": 2}), ("wide", {"vocab_size": 300})):
        tiny.save(home / "models" / name, **changes)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EIGENSCOPE_HOME", str(home))
        made = start()
        yield made
        made.close()


@contextmanager
def opener(held: Services) -> Iterator[Open]:
    """``open_page(page, run, **query)``: a page over the services; jobs are waited for, not polled."""

    def open_page(name: str, run: RunResult, **query: str) -> AppTest:
        app = AppTest.from_string(f"from app.views.{name} import page\n\npage()\n", default_timeout=120)
        for key, value in {"run": run.info.run_id, **query}.items():
            app.query_params[key] = value
        app.run()
        assert not app.exception
        return app

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("app.components.backend.start", lambda: held)
        patch.setattr("app.components.extra._PATIENCE", 120.0)
        st.cache_resource.clear()
        yield open_page
        st.cache_resource.clear()


def ran(held: Services, text: str, model: str = "mine") -> RunResult:
    job = held.ask(Ask(model, text))
    assert job.wait(120)
    assert job.error is None
    result = held.open(job.result)
    assert result is not None
    return result


def settled(app: AppTest, held: Services) -> AppTest:
    """The page once nothing runs any more."""
    for job in held.desk.active():
        assert job.wait(120)
    app.run()
    assert not app.exception
    return app


def press(app: AppTest, label: str) -> AppTest:
    next(button for button in app.button if button.label == label).click()
    app.run()
    assert not app.exception
    return app


def answered(held: Services, run: RunResult, call: ProbeCall) -> RunResult:
    """What the store has of one more question about a run."""
    found = held.open(run_id(run.info.capture_id, run.info.request.with_probes(call)))
    assert found is not None
    return found


def headline(app: AppTest) -> list[str]:
    return [element.value for element in app.markdown if element.value.startswith("Perplexity **")]


def panels(app: AppTest) -> set[str]:
    """The keys of the charts that are drawn."""
    return {chart.proto.id.rpartition("chart-")[2] for chart in app.get("plotly_chart")}
