"""The quality page: measured SAEs side by side, what is not measured said, a button that measures."""

import dataclasses
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from streamlit.testing.v1 import AppTest

from analysis.sae_quality import BIN, NEVER
from app.panels.panel import Click
from app.panels.registry import panel
from app.quality import fitting, in_bar, measure, measured
from app.selection import Selection
from app.services import Services
from app.view import View
from app.views import quality
from cache.store import Store
from probes.model.shelf import Shelf
from probes.runner import Runner
from probes.saes.folder import SAEInfo, read_info
from tests import tiny, tiny_saes
from tests.app.conftest import OpenPage
from tests.app.fakes import fake_result, fake_services

NAMES = ("one", "two <b>bold</b>")
CORPUS = "built-in texts, 900 tokens, abcd"


@pytest.fixture(scope="module")
def info(tmp_path_factory: pytest.TempPathFactory) -> SAEInfo:
    return read_info(tiny_saes.make(tmp_path_factory.mktemp("saes") / "one", "standard", corpus_variance=30.0))


def rows(seed: float = 0.0) -> pd.DataFrame:
    whole = {"sae_l0": 12.5 + seed, "sae_explained_variance": 0.81, "sae_explained_variance@all": -3.5, "kl": 0.3}
    whole |= {"ce_recovered_zero": 0.97, "delta_ce": 0.25, "sae_never_fired": 0.125, "sae_dense": 0.02}
    listed = [(metric, None, value, 900, "ok") for metric, value in whole.items()]
    listed += [
        ("sae_dead", None, math.nan, 900, "too_few_tokens"),
        ("sae_explained_variance:books", None, 0.7, 500, "ok"),
    ]
    listed += [("sae_density", -8 + step, 5.0 + step, 900, "ok") for step in range(6)]
    listed += [("sae_l0_count", 10 + step, 100.0 * step, 900, "ok") for step in range(5)]
    listed += [("sae_explained_variance_by_pos", step, 0.8 - step / 100, 30, "ok") for step in range(1, 9)]
    frame = pd.DataFrame(listed, columns=["metric", "pos", "value", "n_used", "status"])
    return frame.assign(created=pd.Timestamp(0), corpus=CORPUS)


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch, open_page: OpenPage, info: SAEInfo):
    def served(*known: str) -> AppTest:
        infos = {name: dataclasses.replace(info, name=name) for name in NAMES}
        stored = {name: {CORPUS: rows(at)} for at, name in enumerate(known)}
        for module in ("app.views.quality", "app.panels.quality"):
            monkeypatch.setattr(f"{module}.fitting", lambda facts: infos)
            monkeypatch.setattr(f"{module}.measured", lambda store, facts, of: stored.get(of.name, {}))
        return open_page("quality", fake_result())

    return served


def test_measured_saes_stand_side_by_side_and_the_others_say_so(serve) -> None:
    app = serve("one")
    assert not app.exception
    text = "\n".join(one.value for one in app.markdown)
    assert "not measured yet" in text
    assert "two \\<b\\>bold\\<\\/b\\>" in text
    table = next(frame.value for frame in app.dataframe if "one, all tokens" in frame.value.columns)
    by_name = table.set_index("number")
    assert by_name.loc["explained variance", "one"] == "0.81"
    assert by_name.loc["explained variance", "one, all tokens"] == "-3.5"
    shown = {metric.label: metric.value for metric in app.metric}
    assert shown["Loss recovered"] == "0.970"
    assert shown["Never fired"] == "12.5%"  # 900 tokens are too few to call a latent dead
    assert "Dead latents" not in shown
    assert any("n = 900" in one.value for one in app.caption)


def test_a_bar_that_was_clicked_lists_its_latents(serve, monkeypatch: pytest.MonkeyPatch) -> None:
    table = pd.DataFrame({"latent": [7, 3], "n_fired": [9, 8], "density": [0.01, 0.0089]})
    asked: list[tuple[object, ...]] = []

    def listed(store: object, facts: object, info: SAEInfo, corpus: str, place: int) -> pd.DataFrame | None:
        asked.append((info.name, corpus, place))
        return table.copy() if place == -8 else None

    monkeypatch.setattr("app.views.quality.in_bar", listed)
    monkeypatch.setattr("app.views.quality.labels_of", lambda view, sae: {3: "rivers"})
    app = serve(*NAMES)
    assert any("A click on a bar lists its latents" in one.value for one in app.caption)
    app.session_state["_quality-bar"] = (NAMES[1], -8)
    app.run()
    assert not app.exception
    assert asked == [(NAMES[1], CORPUS, -8)]
    found = next(frame.value for frame in app.dataframe if "label" in frame.value.columns)
    assert found["latent"].tolist() == [7, 3]
    assert found["label"].tolist() == ["", "rivers"]
    assert any(
        "**2 latents** of two" in one.value and "-2.00 to 10" in one.value.replace("\\", "") for one in app.markdown
    )
    app.session_state["_quality-bar"] = (NAMES[1], -4)
    app.run()
    assert any("measure it again" in one.value for one in app.caption)


