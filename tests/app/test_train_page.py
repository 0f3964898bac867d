"""The page Train an SAE: what it says before, one training at a time, cancelled and resumed and discarded, and its end."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import streamlit as st
import torch
from streamlit.testing.v1 import AppTest

from app.figures.training import training_curves
from app.jobs import Job
from app.services import Services, start
from app.training import KEY, built_in
from probes.saes.folder import installed_folders
from probes.saes.own_folder import in_training, keep_request, live_log, unfinished
from probes.saes.own_request import OwnRequest
from probes.saes.own_text import chunk_texts
from tests import tiny
from tests.app.fakes import told


@pytest.fixture
def held(empty_home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Services]:
    """Real services over a home with one tiny model."""
    tiny.save(empty_home / "models" / "small")
    made = start()
    monkeypatch.setattr("app.components.backend.start", lambda: made)
    st.cache_resource.clear()
    yield made
    st.cache_resource.clear()
    made.close()


def train_page() -> None:
    from app.views.train import page

    page()


def opened(source: str | None = "Built-in texts") -> AppTest:
    app = AppTest.from_function(train_page, default_timeout=60).run()
    if source is not None:
        app.button_group(key="train-source").select(source).run()
    assert not app.exception
    return app


def asked(app: AppTest, name: str, width: str = "2x", epochs: float = 3.0, tokens: int = 4_000) -> Job:
    """Fill the form and start."""
    app.text_input(key="train-name").input(name)
    app.selectbox(key="train-width").select(width)
    app.number_input(key="train-k").set_value(4)
    app.number_input(key="train-tokens").set_value(tokens)
    app.number_input(key="train-epochs").set_value(epochs)
    app.run()
    app.button(key="train-start").click().run()
    assert not app.exception
    job = app.session_state and _job()
    assert job is not None
    return job


def _job() -> Job | None:
    from app.components.backend import services

    return services().desk.get(KEY)


def plain(app: AppTest) -> str:
    return told(app).replace("\\", "").replace("\u2060", "") + " ".join(one.value for one in app.info)


def test_it_says_before_what_it_will_take(held: Services) -> None:
    app = opened(None)
    assert app.button(key="train-start").disabled
    assert "Give a text" in told(app)
    app.button_group(key="train-source").select("Built-in texts").run()
    total = sum(len(one.text.encode()) for one in built_in())
    assert f"**{total:,} tokens** in {len(built_in())} documents" in told(app)
    assert "MB of disk while it runs" in told(app)
    assert not app.button(key="train-start").disabled
    app.number_input(key="train-tokens").set_value(5_000).run()
    assert "5,000 of them used" in told(app)
    app.button_group(key="train-source").select("Pasted text").run()
    app.text_area(key="train-pasted").input("A text of mine. " * 10).run()
    assert "**160 tokens** in 1 document; about a tenth (its last tenth)" in told(app)


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("train-width", "100x", "width must lie in 8..2048 latents"),
        ("train-name", "../x", "name must be 1..64 letters"),
        ("train-k", 300, "k must lie in 1..256 for a width of 256, not 300"),
    ],
)
def test_what_cannot_be_is_told_before_it_starts(
    held: Services, monkeypatch: pytest.MonkeyPatch, key: str, value: str | int, says: str
) -> None:
    monkeypatch.setattr("app.views.train._WIDTHS", ["8x", "100x"])  # AppTest cannot type into a selectbox
    app = opened()
    if key == "train-width":
        app.selectbox(key=key).select(value).run()
    elif key == "train-k":
        app.number_input(key=key).set_value(value).run()
    else:
        app.text_input(key=key).input(str(value)).run()
    assert not app.exception
    assert says in plain(app)
    assert "train-start" not in [button.key for button in app.button]


def test_too_little_text_ends_in_a_sentence(held: Services) -> None:
    app = opened("Pasted text")
    app.text_area(key="train-pasted").input("A text of mine. " * 10).run()
    job = asked(app, "short")
    assert job.wait(60)
    app.run()
    assert "there must be at least 16 and 1, so give about 2,286 tokens or more" in plain(app)
    assert unfinished() == ()
    assert app.text_area(key="train-pasted").value == "A text of mine. " * 10
    assert app.text_input(key="train-name").value == "short"  # nothing took it


def test_one_is_trained_and_can_be_used(held: Services) -> None:
    app = opened()
    job = asked(app, "mine")
    assert job.wait(120)
    assert job.error is None
    app.run()
    assert not app.exception
    assert "**mine** is trained and installed." in told(app)
    assert [metric.label for metric in app.metric] == ["Explained variance", "L0", "Never fired"]
    assert "below 0.5" in plain(app)  # a random model with 64 latents in a few steps: the warning must be there
    assert "mine" in installed_folders()
    assert unfinished() == ()
    assert held.shelf.loaded("small") is not None
    assert {button.key for button in app.button} >= {"training-read", "training-quality", "train-start"}
    assert app.button_group(key="train-source").value == "Built-in texts"
    assert app.selectbox(key="train-width").value == "2x"
    assert [app.number_input(key=f"train-{name}").value for name in ("k", "tokens", "epochs")] == [4, 4_000, 3.0]
    assert app.text_input(key="train-name").value == ""  # it is taken now
    app.text_input(key="train-name").input("mine").run()
    assert "There is an SAE called 'mine' already" in plain(app)
    assert app.text_input(key="train-name").value == "mine"


def test_cancelled_it_can_be_resumed_and_discarded(held: Services) -> None:
    app = opened()
    job = asked(app, "long", width="32x", epochs=100.0)
    until = time.monotonic() + 60
    while live_log("long").empty and time.monotonic() < until:
        time.sleep(0.05)
    app.run()
    assert not app.exception
    assert "train-start" not in [button.key for button in app.button]
    assert "explained variance" in plain(app)
    assert "These are of training batches" in told(app)
    (cancel,) = [button for button in app.button if button.label == "Cancel"]
    cancel.click().run()
    assert job.wait(60)
    app.run()
    assert "Stopped after step" in plain(app)
    (begun,) = unfinished()
    assert begun.done > 0
    assert f"step {begun.done:,} of {begun.steps:,}" in plain(app)
    app.button(key="resume-long").click().run()
    again = held.desk.get(KEY)
    assert again is not None
    assert again is not job
    again.cancel()
    assert again.wait(60)
    assert again.state == "cancelled"
    assert unfinished()[0].done >= begun.done
    app.run()
    app.button(key="discard-long").click().run()
    assert not app.exception
    assert not (in_training() / "long").exists()
    assert "Unfinished" not in told(app)


def test_one_left_by_a_killed_server_is_listed(held: Services) -> None:
    request = OwnRequest("left", "small", point=2, width="2x", k=4, tokens=4_000)
    chunks = chunk_texts(built_in(), tiny.tokenizer(), 1, 4_000, 0)
    keep_request(request, chunks, "f" * 16, 90)
    app = opened()
    assert "**left**" in told(app)
    assert "states not all collected yet" in plain(app)
    app.button(key="resume-left").click().run()
    job = held.desk.get(KEY)
    assert job is not None
    assert job.wait(60)
    app.run()
    assert "began with other weights of small" in plain(app)


def test_a_pass_of_another_session_waits_for_a_batch_only(held: Services) -> None:
    app = opened()
    job = asked(app, "long", width="32x", epochs=100.0)
    model = held.shelf.get("small")
    for _ in range(20):
        began = time.monotonic()
        with model.lock:
            waited = time.monotonic() - began
        assert job.active
        assert waited < 5.0
        time.sleep(0.02)
    job.cancel()
    assert job.wait(60)


def test_a_public_server_does_not_train(held: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.views.train.local", lambda: False)
    app = opened(None)
    assert "Training is off here" in app.info[0].value
    assert len(app.button) == 0


def test_the_curves_keep_to_their_axes() -> None:
    import pandas as pd

    log = pd.DataFrame(
        {"step": [0, 10], "loss": [4.0, 0.5], "explained_variance": [-3.0, 0.5], "dead_share": [0.0, 0.25]}
    )
    fig = training_curves(log, 100)
    assert [trace.name for trace in fig.data] == ["explained variance", "dead latents", "loss"]
    assert list(fig.data[0].y) == [0.0, 0.5]
    assert list(fig.data[0].customdata) == [-3.0, 0.5]
    assert tuple(fig.layout.xaxis.range) == (0, 100)
    assert fig.layout.yaxis2.type == "log"


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
