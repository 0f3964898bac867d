"""The spectral probe: its tables on a tiny model against analysis."""

import dataclasses
import math

import numpy as np
import pandas as pd
import pytest
import torch

from analysis.alpha import fit_spectrum
from analysis.descriptors import describe, matrix_entropy
from analysis.heavy_tail import alpha_tail
from analysis.nulls import gaussian_null, permuted_null
from analysis.preparation import PREPARATIONS, prepare
from analysis.spectrum import spectrum, spectrum_by_svd
from probes import spectral
from probes.errors import BadRequest
from probes.model.capture import Capture
from probes.model.loaded import LoadedModel
from probes.probe import Context, Result
from probes.progress import Cancelled, Progress
from probes.registry import make_params
from probes.spectral import NULL_CURVES, Params, run
from tests import tiny
from tests.probes.captured import CONTEXT, capture_of

METRICS = (
    *("alpha_sigma", "alpha_sigma_11_100", "alpha_sigma_lowrank", "alpha_r2", "alpha_curvature", "alpha_null"),
    *("alpha_null_iid", "alpha_tail", "tail_xmin", "tail_ks", "erank_sigma", "participation_ratio", "stable_rank"),
    *("spectral_entropy", "matrix_entropy", "anisotropy", "top1_energy", "n_parallel"),
)
SUFFIXES = ("", "@raw_all", "@raw_no_bos", "@raw_no_sink")


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    return tiny.loaded("llama")


@pytest.fixture(scope="module")
def capture(model: LoadedModel) -> Capture:
    return capture_of(model)


@pytest.fixture(scope="module")
def result(capture: Capture) -> Result:
    return run(capture, Params(), CONTEXT)


def value(result: Result, layer: int, metric: str) -> float:
    rows = result.tables["layer_metrics"]
    return float(rows[(rows["layer"] == layer) & (rows["metric"] == metric)]["value"].iloc[0])


def prepared(capture: Capture, point: int, prep: str, mask: str = "all") -> torch.Tensor:
    keep = getattr(capture.masks, mask if prep == "normed" else prep.removeprefix("raw_"))
    return prepare(capture.resid(point), keep, normed=prep == "normed")


def test_every_metric_stands_once_for_every_point_and_preparation(result: Result) -> None:
    rows = result.tables["layer_metrics"]
    assert list(rows.columns) == ["layer", "metric", "value", "n_used", "status"]
    assert set(rows["metric"]) == {metric + suffix for metric in METRICS for suffix in SUFFIXES} | {"n_mp_outliers"}
    assert not rows.duplicated(["layer", "metric"]).any()
    assert len(rows) == 4 * (len(METRICS) * 4 + 1)


def test_a_missing_value_has_a_reason_and_a_value_none(result: Result) -> None:
    rows = result.tables["layer_metrics"]
    missing = ~rows["status"].isin(["ok", "low_confidence"])
    assert (rows["value"].isna() == missing).all()


def test_spectra_are_those_of_the_prepared_states(capture: Capture, result: Result) -> None:
    rows = result.tables["spectra"]
    assert list(rows.columns) == ["layer", "prep", "k", "singular_value"]
    for point in (0, 3):
        for prep in PREPARATIONS:
            here = rows[(rows["layer"] == point) & (rows["prep"] == prep)]
            expected = spectrum_by_svd(prepared(capture, point, prep)).s
            np.testing.assert_allclose(here["singular_value"], expected, rtol=1e-6)
            assert here["k"].tolist() == list(range(1, expected.size + 1))


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_metrics_are_those_of_analysis(capture: Capture, result: Result, suffix: str) -> None:
    x = prepared(capture, 2, suffix.removeprefix("@") or "normed")
    observed = spectrum(x)
    described = describe(observed)
    expected = {
        "alpha_sigma": fit_spectrum(observed).alpha,
        "alpha_sigma_lowrank": fit_spectrum(observed, "lowrank").alpha,
        "alpha_r2": fit_spectrum(observed).r2,
        "alpha_tail": alpha_tail(observed.lam).alpha,
        "matrix_entropy": matrix_entropy(x).value,
        **{name: getattr(described, name) for name in ("erank_sigma", "participation_ratio", "anisotropy")},
    }
    for metric, number in expected.items():
        assert value(result, 2, metric + suffix) == pytest.approx(number, rel=1e-9), metric


def test_nulls_are_drawn_for_the_headline_and_on_request_for_others(capture: Capture, result: Result) -> None:
    x = prepared(capture, 2, "normed")
    null = permuted_null(x, spectrum(x))
    assert value(result, 2, "alpha_null") == pytest.approx(null.alpha, rel=1e-9)
    assert value(result, 2, "n_parallel") == null.n_parallel
    assert value(result, 2, "alpha_null_iid") == gaussian_null(*x.shape).alpha
    rows = result.tables["layer_metrics"]
    others = rows[rows["metric"].str.match("(alpha_null|n_parallel).*@")]
    assert set(others["status"]) == {"not_requested"}
    asked = run(capture, Params(points=(2,), null_preparations=("raw_no_bos",)), CONTEXT)
    assert math.isfinite(value(asked, 2, "alpha_null@raw_no_bos"))
    assert math.isnan(value(asked, 2, "alpha_null@raw_all"))
    raw = prepared(capture, 2, "raw_no_bos")
    level = permuted_null(raw, spectrum(raw)).s_level
    np.testing.assert_allclose(asked.tensors["spectral_null@raw_no_bos"][2, 3, : level.size], level)
    assert set(result.tensors) == {"spectral_null", "mp_eigenvalues"}


