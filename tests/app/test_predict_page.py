"""The page Correctness and its command: what is kept is shown with its controls, what cannot be predicted says why."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from analysis.measured import Status
from analysis.prediction import compare_predictors
from app.predicting import find_prediction, keep_prediction, prediction_document
from app.services import Services, start
from app.sweeps import facts_of
from probes.model.tokenise import text_ids
from probes.predicting import Predicted
from probes.prompts.library import find_set, import_set
from probes.prompts.sets import read_set
from probes.request import DEFAULT_PROBES, RunRequest
from tests import tiny

LINES = "".join(json.dumps({"id": f"p{n}", "text": f"{tiny.TEXT[:40]} {n}", "answer": str(n)}) + "\n" for n in range(6))


@pytest.fixture
def held(empty_home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Services]:
    tiny.save(empty_home / "models" / "small")
    made = start()
    monkeypatch.setattr("app.components.backend.start", lambda: made)
    monkeypatch.setattr("app.components.keeping.local", lambda: True)
    st.cache_resource.clear()
    import_set(made.store, read_set("own", LINES.encode(), "own.jsonl", "own.jsonl"))
    yield made
    st.cache_resource.clear()
    made.close()


def predict_page() -> None:
    from app.views.predict import page

    page()


def opened(name: str) -> AppTest:
    app = AppTest.from_function(predict_page, default_timeout=120).run()
    app.selectbox(key="sets-set").select(name).run()
    assert not app.exception
    return app


def words(app: AppTest) -> str:
    return " ".join(one.value for one in (*app.caption, *app.info, *app.markdown, *app.warning))


def planted(status: Status = "ok") -> Predicted:
    rng = np.random.default_rng(0)
    right = np.arange(60) % 3 == 0
    features = {"alpha by point": (rng.normal(size=(60, 3)) + 3 * right[:, None])[:, :, None]}
    baselines = {"tokens": rng.normal(size=(60, 1))}
    table = compare_predictors(features, baselines, right, np.arange(60), shuffles=2) if status == "ok" else None
    return Predicted(tuple(map(str, range(60))), right, status, table, 32, None, ())


def test_what_is_kept_is_shown_beside_its_controls(held: Services) -> None:
    model = held.shelf.get("small")
    held.runner.run(RunRequest("small", text_ids(model, tiny.TEXT), DEFAULT_PROBES))
    prompts, facts = find_set(held.store, "own"), facts_of(held, "small")
    assert facts is not None
    assert "Answer and predict" in [one.label for one in opened("own").button]
    keep_prediction(held, facts, prompts, prediction_document(planted(), "small", prompts, False))
    found = find_prediction(held, facts, prompts, False)
    assert found is not None
    assert find_prediction(held, facts, prompts, True) is None, "a chat is another question"
    rows = found.table("predictors").set_index("name")
    assert rows.loc["alpha by point", "auc"] > 0.9 > rows.loc["tokens", "auc"]
    assert len(found.table("curves")) > 0
    told = words(opened("own"))
    assert "20 of 60 answers are right" in told
    assert "gains clearly over tokens" in told
    keep_prediction(held, facts, prompts, prediction_document(planted("single_class"), "small", prompts, False))
    assert "all answers are right, or all are wrong" in words(opened("own"))


def test_a_set_without_answers_is_refused(held: Services, command_line: Callable[..., tuple[int, str, str]]) -> None:
    assert "none can be right or wrong" in words(opened("passages"))
    held.close()
    status, out, said = command_line("predict", "--prompt-set", "passages", "--model", "small", "--json", "-")
    assert (status, out) == (2, "")
    assert "No prompt of passages has an answer" in said
