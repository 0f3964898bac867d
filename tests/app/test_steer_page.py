"""The steering page on a tiny model: settings, the three texts, the measures, and a link that brings them back."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from app.services import Services
from cache import canonical_json
from cache.store import Store
from probes.model.shelf import Shelf
from probes.model.tokenise import text_ids
from probes.request import ProbeCall, RunRequest
from probes.runner import Runner
from tests import tiny, tiny_saes

Open = Callable[..., AppTest]


@pytest.fixture(scope="module")
def held(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    folder = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch, Store.open(":memory:") as store:
        patch.setenv("EIGENSCOPE_HOME", str(folder))
        tiny_saes.make(folder / "saes" / "one", "standard", model_name="tiny-llama")
        tiny_saes.make(folder / "saes" / "few", "topk", d_sae=512, model_name="tiny-llama")
        model = tiny.loaded("llama")
        shelf = Shelf()
        shelf.put(model)
        made = Services(store, shelf, Runner(store, shelf))
        made.tokenizer = lambda name: model.tokenizer  # type: ignore[method-assign]
        made.close = made.desk.close  # type: ignore[method-assign]
        yield made
        made.desk.close()


@pytest.fixture
def opened(held: Services, monkeypatch: pytest.MonkeyPatch) -> Iterator[Open]:
    monkeypatch.setattr("app.components.backend.start", lambda: held)
    st.cache_resource.clear()

    def page(sae: str = "one", **query: str) -> AppTest:
        ids = text_ids(held.shelf.get("tiny-llama"), tiny.TEXT)
        calls = (ProbeCall("tokens"), ProbeCall("latents", {"sae": sae}))
        run = held.runner.run(RunRequest("tiny-llama", ids, calls)).info.run_id
        app = AppTest.from_string("from app.views.steer import page\n\npage()\n", default_timeout=120)
        for key, value in {"run": run, **query}.items():
            app.query_params[key] = value
        return app.run()

    yield page
    st.cache_resource.clear()


def said(app: AppTest) -> str:
    return "\n".join(one.value for one in [*app.markdown, *app.caption, *app.info, *app.warning])


def until_done(app: AppTest, held: Services) -> AppTest:
    for job in held.desk.active():
        job.wait(120)
    return app.run()


def test_a_latent_is_steered_and_stands_beside_its_control(opened: Open, held: Services) -> None:
    app = opened(latent="7")
    assert not app.exception
    assert app.number_input(key="steer-latent").value == 7
    assert "Its typical size is" in said(app)
    assert "for want of an index" in said(app)
    app.slider(key="steer-strength").set_value(8.0)
    app.button(key="steer-go").click().run()
    app = until_done(app, held)
    assert not app.exception
    text = said(app)
    assert "Steered by latent 7" in text
    assert "Control: latent" in text
    assert "KL, nats **" in text
    assert "**What steering does: latent 7 of one, +8 × its size**" in text
    assert "**Along the open text" in text


def test_what_was_steered_is_there_at_once_and_by_a_link(opened: Open, held: Services) -> None:
    app = opened(latent="7")
    app.button(key="steer-go").click().run()
    app = until_done(app, held)
    given = app.session_state["steer-asked"]
    linked = opened(panel="steer-effect", set=canonical_json({"steer": dict(given)}))
    assert not linked.exception
    assert "Steered by latent 7" in said(linked)
    assert linked.slider(key="steer-strength").value == given["strength"]
    assert linked.number_input(key="steer-latent").value == 7
    assert not [one for one in linked.button if one.key == "steer-run"]


def test_a_link_runs_nothing_by_itself(opened: Open, held: Services) -> None:
    given: dict[str, Any] = {"sae": "one", "latent": 3, "control": 9, "typical": 2.0, "strength": -6.5}
    app = opened(panel="steer-effect", set=canonical_json({"steer": given}))
    assert not held.desk.active()
    assert [one.key for one in app.button if one.key == "steer-run"]
    broken = opened(panel="steer-effect", set=canonical_json({"steer": {**given, "mode": "<b>"}}))
    assert not broken.exception
    assert "mode of a steering must be add or clamp" in said(broken)


def typed(app: AppTest, text: str) -> AppTest:
    app.segmented_control(key="steer-mode").set_value("concept").run()
    return app.text_input(key="steer-concept").set_value(text).run()


def test_a_concept_prompt_shows_its_latents_and_is_steered_with(opened: Open, held: Services) -> None:
    app = opened()
    app = until_done(typed(app, "the doctor saw her"), held)
    assert not app.exception
    rows = app.dataframe[-1].value
    assert list(rows.columns) == ["latent", "mean_activation"]
    assert len(rows) == 32
    assert rows["mean_activation"].is_monotonic_decreasing
    assert "Its 32 strongest latents, on average over 18 tokens" in said(app)
    assert "An index of the SAE" in said(app)
    app.slider(key="steer-strength").set_value(-4.0)
    app.button(key="steer-go").click().run()
    app = until_done(app, held)
    assert not app.exception
    text = said(app)
    assert "Steered by the concept prompt" in text
    assert "Control: 32 other latents" in text
    assert "KL, nats **" in text
    assert "of one, -4 × what it has**" in text
    given = app.session_state["steer-asked"]
    assert given["latents"] == rows["latent"].tolist()
    linked = opened(panel="steer-effect", set=canonical_json({"steer": dict(given)}))
    assert not linked.exception
    assert linked.segmented_control(key="steer-mode").value == "concept"
    assert linked.text_input(key="steer-concept").value == "the doctor saw her"
    assert linked.slider(key="steer-strength").value == -4.0
    assert len(linked.dataframe[-1].value) == 32
    assert not [one for one in linked.button if one.key == "steer-run"]


def test_a_concept_prompt_that_cannot_be_read_is_said(opened: Open, held: Services) -> None:
    app = opened()
    for text, says in (("   ", None), ("x" * 300, "at most 256"), ("<b> *bold* $x$", None)):
        app = until_done(typed(app, text), held)
        assert not app.exception
        assert says is None or says in said(app)
        assert bool([one for one in app.button if one.key == "steer-go"]) == text.startswith("<b>")


def test_a_latent_of_unknown_size_and_no_sae_are_said(opened: Open, held: Services) -> None:
    shown = opened(sae="few")
    rows = held.store.table("".join(shown.query_params["run"]), "latents")
    silent = next(latent for latent in range(512) if latent not in set(rows["latent"]))
    app = opened(sae="few", latent=str(silent))
    assert not app.exception
    assert "no index says how large it is" in said(app)
    assert not [one for one in app.button if one.key == "steer-go"]
