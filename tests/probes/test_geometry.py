"""The geometry probe on a tiny model: numbers of `analysis`, on the tokens they are said to rest on, or a reason."""

import numpy as np
import pandas as pd
import pytest
import torch

from analysis.intrinsic_dimension import gride, gride_plateau, twonn
from analysis.neighbours import distances, neighbourhood, overlap, point_distances
from probes.errors import BadRequest
from probes.model.loaded import LoadedModel
from probes.model.tokenise import text_ids
from probes.request import ProbeCall, RunRequest
from probes.runner import Runner, RunResult
from tests import tiny

LONG = tiny.TEXT + " A second flood came in spring, and the miller sold his wheel to a man from the far bank."


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    return tiny.loaded("llama")


def asked(runner: Runner, model: LoadedModel, text: str, mask: str = "no_bos") -> RunResult:
    calls = (ProbeCall("geometry", {"neighbours": 7}),)
    return runner.run(RunRequest(model.facts.name, text_ids(model, text), calls, mask=mask))


def at(rows: pd.DataFrame, point: int, metric: str) -> "pd.Series[float]":
    return rows[(rows["layer"] == point) & (rows["metric"] == metric)].iloc[0]


def test_numbers_are_those_of_the_kept_tokens(runner: Runner, model: LoadedModel) -> None:
    result = asked(runner, model, LONG)
    rows = result.table("layer_metrics")
    states = [result.tensor(f"resid.{point}")[1:] for point in range(4)]
    found = distances(states[2])
    assert at(rows, 2, "id_twonn")["value"] == pytest.approx(twonn(found).value, rel=1e-12)
    assert at(rows, 2, "id_gride")["value"] == pytest.approx(gride_plateau(gride(found)).dimension.value, rel=1e-12)
    assert at(rows, 2, "gride_k8")["value"] == pytest.approx(gride(found, (8,))[0].dimension.value, rel=1e-12)
    assert at(rows, 2, "id_gride")["status"] == "low_confidence"
    assert at(rows, 2, "id_gride")["n_used"] == len(states[2]) == at(rows, 2, "duplicates")["n_used"]
    near = [neighbourhood(point_distances(states[point]), 7) for point in (1, 2, 3)]
    shared = overlap(near)
    assert at(rows, 2, "overlap_previous")["value"] == pytest.approx(shared[0, 1])
    assert at(rows, 1, "overlap_output")["value"] == pytest.approx(shared[0, 2])
    assert at(rows, 2, "overlap_previous_chance")["value"] == pytest.approx(7 / (len(states[2]) - 1))
    unit = states[3].double() / states[3].double().norm(dim=1, keepdim=True)
    n = len(unit)
    assert at(rows, 3, "cosine")["value"] == pytest.approx(float((unit @ unit.T).sum() - n) / (n * (n - 1)), rel=1e-6)


def test_repeated_embeddings_are_a_gap_that_is_counted(runner: Runner, model: LoadedModel) -> None:
    """Bytes of a text are far fewer than its length: at the embeddings no dimension, and no overlap below 100 of them."""
    result = asked(runner, model, LONG)
    rows = result.table("layer_metrics")
    different = len(set(result.tokens["token_id"][1:]))
    first = at(rows, 0, "id_gride")
    assert first["status"] == "rank_deficient"
    assert np.isnan(first["value"])
    assert at(rows, 0, "duplicates")["value"] == result.info.n_tokens - 1 - different
    with_input = at(rows, 2, "overlap_input")
    assert (with_input["status"], with_input["n_used"]) == ("too_few_tokens", different)
    matrix = result.tensor("overlap")
    assert matrix.shape == (4, 4)
    assert torch.isnan(matrix[0]).all()
    assert torch.equal(matrix[1:, 1:], matrix[1:, 1:].T)
    assert torch.equal(matrix.diagonal()[1:], torch.ones(3, dtype=torch.float64))
    assert not (rows["value"].isna() & rows["status"].isin(["ok", "low_confidence"])).any()


def test_a_short_text_has_cosines_only(runner: Runner, model: LoadedModel) -> None:
    rows = asked(runner, model, "Short.", mask="all").table("layer_metrics")
    others = rows[~rows["metric"].str.startswith(("cosine", "duplicates"))]
    assert others["value"].isna().all()
    assert set(others["status"]) <= {"too_few_tokens", "rank_deficient"}
    assert rows[rows["metric"].str.startswith("cosine")]["value"].notna().all()


def test_a_count_of_neighbours_that_cannot_be_is_refused(model: LoadedModel) -> None:
    with pytest.raises(BadRequest, match=r"geometry\.neighbours must be a whole number from 1 to 1000"):
        RunRequest(model.facts.name, (1, 2), (ProbeCall("geometry", {"neighbours": 0}),))
