"""The page Compare SAEs: its jobs, what is stored of them, what a reload shows, and what is refused in a sentence."""

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from app.panels.registry import panel
from app.quality import fitting
from app.sae_compare import (
    absorbed,
    absorption_document,
    absorption_job,
    absorption_key,
    compare_job,
    compare_key,
    compared,
)
from app.selection import Selection
from app.services import Services
from app.view import View
from cache import Store
from probes.progress import Progress
from probes.saes.folder import content_digest, read_info
from probes.saes.loading import load_sae
from probes.saes.quality_text import Text
from probes.saes.spelling import SpellingRequest, measure_absorption
from tests import tiny, tiny_saes
from tests.app.fakes import FACTS, fake_result, fake_services, told
from tests.app.index_world import index_tables
from tests.app.rich_run import whole
from tests.probes.test_sae_compare import spelling_model

REQUEST = ("tiny-llama", "float32", "auto")
WIDE = "two _by_ @me"
PANELS = ("saes-matches", "saes-geometry", "saes-splitting", "saes-absorption")


@pytest.fixture
def home(empty_home: Path) -> Path:
    """Two SAEs that fit the tiny model and the imagined run, and one that does not."""
    tiny_saes.make(empty_home / "saes" / "one", "standard")
    tiny_saes.make(empty_home / "saes" / WIDE, "standard", d_sae=96)
    tiny_saes.make(empty_home / "saes" / "other model", d_in=64)
    return empty_home


@pytest.fixture
def store() -> Iterator[Store]:
    with Store.open(":memory:") as opened:
        yield opened


@pytest.fixture
def held(store: Store, home: Path) -> Iterator[Services]:
    """Real services with the tiny model."""
    from probes.model.shelf import Shelf
    from probes.runner import Runner

    shelf = Shelf()
    shelf.put(tiny.loaded("llama"))
    made = Services(store, shelf, Runner(store, shelf))
    yield made
    made.desk.close()


@pytest.fixture(scope="module")
def spelt(tmp_path_factory: pytest.TempPathFactory) -> Callable[[bool], dict[str, Any]]:
    """``spelt(told)``: what is found in a model that spells, or in one that does not."""

    def measured(told: bool) -> dict[str, Any]:
        model = spelling_model(told)
        folder = tmp_path_factory.mktemp("saes") / "sae"
        sae = load_sae(read_info(tiny_saes.make(folder, hook="blocks.0.hook_resid_pre")), model.facts)
        return absorption_document(measure_absorption(model, sae, SpellingRequest(), Progress()), "sae", "tiny")

    return measured


def contents() -> tuple[str, str]:
    infos = fitting(FACTS)
    return content_digest(infos["one"].folder), content_digest(infos[WIDE].folder)


def put_index_of(store: Store, content: str) -> None:
    """An index without labels of its own: labels are shown of SAEs that have one."""
    tables = index_tables()
    tables["sae_latents"]["label"] = None
    row = {
        "sae": "any", "content": content, "fingerprint": FACTS.fingerprint, "model": FACTS.name, "layer": 2, "corpus": "own",
        "n_sequences": 6, "context": 48, "n_tokens": 200_000, "n_left_out": 6, "seed": 0, "params": {},
    }  # fmt: skip
    store.put_sae_index(row, tables)


def ran(held: Services, text: Text | None = None) -> dict[str, Any]:
    """The document of a comparison of the two on the tiny model."""
    facts = tiny.loaded("llama").facts
    infos = fitting(facts)
    job = compare_job(held, REQUEST, infos["one"], infos[WIDE], text)
    assert job.wait(120)
    assert job.error is None
    found = compared(held, facts, "one", WIDE)
    assert found is not None
    return dict(found.document)


def test_a_comparison_is_stored_and_found_again(held: Services, home: Path) -> None:
    facts = tiny.loaded("llama").facts
    assert compared(held, facts) is None
    document = ran(held, Text("file", "own.txt", tiny.TEXT * 8))
    assert document["corpus"].startswith("own.txt, ")
    assert document["compare"]["n_matched"] == len(document["matches"]) > 50
    assert document["splitting"]["narrow"] == "one"
    assert ran(held)["corpus"].startswith("built-in texts, ")  # in place of the first
    assert len(held.store.sae_answers("compare", facts.fingerprint)) == 1
    assert compared(held, facts, WIDE, "one") is None  # matching is of B in A: another question
    (home / "saes" / "one").rename(home / "saes" / "renamed")
    newest = compared(held, facts)
    assert newest is not None
    assert [sae.name for sae in newest.saes] == ["renamed", WIDE]
    assert [sae.name for sae in newest.by_width] == ["renamed", WIDE]
    tiny_saes.edit_config(home / "saes" / WIDE, metadata={"training_tokens": 5})
    assert compared(held, facts) is None  # it is another SAE now


