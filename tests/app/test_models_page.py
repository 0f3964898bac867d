"""Models and their variants: chosen beside the model, checked like any, named in what is run."""

from collections.abc import Iterator
from pathlib import Path

import huggingface_hub.constants
import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from app.services import Services, load_tokenizer, start
from tests import tiny, tiny_saes
from tests.app.fakes import told


@pytest.fixture
def held(empty_home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Services]:
    """Real services over a home with one tiny model."""
    tiny.save(empty_home / "models" / "mine")
    made = start()
    monkeypatch.setattr("app.components.backend.start", lambda: made)
    st.cache_resource.clear()
    yield made
    st.cache_resource.clear()
    made.close()


def models_page() -> None:
    from app.views.models import page

    page()


def run_form() -> None:
    from app.components.run_form import run_dialog

    run_dialog("mine@int8")


def test_a_variant_is_checked_and_says_its_weight_error(held: Services) -> None:
    app = AppTest.from_function(models_page, default_timeout=60).run()
    app.selectbox(key="weights-mine").select("int4").run()
    app.button(key="check-mine@int4").click().run()
    job = held.desk.get(("fetch", "mine@int4"))
    assert job is not None
    assert job.wait(60)
    app.run()
    assert not app.exception
    assert "**mine@int4** int4 per output channel, weight error " in told(app).replace("\\", "").replace("\u2060", "")
    assert "8 of 8 checks passed" in told(app)
    assert held.model_names() == ["mine"]
    app.selectbox(key="weights-mine").select(None).run()
    assert [button.label for button in app.button if button.key == "check-mine"] == ["Load and check"]


def test_the_run_form_starts_with_the_variant_of_the_open_run(held: Services) -> None:
    app = AppTest.from_function(run_form, default_timeout=60).run()
    assert not app.exception
    assert app.selectbox(key="run-weights").value == "int8"
    app.text_area(key="run-text").input("The mill")
    next(button for button in app.button if button.label == "Run").click().run()
    (job,) = [held.desk.get(app.session_state["_job"])]
    assert job is not None
    assert job.wait(120)
    assert job.error is None
    result = held.open(job.result)
    assert result is not None
    assert result.info.model == "mine@int8"
    assert result.info.weights.startswith("int8 per output channel")
    assert held.decode("mine@int8", [5]) == held.decode("mine", [5])


def test_a_tokenizer_is_read_by_the_name_of_a_variant(held: Services) -> None:
    assert load_tokenizer("mine@bf16").bos_token == "<s>"


def seen(app: AppTest) -> str:
    """All text of the page without what keeps it literal."""
    return told(app).replace("\\", "").replace("\u2060", "")


def test_saes_are_listed_with_what_they_are_for_and_what_is_wrong(held: Services, empty_home: Path) -> None:
    tiny_saes.make(empty_home / "saes" / "mine")
    tiny_saes.make(empty_home / "saes" / "coder", "transcoder")
    tiny_saes.edit_config(tiny_saes.make(empty_home / "saes" / "odd"), architecture="temporal")
    app = AppTest.from_function(models_page, default_timeout=60).run()
    assert not app.exception
    table = next(frame.value for frame in app.dataframe if "made for" in frame.value).set_index("SAE")
    assert table.loc["mine", ["state", "made for", "reads", "latents"]].tolist() == [
        "ready",
        "tiny-llama",
        "blocks.1.hook_resid_post",
        64,
    ]
    assert table.loc["coder", ["state", "writes"]].tolist() == ["not on a run", "blocks.1.hook_mlp_out"]
    assert table.loc["odd", "state"] == "cannot be used"
    assert any("the architecture 'temporal' is not supported" in w.value.replace("\\", "") for w in app.warning)
    assert str(empty_home) not in seen(app)


def test_an_sae_is_fetched_in_the_background_and_says_what_went_wrong(
    held: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr("app.components.sae_shelf.local", lambda: True)
    app = AppTest.from_function(models_page, default_timeout=60).run()
    asked = "gpt2-small-res-jb/blocks.8.hook_resid_pre"
    app.text_input(key="sae-asked").input(asked)
    next(button for button in app.button if button.label == "Fetch and check SAE").click().run()
    job = held.desk.get(("fetch-sae", asked))
    assert job is not None
    assert job.wait(60)
    app.run()
    assert [error.value.replace("\\", "") for error in app.error] == [
        f"The hub cannot be reached to fetch {asked}; SAEs that are installed work without a network."
    ]


def test_a_public_server_fetches_no_saes(held: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.components.sae_shelf.local", lambda: False)
    app = AppTest.from_function(models_page, default_timeout=60).run()
    assert not app.exception
    assert "Fetch and check SAE" not in [button.label for button in app.button]
