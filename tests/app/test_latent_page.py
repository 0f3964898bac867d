"""The pages One latent and Find latents over an imagined run and an imagined index."""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from types import SimpleNamespace

import pandas as pd
import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest
from streamlit.testing.v1.element_tree import TextInput

from app.components.backend import services
from app.panels.find import COLUMNS
from app.panels.panel import Click
from app.services import Services
from app.views import find, latents
from cache import Store
from probes.progress import Progress
from probes.saes.folder import SAEInfo, content_digest
from probes.saes.index import IndexPlan
from tests import tiny_saes
from tests.app.fakes import FakeResult, told
from tests.app.index_world import CONTENT, DEAD, DENSE, EVIL, LATENTS, install, other_sae, put_index, stocked
from tests.app.rich_run import renamed
from tests.app.test_latents_page import INFO, result

Opened = Callable[..., AppTest]


@pytest.fixture
def store() -> Iterator[Store]:
    with Store.open(":memory:") as opened:
        put_index(opened)
        yield opened


@pytest.fixture
def served(store: Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[Opened]:
    """``served(page, **query)`` opens a page on the imagined run; the effect of a latent is not asked."""
    made: list[Services] = []

    def opened(
        name: str, *infos: SAEInfo, shown: FakeResult | None = None, over: Store = store, **query: str
    ) -> AppTest:
        install(monkeypatch, *infos)
        monkeypatch.setattr(latents, "extra", lambda *_, **__: None)
        held = stocked(over, shown)
        made.append(held)
        monkeypatch.setattr("app.components.backend.start", lambda: held)
        monkeypatch.setattr("app.components.keeping.local", lambda: True)
        for page in ("latent", "find"):
            monkeypatch.setattr(f"app.views.{page}.local", lambda: True)
        monkeypatch.setattr("app.components.index_build.local", lambda: True)
        st.cache_resource.clear()
        app = AppTest.from_string(f"from app.views.{name} import page\n\npage()\n", default_timeout=60)
        for key, value in {"run": "run0", "pos": "6", **query}.items():
            app.query_params[key] = value
        return app.run()

    yield opened
    st.cache_resource.clear()
    for held in made:
        held.desk.close()


def own_label(app: AppTest) -> TextInput:
    [field] = [one for one in app.text_input if one.label == "Your label"]
    return field


def test_the_page_says_all_that_is_known_of_a_latent(served: Opened) -> None:
    app = served("latent", latent="17")
    assert not app.exception
    text = told(app)
    for title in (
        "Activations of latent 17",
        "Max tokens of latent 17",
        "Nearest by decoder to latent 17",
        "Map of the decoder",
    ):
        assert f"**{title}**" in text
    assert "of 200,000 tokens of some \\<b\\>books\\<\\/b\\>" in text
    assert "it has precision 0.75 and recall 0.50" in text
    assert "of 256 latents" in text
    assert "<img" not in text.replace("\\<img", "")
    assert app.number_input(key="latent-number").value == 17
    assert app.number_input(key="latent-number").max == LATENTS - 1


def test_states_are_badges_and_a_dead_latent_keeps_its_neighbours(served: Opened) -> None:
    assert ":orange-badge[dense]" in told(served("latent", latent=str(DENSE)))
    app = served("latent", latent=str(DEAD))
    assert not app.exception
    text = told(app)
    assert ":orange-badge[dead]" in text
    assert "did not fire on any of 200,000 tokens" in text
    assert "**Nearest by decoder to latent 7**" in text


def test_steps_and_the_number_move_the_selection(served: Opened) -> None:
    app = served("latent", latent="0")
    assert app.button(key="latent-before").disabled
    app.button(key="latent-after").click().run()
    assert "**Latent 1**" in told(app)
    app.number_input(key="latent-number").set_value(255).run()
    assert "**Latent 255**" in told(app)
    assert app.button(key="latent-after").disabled
    app.button(key="latent-before").click().run()
    assert app.number_input(key="latent-number").value == 254


def test_a_latent_the_sae_does_not_have_is_told_and_can_be_left(served: Opened) -> None:
    app = served("latent", latent="999")
    assert not app.exception
    assert [one.value for one in app.info] == ["fake\\-sae has no latent 999; it has 0 to 255."]
    app.button(key="latent-before").click().run()
    assert "**Latent 255**" in told(app)


def test_a_label_is_saved_by_itself_and_taken_away(served: Opened, store: Store) -> None:
    app = served("latent", latent="17")
    own_label(app).set_value(f"  mills {EVIL}").run()
    assert store.sae_label(CONTENT)["label"].tolist() == [f"mills {EVIL}"]
    assert "**Latent 17** · mills \\<img" in told(app)
    again = served("latent", latent="17")
    assert own_label(again).value == f"mills {EVIL}"
    own_label(again).set_value("").run()
    assert store.sae_label(CONTENT).empty
    assert '**Latent 17** · \\" river' in told(again)


def test_in_public_nobody_labels(served: Opened, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.put_sae_label(CONTENT, 17, "mills")
    app = served("latent", latent="17")
    monkeypatch.setattr("app.views.latent.local", lambda: False)
    app.run()
    assert not [one for one in app.text_input if (one.key or "").startswith("latent-label")]
    assert "**Latent 17** · mills" in told(app)


def test_without_an_index_the_page_shows_the_rest_and_offers_one(served: Opened, tmp_path) -> None:
    other = other_sae(tiny_saes.make(tmp_path / "other"))
    app = served("latent", replace(other, name="fake-sae"), latent="17")
    assert not app.exception
    text = told(app)
    assert "**No index of fake\\-sae**" in text
    assert "`python -m app sae index NAME`" in text
    assert "**On the open text**" in text
    assert "How long will it take?" in app.button(key="index-plan").label


def test_an_index_is_planned_then_made_and_shown(served: Opened, tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = replace(other_sae(tiny_saes.make(tmp_path / "other")), name="fake-sae")
    plan = IndexPlan(60, 7_500, 500.0, 15.0, 300 << 20, 2 << 20)

    def planned(held: Services, model: str, info: SAEInfo, texts: object) -> object:
        return held.desk.submit(model, ("index-plan", "x"), "Plan", lambda progress: plan)

    def made(held: Services, model: str, info: SAEInfo, texts: object, corpus: str) -> object:
        def work(progress: Progress) -> str:
            return put_index(held.store, content=content_digest(info.folder), corpus=corpus)

        return held.desk.submit(model, ("index", "x"), "Index", work)

    module = "app.components.index_build"
    monkeypatch.setattr(f"{module}.plan_job", planned)
    monkeypatch.setattr(f"{module}.index_job", made)
    monkeypatch.setattr(f"{module}.job_key", lambda kind, *_: (kind, "x"))
    app = served("latent", info, latent="17")
    app.button(key="index-plan").click().run()
    time.sleep(0.3)
    app.run()
    assert "7,500 tokens of the passages that come with the app in 60 pieces: about 15 s at 500 tokens/s" in told(app)
    app.button(key="index-make").click().run()
    time.sleep(0.5)
    app.run()
    assert not app.exception
    assert "of 200,000 tokens of the passages that come with the app" in told(app)


def test_a_damaged_shipped_index_is_told(served: Opened, tmp_path) -> None:
    folder = tiny_saes.make(tmp_path / "other")
    (folder / "index").mkdir()
    (folder / "index" / "index.json").write_text("{")
    app = served("latent", replace(other_sae(folder), name="fake-sae"), latent="17")
    assert not app.exception
    assert "its index is damaged" in told(app)


def test_a_run_that_no_sae_fits_says_so(served: Opened) -> None:
    shown = result()
    shown.tables.pop("latents")
    for page in ("latent", "find"):
        app = served(page, replace(INFO, d_in=64), shown=shown)
        assert not app.exception
        assert [one.value for one in app.info] == ["This run was not read with an SAE, and none was chosen."]


def test_the_table_finds_and_a_bar_filters(served: Opened) -> None:
    app = served("find")
    assert not app.exception
    assert f"**{LATENTS} latents**" in told(app)
    table = app.dataframe[0].value
    assert list(table.columns) == list(COLUMNS)
    app.text_input(key="find-label").set_value("onerror").run()
    assert app.dataframe[0].value["latent"].tolist() == [17]
    app.text_input(key="find-label").set_value("")
    app.selectbox(key="find-state").set_value("never").run()
    assert app.dataframe[0].value["latent"].tolist() == [DEAD]
    app.selectbox(key="find-state").set_value("all")
    app.slider(key="find-density").set_value((-3.0, -2.75)).run()
    assert app.dataframe[0].value["density"].between(0.1, 0.178).all()


def test_a_second_click_on_a_bar_lets_go(monkeypatch: pytest.MonkeyPatch) -> None:
    held: dict[str, object] = {}
    monkeypatch.setattr(find, "st", SimpleNamespace(session_state=held))
    click = Click(-2.9, 4, [-3.0, -2.75])
    find._bin(click, -5.0)
    assert held == {"find-state": "all", "find-density": (-3.0, -2.75)}
    find._bin(click, -5.0)
    assert held["find-density"] == (-5.0, 0.0)
    find._bin(Click(-5.5, 4, [None, None]), -5.0)
    assert held == {"find-state": "never", "find-density": (-5.0, 0.0)}


def test_a_link_to_the_search_opens_it_and_nonsense_does_not(served: Opened) -> None:
    app = served("find", panel="find-latents", set='{"state":"dense","density":[-2.0,0.0]}')
    assert not app.exception
    assert app.dataframe[0].value["latent"].tolist() == [DENSE]
    app = served("find", panel="find-latents", set='{"density":[5,"x"]}')
    assert not app.exception
    assert f"**{LATENTS} latents**" in told(app)


def test_another_text_can_be_chosen(served: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    other = renamed(result(), "run1")
    rows = other.tables["latents"]
    other = replace(other, tables={**other.tables, "latents": rows.assign(latent=(rows["latent"] + 1) % 256)})
    runs = pd.DataFrame({"run_id": ["run1", "run0"]})
    monkeypatch.setattr(Services, "recent", lambda self, model=None: runs)
    app = served("find")
    assert "**Here, not there**" in told(app)
    services().runner.results["run1"] = other  # type: ignore[attr-defined]
    app.selectbox(key="find-b").set_value("run1").run()
    assert not app.exception
    assert "0 means not among the strongest" in told(app)
