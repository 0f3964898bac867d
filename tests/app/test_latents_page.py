"""The page SAE latents over a stored run without a model."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from streamlit.testing.v1 import AppTest

from app.panels import registry
from app.panels.panel import Click
from app.selection import Selection
from app.view import View
from app.views import latents
from probes.request import ProbeCall, run_id
from probes.saes.folder import InstalledSAE, SAEInfo
from tests.app.conftest import OpenPage
from tests.app.fakes import HOSTILE, TEXT, FakeResult, fake_result, fake_services, told

TOKENS = HOSTILE + TEXT * 3
INFO = SAEInfo(
    name="fake-sae", folder=Path("nowhere"), shipped=False, architecture="topk", d_in=32, d_sae=256, k=3,
    stored_dtype="float16", hook_name="blocks.2.hook_resid_post", point=3, model_name="<b>tiny</b>", context_size=128,
    training_tokens=1_000, corpus_variance=4.0, remark="a first one: few tokens",
)  # fmt: skip


def result() -> FakeResult:
    made = fake_result(TOKENS)
    count = len(TOKENS)
    draw = np.random.default_rng(1)
    fit = [(3, f"{name}{suffix}", draw.random(), count, "ok") for name in latents._NUMBERS for suffix in ("", "@all")]
    layers = pd.DataFrame(fit, columns=["layer", "metric", "value", "n_used", "status"])
    layers.loc[layers["metric"] == "sae_explained_variance@all", ["value", "status"]] = [np.nan, "not_applicable"]
    tokens = pd.DataFrame({"layer": 3, "pos": range(count), "value": draw.random(count), "n_used": 1, "status": "ok"})
    metrics = [tokens.assign(metric=name) for name in ("sae_l0", "sae_explained_variance")]
    made.tables["layer_metrics"] = pd.concat([made.tables["layer_metrics"], layers])
    made.tables["token_metrics"] = pd.concat([made.tables["token_metrics"], *metrics])
    made.tensors["no_sink"] = (torch.arange(count) > 0).to(torch.uint8)
    return made


def store(view: View, call: ProbeCall, **parts: object) -> FakeResult:
    """Store an answer to one more question about the run of ``view``."""
    request = view.info.request.with_probes(call)
    info = {**vars(view.info), "run_id": run_id(view.info.capture_id, request), "request": request}
    made = replace(view.result, info=SimpleNamespace(**info), **parts)  # type: ignore[type-var]
    view.services.runner.results[made.info.run_id] = made  # type: ignore[attr-defined]
    return made


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch, open_page: OpenPage):
    """Put a result behind the app and open the page on it; the effect of a latent is answered at once."""
    tensors = {
        "effect_ids": torch.arange(20).reshape(2, 10),
        "effect_values": torch.linspace(1, -1, 20).reshape(2, 10),
        "effect_shape": torch.tensor([0.5, 2.25]),
    }
    asked: list[object] = []

    def answer(view: View, call: ProbeCall, **_: object) -> FakeResult:
        asked.append(call)
        return store(view, call, tensors=tensors)

    def served(shown: FakeResult, *installed: SAEInfo, **query: str) -> AppTest:
        found = tuple(InstalledSAE(info.name, info.folder, info, None) for info in installed)
        for module in ("app.views.latents", "app.panels.latents"):
            monkeypatch.setattr(f"{module}.installed_saes", lambda: found)
        monkeypatch.setattr(latents, "extra", answer)
        return open_page("latents", shown, **query)

    served.asked = asked  # type: ignore[attr-defined]
    return served


def test_every_panel_is_drawn_for_the_selection(serve) -> None:
    app = serve(result(), INFO, pos="4", latent="17")
    assert not app.exception
    for title in ("Fit", "Fit by token", "Latents along the text", "Latent 17", "Direct effect of latent 17"):
        assert f"**{title}**" in told(app)
    assert "**Token 4 \\<\\|im\\_start\\|\\>**" in told(app)
    assert "skewness 0.50, excess kurtosis 2.25" in told(app)
    assert serve.asked[-1].params == {"sae": "fake-sae", "latent": 17}


def test_the_card_marks_a_first_one_and_shows_names_literally(serve) -> None:
    text = told(serve(result(), INFO))
    assert ":orange-badge[a first one]" in text
    assert "\\<b\\>tiny\\<\\/b\\>" in text
    assert "256 latents on 32 dimensions · k = 3" in text


def test_fit_stands_with_and_without_sinks_and_gaps_have_reasons(serve) -> None:
    table = serve(result(), INFO).dataframe[0].value
    assert table["number"].tolist() == list(latents._NUMBERS.values())
    assert table.loc[0, "all tokens of the mask"] == "not applicable"
    assert float(table.loc[0, "without sinks and massive tokens"]) > 0


def test_without_a_selected_latent_the_strongest_of_the_token_is_shown(serve) -> None:
    shown = result()
    rows = shown.tables["latents"]
    strongest = rows.loc[rows[rows["pos"] == 6]["activation"].idxmax(), "latent"]
    assert f"**Latent {strongest}**" in told(serve(shown, INFO, pos="6"))


def test_a_latent_the_sae_does_not_have_is_said(serve) -> None:
    text = told(serve(result(), INFO, latent="999"))
    assert "It is not among the strongest latents of any token of this text." in text
    assert "It has no such latent." in text


def test_an_sae_that_is_gone_leaves_the_stored_run(serve) -> None:
    app = serve(result())
    assert not app.exception
    assert "no longer installed" in told(app)
    assert "**Latents along the text**" in told(app)


def test_a_run_without_latents_says_why(serve) -> None:
    shown = result()
    shown.tables.pop("latents")
    assert "This run did not ask for latents." in told(serve(shown))
    note = "No SAE was used: none of those installed was made for *tiny*."
    noted = replace(shown, info=SimpleNamespace(**{**vars(shown.info), "notes": (note,)}))
    assert "made for \\*tiny\\*" in told(serve(noted))


def test_a_dropped_mask_is_said(serve) -> None:
    shown = result()
    shown.tensors.clear()
    app = serve(shown, INFO)
    assert not app.exception
    assert "has dropped this run's token masks" in told(app)


def test_another_sae_that_fits_can_be_chosen(serve, monkeypatch: pytest.MonkeyPatch) -> None:
    other, wide = replace(INFO, name="other", remark=""), replace(INFO, name="wide", d_in=64)
    shown = result()
    tables = {**shown.tables, "latents": shown.tables["latents"].assign(sae="other", latent=200)}

    def answer(view: View, call: ProbeCall, **_: object) -> FakeResult | None:
        return store(view, call, tables=tables) if call.name == "latents" else None

    app = serve(shown, INFO, other, wide)
    assert app.selectbox(key="latents-choice").options == ["fake-sae", "other"]
    monkeypatch.setattr(latents, "extra", answer)
    app.selectbox(key="latents-choice").set_value("other").run()
    assert not app.exception
    assert "**other** at point 3" in told(app)
    monkeypatch.setattr(latents, "extra", lambda view, call, **_: None)
    assert "**Fit**" not in told(app.run())


def test_clicks_select_a_token() -> None:
    shown = result()
    held = fake_services(shown)
    for key in ("latents-by-token", "latents-latent"):
        drawn = registry.panel(key).draw(View(held, shown, Selection(3, 6)))
        assert drawn.picked(Click(3.2, 0.9)) == {"position": 3}
    held.close()
