"""The page Spectra over a stored run without a model."""

from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
from streamlit.testing.v1 import AppTest

from app.components.opening import REVEAL
from app.panels.panel import Click
from app.panels.registry import panel
from app.selection import Selection
from app.view import View
from app.views import spectra
from probes.request import ProbeCall
from tests.app.conftest import OpenPage
from tests.app.fakes import LAYERS, FakeResult, fake_services, told
from tests.app.spectra_run import RANK, layer_metrics, result, weight_spectra

Open = Callable[..., AppTest]


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch, open_page: OpenPage) -> Open:
    """Put a result behind the app and open the page on it; further questions find ``answers`` by probe."""

    def served(shown: FakeResult, answers: dict[str, object] | None = None, **query: str) -> AppTest:

        def extra(view: object, call: ProbeCall, **_: object) -> object:
            given = (answers or {}).get(call.name)
            return given(call) if callable(given) else given

        monkeypatch.setattr(spectra, "extra", extra)
        monkeypatch.setattr(View, "find", extra)
        return open_page("spectra", shown, **query)

    return served


def test_every_panel_is_drawn_with_its_numbers(serve: Open) -> None:
    app = serve(result(), point="2")
    assert not app.exception
    for title in (
        "Alpha by layer",
        "Rank plot of point 2, normed",
        "Local slopes",
        "Alpha of point 2 under every convention",
        "Directions above noise",
        "Eigenvalues of point 2",
        "Descriptors by layer",
        "Tail of point 2, normed",
    ):
        assert f"**{title}**" in told(app), title
    assert "**alpha 0.600** of singular values (1.200 of eigenvalues) over ranks 1-32 of 32, 50 tokens" in told(app)
    assert "columns permuted 0.250; iid Gaussian 0.200" in told(app)
    assert "not called curved" in told(app)
    assert "Log-likelihood ratio of the power law against lognormal" in told(app)


def test_the_curve_says_whether_a_difference_survives(serve: Open) -> None:
    assert "Against point 1: steeper in 16 and flatter in 0 of 16 conventions; the sign survives" in told(
        serve(result(), point="2")
    )
    assert "Against point" not in told(serve(result(), point="0"))


def test_the_code_of_the_chosen_convention_is_shown(serve: Open) -> None:
    app = serve(result(), point="2")
    assert "fit_spectrum(spectrum, 'all', 'slope')" in app.code[0].value
    assert '"metric": "alpha_sigma"' in app.code[1].value
    app.segmented_control(key="spectra-estimator").set_value("weighted").run()
    assert not app.exception
    assert "fit_spectrum(spectrum, 'all', 'weighted')" in app.code[0].value


