"""The probe of matched length, and a metric over the runs of a set."""

import dataclasses

import numpy as np
import pytest
import torch

from analysis.alpha import fit_spectrum
from analysis.matched import matched_spectra
from analysis.nulls import gaussian_null
from cache.store import Store
from probes.errors import BadRequest
from probes.matched import CONVENTIONS, alpha_name
from probes.model.loaded import LoadedModel
from probes.model.tokenise import text_ids
from probes.progress import Progress
from probes.request import ProbeCall, RunRequest
from probes.run import RunResult
from probes.runner import Runner
from probes.set_values import set_values
from probes.sweep import sweep
from tests import tiny

N = 16


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    return tiny.loaded("llama")


def asked(model: LoadedModel, text: str, *probes: ProbeCall) -> RunRequest:
    return RunRequest(model.facts.name, text_ids(model, text), probes or (ProbeCall("matched", {"n": N}),))


def opened(runner: Runner, run_id: str) -> RunResult:
    found = runner.open(run_id)
    assert found is not None
    return found


def test_every_convention_at_one_length(model: LoadedModel, runner: Runner) -> None:
    result = runner.run(asked(model, tiny.TEXT))
    table = result.table("layer_metrics")
    found = table.set_index(["layer", "metric"])
    assert len({alpha_name(*one) for one in CONVENTIONS}) == len(CONVENTIONS) == 32
    assert (table["n_used"] == N).all()
    keep = runner.run(asked(model, tiny.TEXT, ProbeCall("tokens"))).info.n_tokens
    resid = opened(runner, result.info.run_id).tensor("resid.2")
    [windows] = matched_spectra(resid[None], N, torch.ones(keep, dtype=torch.bool), normed=True)
    by_hand = np.mean([fit_spectrum(one).alpha for one in windows])
    assert found.loc[(2, "alpha_sigma"), "value"] == pytest.approx(by_hand, rel=1e-9)
    assert found.loc[(2, "alpha_null_iid"), "value"] == pytest.approx(gaussian_null(N, resid.shape[1]).alpha)
    null, real = found.loc[(2, "alpha_null"), "value"], found.loc[(2, "alpha_sigma"), "value"]
    assert 0 < null < real
    assert found.loc[(2, "alpha_sigma_11_500"), "status"] == "not_applicable"


def test_a_text_that_is_too_short_is_refused_by_name(model: LoadedModel, runner: Runner) -> None:
    with pytest.raises(BadRequest, match=r"matched\.n must be at most the \d+ tokens"):
        runner.run(dataclasses.replace(asked(model, "Too short."), probes=(ProbeCall("matched", {"n": 64}),)))
    with pytest.raises(BadRequest, match=r"matched\.n must be a whole number from 5"):
        asked(model, "x", ProbeCall("matched", {"n": 4}))


def test_values_of_a_set_by_layer_token_and_head(model: LoadedModel, runner: Runner, store: Store) -> None:
    probes = (ProbeCall("tokens"), ProbeCall("spectral"), ProbeCall("sinks"))
    requests = [asked(model, f"{tiny.TEXT} {i}", *probes) for i in range(3)]
    ids = [str(one) for one in sweep(runner, requests, Progress()).run_ids]
    names = store.layer_metric_names(ids[0])
    assert {"alpha_sigma", "resid_norm", "sink_score"} <= set(names)
    values = set_values(store, ids[::-1], "alpha_sigma")
    for row, run_id in zip(values.values, ids[::-1], strict=True):
        own = opened(runner, run_id).table("layer_metrics").query("metric == 'alpha_sigma'")
        np.testing.assert_array_equal(row, own.sort_values("layer")["value"])
    assert values.tokens.tolist() == [len(one.token_ids) for one in requests[::-1]]
    heads = set_values(store, ids, "sink_score").values
    own = opened(runner, ids[0]).table("head_metrics").query("metric == 'sink_score' and layer == 1")
    assert np.isnan(heads[:, 0]).all()
    assert heads[0, 2] == pytest.approx(own["value"].mean())
    norms = opened(runner, ids[0]).table("token_metrics").query("metric == 'resid_norm' and layer == 1 and pos > 0")
    assert set_values(store, ids, "resid_norm").values[0, 1] == pytest.approx(norms["value"].mean())
    lens = [asked(model, f"{tiny.TEXT} {i}", ProbeCall("tokens"), ProbeCall("lens")) for i in range(2)]
    read = [str(one) for one in sweep(runner, lens, Progress()).run_ids]
    mean = opened(runner, read[0]).table("layer_metrics").query("metric == 'lens_kl' and layer == 1")["value"].item()
    assert set_values(store, read, "lens_kl").values[0, 1] == mean, "a mean the run has itself is not made again"
    with pytest.raises(BadRequest, match="metric 'no such'"):
        set_values(store, ids, "no such")