def test_a_second_click_on_a_bar_lets_go(monkeypatch: pytest.MonkeyPatch) -> None:
    kept: dict[str, object] = {}
    monkeypatch.setattr("app.views.quality.st.session_state", kept)
    for click, bar in (
        (Click(-1.9, 3, -8, 1), ("two", -8)),
        (Click(-1.9, 3, -8, 0), ("one", -8)),
        (Click(-1.9, 3, -8, 0), None),
        (Click(-3.0, 3, NEVER, 0), ("one", NEVER)),
        (Click(-3.0, 3, "text", 0), ("one", NEVER)),
        (Click(-3.0, 3, -8, 2), ("one", NEVER)),
    ):
        quality._clicked(["one", "two"], click)
        assert kept["_quality-bar"] == bar


def test_nothing_measured_leaves_the_buttons(serve) -> None:
    app = serve()
    assert [one.label for one in app.button if one.label.startswith("Measure")] == ["Measure", "Measure"]
    assert not app.metric


def test_the_button_measures_that_sae(serve, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, object]] = []
    monkeypatch.setattr("app.views.quality.measure", lambda held, request, of, text: asked.append((of.name, text)))
    app = serve("one")
    next(one for one in app.button if one.label == "Measure again").click().run()
    assert asked == [("one", None)]


@pytest.mark.parametrize("key", ["quality-density", "quality-l0", "quality-position", "quality-source"])
def test_every_panel_draws_one_trace_an_sae(key: str, monkeypatch: pytest.MonkeyPatch, info: SAEInfo) -> None:
    stored = {name: {"text": rows(at)} for at, name in enumerate(NAMES)}
    monkeypatch.setattr(
        "app.panels.quality.fitting", lambda facts: {n: dataclasses.replace(info, name=n) for n in NAMES}
    )
    monkeypatch.setattr("app.panels.quality.measured", lambda store, facts, of: stored[of.name])
    held = fake_services()
    view = View(held, held.runner.result, Selection(3, 4))  # type: ignore[attr-defined]
    drawn = panel(key).draw(view)
    assert drawn.fig is not None
    assert len(drawn.fig.data) == 2
    assert "<b>" not in str(drawn.fig.data[1].name)
    assert len(panel(key).draw(view, {"sae": "one"}).fig.data) == 1  # type: ignore[union-attr]
    if key == "quality-density":
        bars = drawn.fig.data[0]
        assert sum(bars.y) == pytest.approx(sum(range(5, 11)) / (1 - 0.125))
    stored["one"] = stored[NAMES[1]] = {}
    gap = panel(key).draw(view)
    assert gap.fig is None
    assert "measured yet" in str(gap.note)
    held.close()


def test_measuring_in_the_background_is_stored_and_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EIGENSCOPE_HOME", str(tmp_path))
    tiny_saes.make(tmp_path / "saes" / "one", "standard", corpus_variance=30.0)
    tiny_saes.make(tmp_path / "saes" / "wide", "standard", d_in=64)
    model = tiny.loaded("llama")
    shelf = Shelf()
    shelf.put(model)
    with Store.open(":memory:") as store:
        held = Services(store, shelf, Runner(store, shelf))
        infos = fitting(model.facts)
        assert "one" in infos
        assert "wide" not in infos
        assert measured(store, model.facts, infos["one"]) == {}
        job = measure(held, (model.facts.name, "float32", "auto"), infos["one"], loss_tokens=128)
        assert job.wait(120)
        assert job.error is None
        found = measured(store, model.facts, infos["one"])
        assert list(found) == [job.result]
        rows = found[job.result]
        assert {"ce_clean", "sae_density", "sae_l0"} <= set(rows["metric"])
        for _, bar in rows[rows["metric"] == "sae_density"].iterrows():
            listed = in_bar(store, model.facts, infos["one"], job.result, int(bar["pos"]))
            assert listed is not None
            assert len(listed) == bar["value"]
            assert listed["n_fired"].is_monotonic_decreasing
            assert (np.floor(np.log10(listed["density"]) / BIN).clip(upper=-1) == bar["pos"]).all()
        never = in_bar(store, model.facts, infos["one"], job.result, NEVER)
        assert never is not None
        assert (never["n_fired"] == 0).all()
        assert in_bar(store, model.facts, infos["one"], "another text", NEVER) is None
        assert measured(store, dataclasses.replace(model.facts, fingerprint="other"), infos["one"]) == {}
        held.desk.close()


def test_without_an_sae_that_fits_the_page_says_so(open_page: OpenPage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.views.quality.fitting", lambda facts: {})
    app = open_page("quality", fake_result())
    assert any("No installed SAE fits tiny" in one.value for one in app.info)