def test_a_click_on_the_curve_opens_its_convention(serve: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    state: dict[str, str] = {}
    monkeypatch.setattr(spectra.st, "session_state", state)
    spectra.open_convention(Click(3, 0.5, ["raw_all", "lowrank", "weighted", "0.5", "..."]))
    spectra.open_convention(Click(3, 0.5))
    assert list(state.values()) == ["raw_all", "lowrank", "weighted"]
    monkeypatch.undo()
    app = serve(result(), point="2")
    for key, value in state.items():
        app.session_state[key] = value
    app.run()
    assert not app.exception
    assert "Rank plot of point 2, raw, all tokens" in told(app)
    assert "over ranks 1-16 of 32" in told(app)


def test_a_raw_preparation_asks_for_its_null_at_the_point(serve: Open) -> None:
    asked: list[ProbeCall] = []

    def answer(call: ProbeCall) -> SimpleNamespace:
        asked.append(call)
        null = torch.full((LAYERS + 1, 4, RANK), 0.5, dtype=torch.float64)
        return SimpleNamespace(tensor={"spectral_null@raw_all": null}.__getitem__, info=SimpleNamespace(run_id="other"))

    app = serve(result(), {"spectral": answer}, point="2")
    assert asked == []
    app.segmented_control(key="spectra-prep").set_value("raw_all").run()
    assert not app.exception
    assert asked[0].params == {"points": [2], "null_preparations": ["raw_all"], "centre": True}


def test_a_window_the_spectrum_is_too_short_for_says_so(serve: Open) -> None:
    app = serve(result(), point="2")
    app.segmented_control(key="spectra-window").set_value("11_100").run()
    assert not app.exception
    assert "No alpha: the spectrum is too short for these ranks." in told(app)


def test_every_descriptor_can_be_chosen_and_the_collapse_is_named(serve: Open) -> None:
    app = serve(result(), point="2")
    assert "The largest step down, the collapse, ends at point 4." in told(app)
    for option in app.selectbox(key="spectra-descriptor").options[:-1]:
        app.selectbox(key="spectra-descriptor").set_value(option).run()
        assert not app.exception, option


def test_a_run_without_spectra_says_so(serve: Open) -> None:
    shown = result()
    shown.tables["layer_metrics"] = layer_metrics().query("metric == 'alpha_r2'")
    app = serve(shown)
    assert not app.exception
    assert "This run did not ask for spectra." in told(app)


def test_a_point_that_was_not_asked_for_is_a_gap(serve: Open) -> None:
    shown = result()
    for name in ("layer_metrics", "spectra"):
        shown.tables[name] = shown.tables[name][shown.tables[name]["layer"] != 2]
    shown.tensors["mp_eigenvalues"][2] = torch.nan
    app = serve(shown, point="2")
    assert not app.exception
    assert "There is no spectrum: this run did not ask for this point." in told(app)
    assert "This run holds no eigenvalues of this point." in told(app)


def test_an_undefined_spectrum_has_its_reason(serve: Open) -> None:
    shown = result()
    layers = shown.tables["layer_metrics"]
    here = (layers["layer"] == 0) & layers["metric"].str.startswith("alpha_sigma")
    shown.tables["layer_metrics"] = layers.assign(
        value=layers["value"].mask(here), status=layers["status"].mask(here, "rank_deficient")
    )
    shown.tables["spectra"] = shown.tables["spectra"].query("layer != 0")
    app = serve(shown, point="0")
    assert not app.exception
    assert "There is no spectrum: the states do not vary in enough directions." in told(app)


def test_dropped_tensors_leave_the_rest(serve: Open) -> None:
    shown = result()
    shown.tensors.clear()
    app = serve(shown, point="2")
    assert not app.exception
    assert "are no longer kept: run the text again" in told(app)
    assert "**Rank plot of point 2, normed**" in told(app)


def test_weight_matrices_of_one_block_and_then_of_all(serve: Open) -> None:
    def of(blocks: range) -> SimpleNamespace:
        return SimpleNamespace(
            table=lambda name: weight_spectra(blocks), info=SimpleNamespace(run_id=f"weights-{len(blocks)}")
        )

    app = serve(result(), {"weights": lambda call: of(range(1, 2)) if call.params else None}, point="2")
    app.segmented_control(key="spectra-part").set_value("weights").run()
    assert not app.exception
    assert "**Weight matrices of block 1**" in told(app)
    assert "`attn.q` 2." in told(app)
    assert "Tail exponents of all blocks" not in told(app)

    app = serve(result(), {"weights": of(range(LAYERS))}, point="2")
    app.segmented_control(key="spectra-part").set_value("weights").run()
    assert not app.exception
    assert "**Tail exponents of all blocks**" in told(app)


def test_weights_that_are_not_there_yet_draw_nothing(serve: Open) -> None:
    app = serve(result(), point="2")
    app.segmented_control(key="spectra-part").set_value("weights").run()
    assert not app.exception
    assert "Weight matrices of block" not in told(app)


def test_a_link_to_a_panel_of_weights_turns_to_them_once(serve: Open) -> None:
    app = serve(result(), point="2")
    app.session_state[REVEAL] = "spectra-weights"
    app.run()
    assert not app.exception
    assert not app.warning
    assert app.segmented_control(key="spectra-part").value == "weights"
    app.segmented_control(key="spectra-part").set_value("activations").run()
    assert "**Rank plot of point 2, normed**" in told(app)


def test_a_run_without_any_table_says_so(serve: Open) -> None:
    shown = result()
    shown.tables.clear()
    shown.tensors.clear()
    app = serve(shown, point="2")
    assert not app.exception
    assert "This run did not ask for spectra." in told(app)


def test_clicks_on_layers_select_points() -> None:
    shown = View(fake_services(result()), result(), Selection(2, 3))
    for key in ("spectra-alpha", "spectra-directions", "spectra-descriptors"):
        assert panel(key).draw(shown).picked(Click(4.0, 0.7)) == {"point": 4}
