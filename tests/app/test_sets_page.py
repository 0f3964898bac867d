"""The page Prompt sets: choosing, importing, sweeping in the background with stop and resume, and opening a prompt."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from app import sweeps
from app.jobs import Job
from app.services import Services, start
from app.sweeps import Survey, facts_of, job_key, survey
from probes.prompts.library import all_sets, find_set, import_set
from probes.prompts.sets import built_in, read_set
from probes.request import DEFAULT_PROBES, ProbeCall, RunRequest
from probes.set_sweep import SetAsk
from tests import tiny
from tests.app.fakes import told

LINES = "".join(
    json.dumps({"id": f"p{n}", "text": f"{tiny.TEXT[: 60 + n]} {n}", "group": "ab"[n % 2], "answer": str(n)}) + "\n"
    for n in range(12)
)


@pytest.fixture
def held(empty_home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Services]:
    """Real services over a home with one tiny model that has been run."""
    tiny.save(empty_home / "models" / "small")
    made = start()
    monkeypatch.setattr("app.components.backend.start", lambda: made)
    monkeypatch.setattr("app.components.keeping.local", lambda: True)
    st.cache_resource.clear()
    import_set(made.store, read_set("own", LINES.encode(), "own.jsonl", "own.jsonl"))
    yield made
    st.cache_resource.clear()
    made.close()


def sets_page() -> None:
    from app.views.sets import page

    page()


def opened(name: str = "own") -> AppTest:
    app = AppTest.from_function(sets_page, default_timeout=120).run()
    app.selectbox(key="sets-set").select(name).run()
    assert not app.exception
    return app


def asked(held: Services, name: str = "own") -> SetAsk:
    return SetAsk(find_set(held.store, name), RunRequest("small", (0,), DEFAULT_PROBES))


def plain(app: AppTest) -> str:
    said = [*(one.value for one in app.error), *(one.value for one in app.info), *(one.value for one in app.toast)]
    return (told(app) + " ".join(said)).replace("\\", "").replace("\u2060", "")


def load(app: AppTest, held: Services) -> AppTest:
    """Load the model from the page, so that lengths are known."""
    app.button(key="sets-load").click().run()
    job = held.desk.get(("fetch", "small"))
    assert job is not None
    assert job.wait(120)
    return app.run()


def sweep_job(held: Services) -> Job:
    job = held.desk.get(job_key(asked(held)))
    assert job is not None
    return job


def test_a_model_that_was_never_loaded_says_so_and_can_be(held: Services) -> None:
    app = opened()
    assert "is known once it has been loaded" in plain(app)
    app = load(app, held)
    assert "**12 prompts**" in plain(app)
    table = app.dataframe(key=f"sets-table-{asked(held).prompts.set_id[:8]}").value
    assert list(table.columns) == ["id", "group", "prompt", "answer", "tokens", "perplexity"]
    assert table["tokens"].tolist() == [1 + len(f"{tiny.TEXT[: 60 + n]} {n}") for n in range(12)]
    assert table["perplexity"].isna().all()
    assert all(text.startswith("…") for text in table["prompt"]), "what all begin with is said once"
    assert app.button(key="sets-run").label == "Run all 12"


def test_a_sweep_fills_the_table_and_the_groups(held: Services) -> None:
    app = load(opened(), held)
    app.button(key="sets-run").click().run()
    assert sweep_job(held).wait(300)
    assert sweep_job(held).state == "done"
    app.run()
    table = app.dataframe(key=f"sets-table-{asked(held).prompts.set_id[:8]}").value
    assert (table["perplexity"] > 1).all()
    groups = app.dataframe[0].value
    assert groups["group"].tolist() == ["a", "b"]
    assert groups["run"].tolist() == [6, 6]
    assert "12 run" in plain(app)
    assert "sets-run" not in {one.key for one in app.button}


def test_a_stopped_sweep_keeps_what_it_has_and_goes_on(held: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    write = held.runner.write

    def slow(*arguments: object) -> None:
        calls.append(arguments)
        write(*arguments)
        if len(calls) == 3:
            sweep_job(held).cancel()

    monkeypatch.setattr(held.runner, "write", slow)
    app = load(opened(), held)
    app.button(key="sets-run").click().run()
    assert sweep_job(held).wait(300)
    assert sweep_job(held).state == "cancelled"
    stored = len(held.store.runs())
    assert 3 <= stored < 12
    app.run()
    assert f"The sweep was stopped: {stored} of 12 prompts are stored" in plain(app)
    button = app.button(key="sets-run")
    assert button.label == f"Run the other {12 - stored}"
    button.click().run()
    assert sweep_job(held).wait(300)
    assert len(held.store.runs()) == 12
    assert len(calls) == 12


def test_a_prompt_that_was_run_opens_as_its_overview(held: Services) -> None:
    app = load(opened(), held)
    start_asked = sweeps.start(held, asked(held))
    assert start_asked.wait(300)
    known = survey(held, asked(held), _facts(held))
    run = str(known.table["run_id"][4])
    assert held.open(run) is not None
    single = RunRequest("small", held.open(run).info.request.token_ids, DEFAULT_PROBES)  # type: ignore[union-attr]
    assert held.runner.run(single).info.run_id == run
    assert held.runner.run(single).info.cached
    app.run()


def _facts(held: Services):
    found = facts_of(held, "small")
    assert found is not None
    return found


def test_what_is_known_needs_no_weights(held: Services) -> None:
    from probes.model.shelf import Shelf

    sweeps.start(held, asked(held)).wait(300)
    before = survey(held, asked(held), _facts(held))
    held.shelf = Shelf()
    held.memo.clear()
    again = survey(held, asked(held), _facts(held))
    assert again.table.equals(before.table)
    assert again.n_run == 12
    assert held.shelf.loaded("small") is None


def test_prompts_that_do_not_fit_say_why(held: Services) -> None:
    lines = LINES + json.dumps({"id": "long", "text": tiny.TEXT * 9}) + "\n"
    import_set(held.store, read_set("long", lines.encode(), "x", "x"))
    ask = asked(held, "long")
    held.shelf.get("small")
    known = survey(held, ask, _facts(held))
    assert (known.n_runnable, len(known.table)) == (12, 13)
    assert "at most 256" in known.table["problem"].iloc[-1]
    job = sweeps.start(held, ask)
    assert job.wait(300)
    assert list(job.result.refused) == [12]
    app = opened("long")
    assert "1 do not fit the model" in plain(app)
    assert "why not run" in str(app.dataframe(key=f"sets-table-{ask.prompts.set_id[:8]}").proto.columns)


def test_another_mask_or_reading_is_another_sweep(held: Services) -> None:
    ask = asked(held)
    others = (
        SetAsk(ask.prompts, RunRequest("small", (0,), DEFAULT_PROBES, mask="no_bos")),
        SetAsk(ask.prompts, ask.like, bos=False),
        SetAsk(ask.prompts, RunRequest("small", (0,), (ProbeCall("tokens"),))),
    )
    assert len({job_key(one) for one in (ask, *others)}) == 4


def test_a_broken_line_is_named_and_nothing_imported(held: Services) -> None:
    app = opened()
    app.text_area(key="sets-pasted").input(LINES + '{"id": "x"}\n')
    app.text_input(key="sets-name").input("mine")
    app.button(key="sets-import").click().run()
    assert "pasted lines, line 13: give either text or messages. Nothing was imported." in plain(app)
    assert "mine" not in [one.name for one in all_sets(held.store)]


def test_a_pasted_set_is_chosen_and_can_be_removed(held: Services) -> None:
    app = opened()
    app.text_area(key="sets-pasted").input('{"id": "x", "text": "The mill"}\n')
    app.text_input(key="sets-name").input("mine")
    app.button(key="sets-import").click().run()
    assert app.selectbox(key="sets-set").value == "mine"
    assert "mine is imported: 1 prompts" in plain(app)
    app.selectbox(key="sets-own").select("mine").run()
    app.button(key="sets-remove").click().run()
    assert "mine" not in app.selectbox(key="sets-set").options
    assert not app.exception


def test_neither_file_nor_text_asks_for_one(held: Services) -> None:
    app = opened()
    app.button(key="sets-import").click().run()
    assert "Give a file or paste lines" in plain(app)


def test_groups_are_counted_and_prompts_without_one_too(held: Services) -> None:
    held.shelf.get("small")
    known = survey(held, asked(held, "passages"), _facts(held))
    assert isinstance(known, Survey)
    groups = known.by_group()
    assert groups["prompts"].sum() == len(find_set(held.store, "passages").prompts)
    assert known.begins == ""
    questions = survey(held, asked(held, "factual-reasoning"), _facts(held))
    assert questions.begins == "Answer the question with one word or one number.⏎Question: "
    assert len(survey(held, asked(held, "idioms"), _facts(held)).by_group()) == 1
    assert {one.name for one in built_in()} < {one.name for one in all_sets(held.store)}
