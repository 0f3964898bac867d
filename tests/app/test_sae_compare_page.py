"""The page Compare SAEs: what it offers, what a reload shows, and what is refused in a sentence."""

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from app.services import Services
from cache import Store
from tests import tiny_saes
from tests.app.compare_world import WIDE, contents, over, put_index_of, ran, spelt, two_saes
from tests.app.fakes import FACTS, fake_result, fake_services, told


@pytest.fixture
def home(empty_home: Path) -> Path:
    return two_saes(empty_home)


@pytest.fixture
def store() -> Iterator[Store]:
    with Store.open(":memory:") as opened:
        yield opened


@pytest.fixture
def held(store: Store, home: Path) -> Iterator[Services]:
    with over(store) as made:
        yield made


@pytest.fixture
def opened(store: Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], AppTest]]:
    """The page on the imagined run over a real store."""
    made: list[Services] = []

    def page() -> AppTest:
        served = fake_services(fake_result())
        served.store = store
        made.append(served)
        monkeypatch.setattr("app.components.backend.start", lambda: served)
        st.cache_resource.clear()
        app = AppTest.from_string("from app.views.sae_compare import page\n\npage()\n", default_timeout=60)
        app.query_params["run"] = "run0"
        return app.run()

    yield page
    st.cache_resource.clear()
    for one in made:
        one.desk.close()


def said(app: AppTest) -> str:
    assert not app.exception
    text = told(app) + "\n".join(one.value for one in app.info)
    return text.replace("\\", "").replace("\u2060", "")


def test_nothing_known_offers_both(home: Path, opened: Callable[[], AppTest], monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, ...]] = []
    monkeypatch.setattr("app.views.sae_compare.compare_job", lambda _, __, a, b, ___: asked.append((a.name, b.name)))
    monkeypatch.setattr("app.views.sae_compare.absorption_job", lambda _, __, sae: asked.append((sae.name,)))
    app = opened()
    assert "Not compared yet" in said(app)
    assert "Not measured yet" in said(app)
    assert not app.metric
    assert app.selectbox(key="saes-a").options == ["one", WIDE]
    assert app.selectbox(key="saes-b").options == [WIDE]
    app.selectbox(key="saes-a").select(WIDE).run()
    assert app.selectbox(key="saes-b").options == ["one"]
    app.button(key="saes-compare").click().run()
    app.button(key="saes-measure").click().run()
    assert asked == [(WIDE, "one"), ("one",)]


def test_a_reload_shows_what_was_found(held: Services, opened: Callable[[], AppTest]) -> None:
    document = ran(held)
    one, wide = contents()
    held.store.put_answer("compare", one, wide, FACTS.fingerprint, document)
    held.store.put_answer("absorption", wide, "", FACTS.fingerprint, spelt(False))
    for _ in range(2):
        app = opened()
        text = said(app)
        pairs, kept = document["compare"]["n_pairs"], document["compare"]["n_directions"]
        assert f"SVCCA is not given: {pairs} pairs are fewer than 5 times the {kept} directions" in text
        assert (
            f"two _by_ @me: 96 latents at point 2. {document['compare']['n_tokens']:,} tokens of built-in texts" in text
        )
        assert "a latent for something rare had no occasion" in text
        shown = {metric.label: metric.value for metric in app.metric}
        assert shown["Mean r"] == f"{document['compare']['mean_r']:.3f}"
        assert shown["SVCCA"] == shown["Absorbed"] == "not given"
        assert "Absorption cannot be tested here: the F1 of the probes is" in text
        assert app.selectbox(key="saes-absorption").value == WIDE
        assert [button.label for button in app.button if button.key in ("saes-compare", "saes-measure")] == [
            "Compare again",
            "Measure again",
        ]


def test_children_stand_with_labels_and_letters_with_rates(
    held: Services, home: Path, opened: Callable[[], AppTest]
) -> None:
    document = ran(held)
    rows = [{"latent": 3, "child": 5, "cosine": 0.9, "correlation": 0.5}]
    rows += [{"latent": 3, "child": 90, "cosine": 0.75, "correlation": 0.4}]
    letters = spelt(True)
    one, wide = contents()
    held.store.put_answer("compare", one, wide, FACTS.fingerprint, document | {"children": rows})
    held.store.put_answer("absorption", one, "", FACTS.fingerprint, letters)
    put_index_of(held.store, wide)
    held.store.put_sae_label(wide, 90, "rivers & <b>mills</b>")
    app = opened()
    text = said(app)
    assert "1 of 64 latents of one have children in two _by_ @me, 1 of them several." in text
    frames = [frame.value for frame in app.dataframe]
    children = next(frame for frame in frames if "child" in frame.columns)
    assert children["child"].tolist() == [5, 90]
    assert list(children.columns) == ["latent", "child", "label of child", "cosine", "correlation"]
    assert children["label of child"].tolist() == ["", "rivers & <b>mills</b>"]
    rates = next(frame for frame in frames if "rate" in frame.columns)
    assert rates["letter"].tolist() == ["A", "B", "C"]
    assert "cannot be tested here" not in text
    shown = {metric.label: metric.value for metric in app.metric}
    assert shown["F1 of the probes"] == f"{letters['absorption']['probe_f1']['value']:.3f}"
    assert shown["Absorbed"] == f"{letters['absorption']['rate']['value']:.1%}"


def test_one_sae_cannot_be_compared_but_measured(empty_home: Path, opened: Callable[[], AppTest]) -> None:
    tiny_saes.make(empty_home / "saes" / "one", "standard")
    app = opened()
    assert "Only one installed SAE reads tiny, and a comparison takes two" in said(app)
    assert [button.key for button in app.button if str(button.key).startswith("saes-")] == ["saes-measure"]


def test_without_an_sae_that_fits_the_page_says_so(empty_home: Path, opened: Callable[[], AppTest]) -> None:
    assert "No installed SAE fits tiny" in said(opened())


def test_an_error_of_a_job_is_shown(home: Path, opened: Callable[[], AppTest], monkeypatch: pytest.MonkeyPatch) -> None:
    job = SimpleNamespace(active=False, error="It did *not* fit.", number=1, label="Compare")
    monkeypatch.setattr("app.jobs.Desk.get", lambda desk, key: job if key[0] == "sae compare" else None)
    assert [one.value for one in opened().warning] == ["It did \\*not\\* fit\\."]
