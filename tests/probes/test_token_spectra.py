"""Windows along a text: the numbers of `analysis.windows`, a reason for every gap, and cascades that are refused."""

import numpy as np
import pandas as pd
import pytest
import torch

from analysis.cascade import cascade
from analysis.cascade_nulls import turned_null
from analysis.windows import alpha_windows
from probes import cascade as cascade_probe
from probes import token_spectra
from probes.errors import BadRequest
from probes.model.loaded import LoadedModel
from probes.probe import Context
from probes.progress import Progress
from probes.registry import make_params
from probes.request import ProbeCall, RunRequest
from probes.runner import Runner
from tests import tiny
from tests.probes.captured import CONTEXT, capture_of


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    return tiny.loaded("llama", num_hidden_layers=7)


def grid(frame: pd.DataFrame, metric: str) -> np.ndarray:
    rows = frame[frame["metric"] == metric]
    return rows.pivot(index="layer", columns="pos", values="value").to_numpy(dtype=float)


def test_alpha_is_that_of_the_windows_and_the_step_its_difference(model: LoadedModel) -> None:
    capture = capture_of(model)
    params = token_spectra.Params(window=10)
    frame = token_spectra.run(capture, params, CONTEXT).tables["token_metrics"]
    states = torch.stack([capture.resid(point) for point in range(8)])
    expected = alpha_windows(states, 10, torch.ones(capture.n_tokens, dtype=torch.bool), normed=True)
    alpha, step = grid(frame, "token_alpha"), grid(frame, "token_alpha_step")
    np.testing.assert_allclose(alpha, expected, rtol=1e-12)
    np.testing.assert_allclose(step[:, :-1], np.diff(expected, axis=1), rtol=1e-12)
    rows = frame[(frame["metric"] == "token_alpha") & (frame["layer"] == 3)].set_index("pos")
    assert set(rows.loc[:8, "status"]) == {"too_few_tokens"}
    assert rows.loc[:8, "value"].isna().all()
    assert rows.loc[9:, "n_used"].eq(10).all()
    last = frame[(frame["metric"] == "token_alpha_step") & (frame["pos"] == capture.n_tokens - 1)]
    assert set(last["status"]) == {"not_applicable"}
    assert frame.loc[frame["value"].isna(), "status"].isin(["too_few_tokens", "not_applicable"]).all()


def test_equal_tokens_are_a_gap_of_equal_rows(model: LoadedModel) -> None:
    capture = capture_of(model, token_ids=[1, *[70] * 30])
    frame = token_spectra.run(capture, token_spectra.Params(window=8), CONTEXT).tables["token_metrics"]
    rows = frame[(frame["metric"] == "token_alpha") & (frame["layer"] == 0) & (frame["pos"] >= 8)]
    assert set(rows["status"]) == {"rank_deficient"}


def test_masked_tokens_are_dropped(model: LoadedModel) -> None:
    ids = [1, *[3, 70, 71, 72] * 8]  # every fourth is a special token
    frame = token_spectra.run(
        capture_of(model, token_ids=ids), token_spectra.Params(window=8), Context("no_bos", {}, Progress())
    ).tables["token_metrics"]
    rows = frame[(frame["metric"] == "token_alpha") & (frame["layer"] == 1)].set_index("pos")
    assert rows.loc[12:, "n_used"].eq(6).all()
    assert rows.loc[12:, "value"].notna().all()


@pytest.mark.parametrize("given", [{"window": 7}, {"window": 129}, {"window": 10.0}, {"rows": "centred"}])
def test_what_does_not_fit_is_refused(given: dict[str, object]) -> None:
    with pytest.raises(BadRequest, match="token_spectra"):
        make_params("token_spectra", given)


def test_a_window_longer_than_the_text_is_refused_with_the_range(runner: Runner) -> None:
    request = RunRequest("tiny-llama", tuple(range(4, 34)), (ProbeCall("token_spectra"),))
    with pytest.raises(BadRequest, match="must be at most 30 here"):
        runner.run(request)


def test_a_cascade_is_stored_beside_its_nulls(model: LoadedModel) -> None:
    capture = capture_of(model)
    params = cascade_probe.Params(window=10, start=20, walks=2)
    frame = cascade_probe.run(capture, params, CONTEXT).tables["layer_metrics"]
    states = torch.stack([capture.resid(point) for point in range(8)])
    everything = torch.ones(capture.n_tokens, dtype=torch.bool)
    expected = cascade(alpha_windows(states, 10, everything, normed=True), 20)
    rho = frame[frame["metric"] == "cascade_rho"]
    assert rho["layer"].tolist() == list(range(1, 8))
    np.testing.assert_allclose(rho["value"].to_numpy(dtype=float), expected.rho, atol=1e-9)
    assert rho["n_used"].tolist() == [7, 6, 5, 4, 3, 2, 1]
    values = frame.pivot_table(index="layer", columns="metric", values="value")
    for null in ("walk", "turned"):
        assert (values[f"cascade_rho_{null}_low"] <= values[f"cascade_rho_{null}_high"]).all()
    turned = np.mean([turned_null(states, 10, everything, normed=True, start=20, seed=seed) for seed in (0, 1)], axis=0)
    np.testing.assert_allclose(values["cascade_rho_turned"].to_numpy(dtype=float), turned, atol=1e-9)
    assert values["cascade_rho_shift"].abs().max() < 0.2, "shifted gradients have nothing in common"
    assert values["cascade_p"].between(0, 1).all()
    alone = frame[frame["layer"].isna()].set_index("metric")
    assert alone.loc["cascade_rate", "n_used"] == expected.n_windows
    assert {"cascade_rate_walk", "cascade_rate_turned", "cascade_amplitude", "cascade_r2"} <= set(alone.index)


def test_too_few_windows_or_layers_are_refused_with_the_reason(model: LoadedModel) -> None:
    few = cascade_probe.run(capture_of(model), cascade_probe.Params(window=10, start=90), CONTEXT)
    rows = few.tables["layer_metrics"]
    assert set(rows["status"]) == {"too_few_tokens"}
    assert rows["value"].isna().all()
    shallow = tiny.loaded("llama")
    rows = cascade_probe.run(capture_of(shallow), cascade_probe.Params(window=10), CONTEXT).tables["layer_metrics"]
    assert set(rows["status"]) == {"not_applicable"}