def test_what_cannot_be_compared_is_told_and_nothing_is_stored(held: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    facts = tiny.loaded("llama").facts
    infos = fitting(facts)
    monkeypatch.setenv("EIGENSCOPE_MEMORY_LIMIT", "1000")
    job = compare_job(held, REQUEST, infos["one"], infos[WIDE])
    assert job.wait(60)
    assert "Comparing 64 with 96 latents needs" in str(job.error)
    assert held.desk.get(compare_key("tiny-llama", "one", WIDE)) is job
    job = absorption_job(held, REQUEST, infos["one"])
    assert job.wait(60)
    assert "its spelling cannot be asked for" in str(job.error)
    assert held.desk.get(absorption_key("tiny-llama", "one")) is job
    assert compared(held, facts) is None
    assert absorbed(held, facts) is None


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


def test_a_reload_shows_what_was_found(
    held: Services, opened: Callable[[], AppTest], spelt: Callable[[bool], dict[str, Any]]
) -> None:
    document = ran(held)
    one, wide = contents()
    held.store.put_sae_answer("compare", one, wide, FACTS.fingerprint, document)
    held.store.put_sae_answer("absorption", wide, "", FACTS.fingerprint, spelt(False))
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
    held: Services, home: Path, opened: Callable[[], AppTest], spelt: Callable[[bool], dict[str, Any]]
) -> None:
    document = ran(held)
    rows = [{"latent": 3, "child": 5, "cosine": 0.9, "correlation": 0.5}]
    rows += [{"latent": 3, "child": 90, "cosine": 0.75, "correlation": 0.4}]
    letters = spelt(True)
    one, wide = contents()
    held.store.put_sae_answer("compare", one, wide, FACTS.fingerprint, document | {"children": rows})
    held.store.put_sae_answer("absorption", one, "", FACTS.fingerprint, letters)
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


def a_view(store: Store) -> View:
    held = fake_services(fake_result())
    held.store = store
    return View(held, held.runner.result, Selection(3, 4))  # type: ignore[attr-defined]


@pytest.mark.parametrize("key", PANELS)
def test_every_panel_has_figure_and_table_or_says_why_not(
    held: Services, spelt: Callable[[bool], dict[str, Any]], key: str
) -> None:
    view = a_view(held.store)
    gap = panel(key).draw(view)
    assert gap.fig is None
    assert " yet." in str(gap.note)
    document = ran(held)
    one, wide = contents()
    rows = [{"latent": 3, "child": 5, "cosine": 0.9, "correlation": 0.5}]
    held.store.put_sae_answer("compare", one, wide, FACTS.fingerprint, document | {"children": rows})
    held.store.put_sae_answer("absorption", one, "", FACTS.fingerprint, spelt(True))
    whole(view, panel(key).draw(view), clickable=False)
    named = {"sae": "one"} if key == "saes-absorption" else {"sae": "one", "other": WIDE}
    assert panel(key).draw(view, named).fig is not None
    assert panel(key).draw(view, {**named, "sae": "gone"}).fig is None


def test_scores_that_are_not_given_leave_a_gap_with_the_reason(held: Services) -> None:
    document = ran(held)
    one, wide = contents()
    none = {"value": None, "n_used": 4, "status": "not_applicable"}
    bare = document["compare"] | dict.fromkeys(("rsa", "rsa_null", "rsa_p"), none) | {"n_pairs": 4}
    held.store.put_sae_answer("compare", one, wide, FACTS.fingerprint, document | {"compare": bare, "matches": []})
    view = a_view(held.store)
    gap = panel("saes-geometry").draw(view)
    assert gap.fig is None
    assert "SVCCA is not given: 4 pairs are fewer than" in str(gap.note)
    assert "RSA is not given: it needs at least 10 pairs, not 4." in str(gap.note)
    assert "can be matched" in str(panel("saes-matches").draw(view).note)


def test_the_histogram_counts_every_match_once() -> None:
    from app.figures.sae_compare import children_bars, match_histogram

    r = np.array([-0.2, 0.0, 0.05, 0.5, 0.99, 1.0])
    fig = match_histogram(r, np.array([False, False, False, True, True, True]))
    assert [int(sum(trace.y)) for trace in fig.data] == [3, 3]
    children = pd.DataFrame({"latent": [1, 1, 2, 3, 3], "child": range(5)})
    (bars,) = children_bars(children).data
    assert dict(zip(bars.x.tolist(), bars.y.tolist(), strict=True)) == {1: 1, 2: 2}
