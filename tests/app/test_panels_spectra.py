"""The panels of the page Spectra, drawn without streamlit from a run made by hand."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from analysis.alpha import ESTIMATORS, WINDOWS, local_slopes
from analysis.preparation import PREPARATIONS
from app.panels import registry
from app.panels.panel import Click, Drawn
from app.panels.spectra import DESCRIPTORS, projection_call
from app.panels.spectrum import convention_curve, null_call
from app.panels.weights import ALL_BLOCKS, block_call
from app.selection import Pin, Selection
from app.services import Services
from app.view import View
from probes.errors import BadRequest
from probes.request import ProbeCall, RunRequest, run_id
from tests.app.fakes import LAYERS, FakeResult, fake_result, fake_services
from tests.app.spectra_run import RANK, TOKENS, result, singular_values, weight_spectra

KEYS = (
    "spectra-alpha", "spectra-rank", "spectra-slopes", "spectra-specification", "spectra-directions",
    "spectra-descriptors", "spectra-mp", "spectra-tail", "spectra-projection", "spectra-weights", "spectra-weight-tails",
)  # fmt: skip
LEFT_OUT = 3  # the token that the mask of the plane leaves out
SELECTIONS = (Selection(0, 0), Selection(2, LEFT_OUT), Selection(LAYERS, len(TOKENS) - 1, head=1, dimension=5))


@pytest.fixture
def held() -> Iterator[Services]:
    services = fake_services(result())
    yield services
    services.close()


def view(held: Services, selection: Selection = SELECTIONS[1]) -> View:
    return View(held, held.runner.result, selection)  # type: ignore[attr-defined]


def answer(held: Services, call: ProbeCall, tables: dict[str, Any], tensors: dict[str, Any] | None = None) -> str:
    """Store an answer beside the run; its id."""
    runner: Any = held.runner
    run: FakeResult = runner.result
    found = run_id(run.info.capture_id, run.info.request.with_probes(call))
    info = SimpleNamespace(**{**vars(run.info), "run_id": found})
    runner.results[found] = replace(run, info=info, tables=tables, tensors=tensors or {})
    return found


def plane(point: int, status: str = "ok") -> dict[str, pd.DataFrame]:
    rows = pd.DataFrame({"layer": point, "pos": np.arange(len(TOKENS)), "value": np.arange(len(TOKENS), dtype=float)})
    rows.loc[LEFT_OUT, "value"] = np.nan
    tokens = pd.concat([rows.assign(metric="pc1"), rows.assign(metric="pc2", value=-rows["value"])])
    shares = pd.DataFrame({"layer": point, "metric": ["pc1_share", "pc2_share"], "value": [0.5, 0.25]})
    return {"token_metrics": tokens, "layer_metrics": shares.assign(status=status)}


def answered(held: Services, selection: Selection) -> View:
    """A view whose further questions are all answered."""
    shown = view(held, selection)
    for prep in PREPARATIONS:
        answer(held, projection_call(shown, prep), plane(selection.point))
        call = null_call(shown, prep)
        if call is not None:
            null = torch.full((LAYERS + 1, 4, RANK), 0.5, dtype=torch.float64)
            answer(held, call, {}, {f"spectral_null@{prep}": null})
    answer(held, ALL_BLOCKS, {"weight_spectra": weight_spectra(range(LAYERS))})
    return shown


def draw(shown: View, key: str, **options: Any) -> Drawn:
    return registry.panel(key).draw(shown, options)


def choices(key: str) -> list[dict[str, Any]]:
    options = registry.panel(key).options
    values = [option.values for option in options.values()]
    return [dict(zip(options, chosen, strict=True)) for chosen in product(*values)]  # type: ignore[arg-type]


def test_the_panels_are_those_of_the_page_and_name_the_widgets_that_choose_their_options() -> None:
    mine = {panel.key: panel for panel in registry.panels() if panel.page == "spectra"}
    assert set(mine) == set(KEYS)
    convention = {"prep": "spectra-prep", "window": "spectra-window", "estimator": "spectra-estimator"}
    for key in ("spectra-rank", "spectra-slopes", "spectra-specification"):
        assert {name: option.widget for name, option in mine[key].options.items()} == convention
    assert mine["spectra-descriptors"].options["metric"].widget == "spectra-descriptor"
    assert all(panel.how_to_read for panel in mine.values())


@pytest.mark.parametrize("key", KEYS)
def test_every_panel_is_drawn_with_its_numbers_at_every_selection_and_option(held: Services, key: str) -> None:
    for selection in SELECTIONS:
        shown = answered(held, selection)
        for options in choices(key):
            drawn = draw(shown, key, **options)
            table = drawn.table()
            assert drawn.fig is not None, (drawn.note, options)
            assert drawn.fig.data
            assert isinstance(table, pd.DataFrame)
            assert len(table) > 0


@pytest.mark.parametrize("key", KEYS)
def test_a_run_without_tables_has_a_note_for_every_panel(key: str) -> None:
    bare = fake_result(TOKENS)
    bare.tables.clear()
    services = fake_services(bare)
    for selection in SELECTIONS:
        for options in choices(key):
            drawn = draw(View(services, bare, selection), key, **options)
            assert drawn.fig is None
            assert drawn.note
    services.close()


@pytest.mark.parametrize("key", KEYS)
def test_a_run_with_alphas_alone_has_a_figure_or_a_note_for_every_panel(key: str) -> None:
    run = fake_result(TOKENS)
    services = fake_services(run)
    drawn = draw(View(services, run, SELECTIONS[1]), key)
    assert drawn.fig is not None or drawn.note
    services.close()


def test_an_option_that_does_not_exist_is_refused(held: Services) -> None:
    for wrong in ({"prep": "raw"}, {"window": "12"}, {"estimator": None}, {"part": "weights"}):
        with pytest.raises(BadRequest):
            draw(view(held), "spectra-rank", **wrong)
    with pytest.raises(BadRequest):
        draw(view(held), "spectra-descriptors", metric="alpha_sigma")
    assert set(DESCRIPTORS) == set(registry.panel("spectra-descriptors").options["metric"].values)  # type: ignore[arg-type]


def test_clicks_pick_points_tokens_and_blocks(held: Services) -> None:
    shown = answered(held, SELECTIONS[1])
    for key in ("spectra-alpha", "spectra-directions", "spectra-descriptors"):
        assert draw(shown, key).picked(Click(4.0, 0.7)) == {"point": 4}
    assert draw(shown, "spectra-weight-tails").picked(Click(4.0, 3.0)) == {"point": 5}
    tokens = draw(shown, "spectra-projection")
    assert tokens.picked(Click(0.1, 0.2, 7)) == {"position": 7}
    assert tokens.picked(Click(0.1, 0.2)) == {}


def test_the_plane_marks_tokens_where_they_stand_and_not_those_the_mask_leaves_out(held: Services) -> None:
    shown = answered(held, SELECTIONS[1])
    drawn = draw(shown, "spectra-projection", prep="raw_all")
    assert drawn.note == f"The mask leaves out the selected token {LEFT_OUT}."
    assert drawn.title == "Tokens of point 2, raw, all tokens"
    assert drawn.place is not None
    assert drawn.place.at(shown.selection) == (None, None)
    assert drawn.place.at(Pin("o", Selection(1, 5)).selection) == (5.0, -5.0)


def test_a_plane_that_is_undefined_or_not_asked_for_is_a_gap(held: Services) -> None:
    shown = view(held)
    assert draw(shown, "spectra-projection").note == "This was not asked of the run yet (projection)."
    answer(held, projection_call(shown, "normed"), plane(2, "rank_deficient"))
    assert draw(shown, "spectra-projection").note == "There is no plane: rank deficient."


def test_the_curve_marks_the_chosen_convention_and_no_pin(held: Services) -> None:
    shown = view(held)
    curve = convention_curve(shown, 2)
    for prep, window, estimator in product(PREPARATIONS, WINDOWS, ESTIMATORS):
        place = draw(shown, "spectra-specification", prep=prep, window=window, estimator=estimator).place
        assert place is not None
        row = curve.iloc[int(place.at(shown.selection)[0] or 0)]
        assert (row["prep"], row["window"], row["estimator"]) == (prep, window, estimator)
        assert place.at(Selection(2, 9)) == (None, None)


def test_the_rank_plot_has_the_null_of_its_preparation_where_it_was_drawn(held: Services) -> None:
    shown = view(held)
    named = ["null_mean", "null_low", "null_high", "null_level_99"]

    def levels(prep: str) -> list[float] | None:
        table = draw(shown, "spectra-rank", prep=prep).table()
        assert table is not None
        np.testing.assert_array_equal(table["singular_value"], singular_values(2))
        return table[named].iloc[0].tolist() if "null_mean" in table else None

    assert levels("normed") == [1.0] * 4
    assert levels("raw_all") is None
    answered(held, shown.selection)
    assert levels("raw_all") == [0.5] * 4


def test_tables_hold_the_numbers_that_are_drawn(held: Services) -> None:
    shown = answered(held, SELECTIONS[1])
    slopes = draw(shown, "spectra-slopes").table()
    assert slopes is not None
    assert set(slopes["curve"]) == {"observed", "columns permuted", "fit"}
    np.testing.assert_array_equal(
        slopes.loc[slopes["curve"] == "observed", "alpha"], local_slopes(singular_values(2))[1]
    )
    tail = draw(shown, "spectra-tail").table()
    assert tail is not None
    np.testing.assert_allclose(tail["eigenvalue"], singular_values(2) ** 2 / (len(TOKENS) - 1))
    law = tail["fitted"].dropna()
    assert law.iloc[-1] == pytest.approx(tail.loc[law.index[-1], "share"]), "the law begins on the share of the tail"
    stored = shown.result.tensor("mp_eigenvalues")[2].numpy()
    eigenvalues = draw(shown, "spectra-mp").table()
    assert eigenvalues is not None
    np.testing.assert_array_equal(eigenvalues["eigenvalue"], stored)
    curve = draw(shown, "spectra-specification").table()
    assert curve is not None
    headline = curve[curve["name"] == "headline"].iloc[0]
    layers = shown.metric("layer_metrics", "alpha_sigma")
    assert headline["alpha"] == layers.loc[layers["layer"] == 2, "value"].iloc[0]


def test_weights_are_read_from_the_answer_for_one_block_or_for_all(held: Services) -> None:
    shown = view(held)
    for key in ("spectra-weights", "spectra-weight-tails"):
        assert draw(shown, key).note == "This was not asked of the run yet (weights)."
    answer(held, block_call(shown), {"weight_spectra": weight_spectra(range(1, 2))})
    drawn = draw(shown, "spectra-weights")
    assert drawn.title == "Weight matrices of block 1"
    assert draw(shown, "spectra-weight-tails").fig is None
    answer(held, ALL_BLOCKS, {"weight_spectra": weight_spectra(range(LAYERS))})
    table = draw(shown, "spectra-weight-tails").table()
    assert table is not None
    assert sorted(table["block"].unique()) == list(range(LAYERS))
    elsewhere = draw(view(held, Selection(5, 0)), "spectra-weights").table()
    assert elsewhere is not None
    assert set(elsewhere["block"]) == {4}


def test_an_item_is_drawn_from_the_answer_it_was_kept_with(held: Services) -> None:
    shown = view(held)
    old = answer(held, projection_call(shown, "normed"), plane(2))
    runner: Any = held.runner
    kept = runner.results.pop(old)
    kept.info.run_id, kept.info.request = "old", shown.info.request.with_probes(projection_call(shown, "normed"))
    runner.results["old"] = kept
    assert draw(shown, "spectra-projection").fig is None
    assert draw(replace(shown, answers=("old",)), "spectra-projection").fig is not None


def test_uncentred_spectra_are_asked_for_an_uncentred_null(held: Services) -> None:
    run: FakeResult = held.runner.result  # type: ignore[attr-defined]
    run.info.request = RunRequest("tiny", (1, 2), (ProbeCall("spectral", {"centre": False}),))
    call = null_call(view(held), "raw_all")
    assert call is not None
    assert call.params == {"points": [2], "null_preparations": ["raw_all"], "centre": False}
    assert null_call(view(held), "normed") is None
