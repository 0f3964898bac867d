"""The searched word on the page One latent: shown with its figures, searched in the background, or refused."""

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace

import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from app.label_jobs import label_key, label_sentences
from app.services import Services
from app.views import latents
from cache import Store
from probes.errors import BadRequest
from probes.model.loaded import ModelFacts
from probes.progress import Progress
from probes.saes import judge_check
from probes.saes.folder import SAEInfo
from probes.saes.judge_check import JudgeCheck
from probes.saes.word_label import FoundWord, WordLabel
from tests.app.fakes import FACTS, told
from tests.app.index_world import CONTENT, DEAD, EVIL, install, put_index, stocked

LATENT = 17
FOUND = WordLabel(
    latent=LATENT,
    words=(FoundWord(EVIL, 0.9, 0.4, 0.81), FoundWord("mill", 0.8, 0.5, 0.7)),
    n_searched=36, n_positive=9, n_negative=32, control_word="x", control_auc=0.47, n_words=5000,
    judge=JudgeCheck("tiny", {"animals": 0.9, "food": 0.84}, 100),
)  # fmt: skip
BUTTON = f"latent-word-{LATENT}"


@pytest.fixture
def store() -> Iterator[Store]:
    with Store.open(":memory:") as opened:
        put_index(opened)
        yield opened


@pytest.fixture
def served(store: Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., AppTest]]:
    held = stocked(store)

    def opened(latent: int = LATENT, mine: bool = True) -> AppTest:
        install(monkeypatch)
        monkeypatch.setattr(latents, "extra", lambda *_, **__: None)
        monkeypatch.setattr("app.components.backend.start", lambda: held)
        for module in ("app.components.keeping", "app.components.word_label", "app.views.latent"):
            monkeypatch.setattr(f"{module}.local", lambda: mine)
        st.cache_resource.clear()
        app = AppTest.from_string("from app.views.latent import page\n\npage()\n", default_timeout=60)
        for key, value in {"run": "run0", "pos": "6", "latent": str(latent)}.items():
            app.query_params[key] = value
        return app.run()

    yield opened
    st.cache_resource.clear()
    held.desk.close()


def keep(store: Store, found: WordLabel = FOUND) -> None:
    store.put_answer("word-label", CONTENT, str(found.latent), FACTS.fingerprint, asdict(found))


def buttons(app: AppTest) -> list[str]:
    return [str(one.key) for one in app.button if str(one.key).startswith("latent-word")]


def test_a_word_stands_beside_the_default_label_with_its_figures(served: Callable[..., AppTest], store: Store) -> None:
    keep(store)
    app = served()
    assert not app.exception
    text = told(app)
    assert "Default label" in text
    assert "**Searched word\\: \\<img src\\=x" in text
    for figure in ("AUC 0\\.81 on texts held out\\, 9 with the latent and 32 without", "shuffled labels 0\\.47",
                   "with an AUC of 0\\.87 \\(100 texts\\)", "Next on the texts searched with\\: mill\\."):  # fmt: skip
        assert figure in text
    assert "<img" not in text.replace("\\<img", "")
    assert buttons(app) == []
    assert "Searched word" not in told(served(18))


def test_a_search_runs_in_the_background_and_is_shown(
    served: Callable[..., AppTest], store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def job(held: Services, model: str, facts: ModelFacts, info: SAEInfo, latent: int) -> object:
        def work(progress: Progress) -> None:
            progress.step(0.4, "searching a word, attempt 2 of 5")
            time.sleep(0.4)
            keep(store, replace(FOUND, latent=latent))

        return held.desk.submit(model, label_key(facts, info, latent), f"Search a word for latent {latent}", work)

    monkeypatch.setattr("app.components.word_label.label_job", job)
    app = served()
    assert buttons(app) == [BUTTON]
    app.button(key=BUTTON).click().run()
    assert any(str(one.key).startswith("cancel-") for one in app.button)
    time.sleep(0.6)
    app.run()
    assert "Searched word" in told(app)
    assert buttons(app) == []


def test_what_went_wrong_is_said_and_may_be_tried_again(
    served: Callable[..., AppTest], monkeypatch: pytest.MonkeyPatch
) -> None:
    def job(held: Services, model: str, facts: ModelFacts, info: SAEInfo, latent: int) -> object:
        def work(progress: Progress) -> None:
            raise BadRequest("Latent 17 fires in nearly every text.")

        return held.desk.submit(model, label_key(facts, info, latent), "Search", work)

    monkeypatch.setattr("app.components.word_label.label_job", job)
    app = served()
    app.button(key=BUTTON).click().run()
    time.sleep(0.3)
    app.run()
    assert "Latent 17 fires in nearly every text" in " ".join(one.value for one in app.warning)
    assert buttons(app) == [BUTTON]


def test_a_refused_judge_is_said_instead_of_a_button(
    served: Callable[..., AppTest], store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    poor = JudgeCheck("tiny", {"animals": 0.6, "food": 0.5}, 100)
    store.put_answer("judge", judge_check._judge_id(), "", FACTS.fingerprint, asdict(poor))
    app = served()
    assert (
        "Words cannot be tested here\\: the judge\\, tiny\\, tells texts on 2 known topics apart with an AUC of 0\\.55"
        in told(app)
    )
    assert buttons(app) == []


def test_in_public_and_for_a_dead_latent_nothing_is_searched(served: Callable[..., AppTest]) -> None:
    assert buttons(served(mine=False)) == []
    assert buttons(served(DEAD)) == []


def test_a_word_no_better_than_chance_is_no_label() -> None:
    assert FOUND.label == EVIL
    assert "chance 0.50 ± 0.11" in label_sentences(FOUND)[1]
    poor = replace(FOUND, words=(FoundWord("computer", 0.3, 0.67, 0.71),))
    assert poor.label is None
    assert label_sentences(poor)[0] == "No word found, the best (computer) is no better than chance"
    assert "Next on the texts searched with: none." in label_sentences(poor)[1]
    assert replace(poor, words=(FoundWord("computer", 0.3, 0.67, 0.73),)).label == "computer"
