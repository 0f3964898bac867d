"""The page Claims: the table, one click for all or one, the text of a claim, the control, and two models."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from app.claims import claims_key, claims_markdown, claims_table
from app.figures.claims import effect_rows
from app.jobs import Job
from app.panels.registry import panel
from app.services import Services, start
from app.view import View, run_bounds
from probes.claims.claim import Outcome
from probes.claims.registry import claims
from probes.claims.running import Ask, Finding, run_claims
from probes.progress import Progress
from probes.prompts.library import import_set
from probes.prompts.sets import read_set
from tests import tiny
from tests.app.fakes import told

LINES = "".join(
    json.dumps({"id": f"p{n}", "text": f"{n} {tiny.TEXT[:60]}", "group": ["reasoning", "factual"][n % 2]}) + "\n"
    for n in range(8)
)


@pytest.fixture
def held(empty_home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Services]:
    """Real services over a home with two tiny models and a small set."""
    tiny.save(empty_home / "models" / "small")
    tiny.save(empty_home / "models" / "tuned", num_hidden_layers=2)
    served = start()
    monkeypatch.setattr("app.components.backend.start", lambda: served)
    monkeypatch.setattr("app.views.claims.local", lambda: True)
    st.cache_resource.clear()
    import_set(served.store, read_set("own", LINES.encode(), "own.jsonl", "own.jsonl"))
    yield served
    st.cache_resource.clear()
    served.close()


def claims_page() -> None:
    from app.views.claims import page

    page()


def opened() -> AppTest:
    app = AppTest.from_function(claims_page, default_timeout=120).run()
    app.selectbox(key="claims-set").select("own").run()
    assert not app.exception
    return app


def made(held: Services, model: str = "small", name: str = "reasoning-alpha", **changes: bool) -> Finding:
    ask = Ask((name,), model, prompts="own", **changes)
    return run_claims(held.runner, held.shelf, ask, Progress())[0]


def plain(app: AppTest) -> str:
    return told(app).replace("\\", "").replace("\u2060", "")


def table(app: AppTest, shuffled: bool = False):
    return app.dataframe(key=f"claims-table-{shuffled}").value


def click(app: AppTest, row: int) -> AppTest:
    app.session_state["_claims-open"] = claims()[row].name
    return app.run()


def test_all_claims_stand_there_before_anything_was_made(held: Services) -> None:
    app = opened()
    assert table(app)["claim"].tolist() == [claim.title for claim in claims()]
    assert set(table(app)["verdict"]) == {"not tested yet"}
    assert app.button(key="claims-all").label == "Test all"
    assert f"**{len(claims())} claims** · 0 tested" in plain(app)


def test_one_claim_by_a_click_in_the_background(held: Services) -> None:
    app = click(opened(), 1)
    assert "Tested here" in plain(app)
    assert claims()[1].reported.split(":")[0] in plain(app)
    app.button(key="claims-one-run").click().run()
    job = held.desk.get(claims_key("small", "own"))
    assert isinstance(job, Job)
    assert job.wait(120)
    assert job.state == "done"
    app.run()
    assert table(app)["verdict"].tolist()[1] == "cannot be tested here"
    assert "no instruct model of small is installed" in plain(app)
    assert app.button(key="claims-one-run").label == "Try again"
    assert app.button(key="claims-all").label == f"Test the other {len(claims()) - 1}"


def test_an_outcome_is_told_with_interval_control_and_numbers(held: Services) -> None:
    found = made(held)
    app = click(opened(), 0)
    row = table(app).iloc[0]
    assert row["verdict"] == found.outcome.verdict
    assert row["low"] < row["effect"] < row["high"]
    assert (row["n"], row["set"]) == (8, "own")
    said = plain(app)
    assert f"**{found.outcome.verdict.capitalize()}.**" in said
    assert "columns permuted over tokens" in said
    assert len(app.dataframe[1].value) == len(found.outcome.details)
    assert "claims-one-run" not in {one.key for one in app.button}
    assert "Effects of the claims" in said


def test_a_second_model_stands_beside(held: Services) -> None:
    made(held)
    other = made(held, "tuned")
    app = opened()
    app.selectbox(key="claims-beside").select("tuned").run()
    assert table(app)["verdict beside"].tolist()[0] == other.outcome.verdict
    assert table(app)["effect beside"].tolist()[0] == pytest.approx(other.outcome.effect)
    assert table(app)["verdict beside"].tolist()[1] == "not tested yet"


def test_the_control_has_outcomes_of_its_own(held: Services) -> None:
    made(held)
    app = opened()
    app.checkbox(key="claims-shuffled").check().run()
    shown = table(app, shuffled=True)
    assert len(shown) == sum(claim.shuffles is not None for claim in claims())
    assert set(shown["verdict"]) == {"not tested yet"}
    made(held, shuffled=True)
    app.run()
    assert table(app, shuffled=True)["verdict"].tolist()[0] == "does not hold"


def test_the_panel_draws_what_was_found_and_says_it(held: Services) -> None:
    found = made(held)
    result = held.open(str(held.store.runs()["run_id"].iloc[0]))
    assert result is not None
    drawn = panel("claims-effects").draw(View(held, result, run_bounds(result).start()), {"prompts": "own"})
    assert drawn.fig is not None
    assert drawn.fig.data[0].x[0] == found.outcome.effect
    assert drawn.fig.data[1].x[0] == found.outcome.control
    assert found.outcome.verdict in str(drawn.aside)
    rows = drawn.table()
    assert rows is not None
    assert rows["name"].tolist() == ["reasoning-alpha"]


def test_tables_and_figures_leave_out_what_is_missing() -> None:
    claim = claims()[0]
    nothing = Finding(claim, Outcome("cannot be tested here", "Why | not."), "small", "own", "set", False, 0, 0.1)
    some = Finding(
        claim,
        Outcome("holds", "Because.", -0.5, -0.7, -0.3, "alpha", 0.0, "a null", 12),
        "small",
        "own",
        "set",
        False,
        0,
        1.0,
    )
    lines = claims_markdown([nothing, some]).splitlines()
    assert "Why \\| not." in lines[2]
    assert "-0.5 [-0.7, -0.3] alpha" in lines[3]
    assert claims_table([nothing])["effect"].isna().all()
    assert len(effect_rows([nothing, some]).data) == 2
    with pytest.raises(ValueError, match="has an effect"):
        effect_rows([nothing])