def test_the_null_curves_and_correlation_eigenvalues_stand_at_their_points(capture: Capture, result: Result) -> None:
    x = prepared(capture, 3, "normed")
    null = permuted_null(x, spectrum(x))
    curves = result.tensors["spectral_null"]
    assert curves.shape[:2] == (4, len(NULL_CURVES))
    for row, expected in zip(curves[3].numpy(), (null.s, null.s_low, null.s_high, null.s_level), strict=True):
        np.testing.assert_allclose(row[: expected.size], expected)
        assert np.isnan(row[expected.size :]).all()
    eigenvalues = result.tensors["mp_eigenvalues"]
    assert float(eigenvalues[3].nansum()) == pytest.approx(capture.model.facts.d_model)


def test_chosen_points_leave_the_others_out(capture: Capture) -> None:
    some = run(capture, Params(points=(3, 1)), CONTEXT)
    assert set(some.tables["layer_metrics"]["layer"]) == {1, 3}
    assert some.tensors["spectral_null"][[0, 2]].isnan().all()
    assert not some.tensors["spectral_null"][[1, 3], :, 0].isnan().any()


def test_the_mask_moves_the_headline_alone(capture: Capture, result: Result) -> None:
    masked = run(capture, Params(), Context("no_bos", {}, Progress()))
    x = prepared(capture, 2, "normed", "no_bos")
    assert value(masked, 2, "alpha_sigma") == pytest.approx(fit_spectrum(spectrum(x)).alpha, rel=1e-9)
    assert value(masked, 2, "alpha_sigma@raw_all") == value(result, 2, "alpha_sigma@raw_all")
    rows = masked.tables["layer_metrics"]
    assert set(rows[rows["metric"] == "alpha_sigma"]["n_used"]) == {int(capture.masks.no_bos.sum())}


def test_without_centring_the_mean_is_the_first_direction(capture: Capture, result: Result) -> None:
    paper = run(capture, Params(centre=False), CONTEXT)
    resid = capture.resid(2).double()
    expected = np.linalg.svd(resid.numpy(), compute_uv=False)
    rows = paper.tables["spectra"]
    here = rows[(rows["layer"] == 2) & (rows["prep"] == "raw_all")]["singular_value"]
    np.testing.assert_allclose(here, expected, rtol=1e-6)
    assert value(paper, 2, "top1_energy@raw_all") > value(result, 2, "top1_energy@raw_all")


def test_the_seed_decides_the_permuted_null(capture: Capture, result: Result) -> None:
    again, other = run(capture, Params(), CONTEXT), run(capture, Params(null_seed=1), CONTEXT)
    pd.testing.assert_frame_equal(again.tables["layer_metrics"], result.tables["layer_metrics"])
    assert value(other, 2, "alpha_null") != value(result, 2, "alpha_null")


@pytest.mark.parametrize("text", ["", "a", "ab", "abcd"])
def test_short_prompts_have_reasons_instead_of_numbers(model: LoadedModel, text: str) -> None:
    rows = run(capture_of(model, token_ids=[1, *range(10, 10 + len(text))]), Params(), CONTEXT).tables["layer_metrics"]
    alpha = rows[rows["metric"] == "alpha_sigma"]
    assert set(alpha["status"]) == {"too_few_tokens" if len(text) < 4 else "low_confidence"}
    assert set(rows[rows["metric"] == "alpha_sigma_11_100"]["status"]) <= {"too_few_tokens", "not_applicable"}
    assert (rows["value"].isna() == ~rows["status"].isin(["ok", "low_confidence"])).all()


def test_one_repeated_token_is_rank_deficient_at_the_embeddings(model: LoadedModel) -> None:
    rows = run(capture_of(model, token_ids=[9] * 40), Params(points=(0,)), CONTEXT)
    metrics = rows.tables["layer_metrics"].set_index("metric")["status"]
    assert metrics["alpha_sigma"] == metrics["matrix_entropy"] == metrics["alpha_null"] == "rank_deficient"
    assert rows.tables["spectra"].empty


def test_a_point_beyond_the_model_is_refused(capture: Capture) -> None:
    with pytest.raises(BadRequest, match=r"spectral\.points must be from 0 to 3, not 4"):
        run(capture, Params(points=(1, 4)), CONTEXT)


@pytest.mark.parametrize(
    ("name", "bad"),
    [(field.name, bad) for field in dataclasses.fields(Params) for bad in (math.nan, math.inf, -1, 1e9, "9", None)]
    + [("points", ()), ("points", (True,)), ("null_draws", 1), ("null_preparations", ("normed",)), ("centre", 0)],
)
def test_values_that_do_not_fit_are_refused_by_name(name: str, bad: object) -> None:
    with pytest.raises(ValueError, match=rf"spectral\.{name} must be"):
        make_params("spectral", {name: bad})


def test_cancelling_stops_between_points(capture: Capture) -> None:
    context = Context("all", {}, Progress(cancelled=lambda: True))
    with pytest.raises(Cancelled):
        run(capture, Params(), context)


def test_the_predicted_cost_covers_the_prepared_matrices(model: LoadedModel) -> None:
    cost = spectral.cost(Params(), model.facts, 1000)
    assert cost > 4 * 1000 * model.facts.d_model * 8
    assert cost > spectral.cost(Params(points=(1,)), model.facts, 1000)
