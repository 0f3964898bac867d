"""One passage on the embedded model against figures computed independently of this code (shared landmarks)."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cache.store import Store
from probes.model.catalog import EMBEDDED
from probes.model.edits import parse_edit
from probes.model.shelf import Shelf
from probes.model.tokenise import text_ids
from probes.prompts import examples
from probes.request import ProbeCall, RunRequest
from probes.runner import Runner, RunResult

pytestmark = pytest.mark.model
LANDMARKS = json.loads(Path(__file__).with_name("landmarks.json").read_text())
POINTS = tuple(int(point) for point in LANDMARKS["alpha_sigma"])
CALLS = (
    ProbeCall("tokens"),
    ProbeCall("spectral", {"points": POINTS, "null_draws": 2}),
    ProbeCall("sinks"),
    ProbeCall("massive"),
    ProbeCall("lens", {"points": POINTS, "positions": "all", "variants": ("raw",)}),
)


@pytest.fixture(scope="module")
def results(shelf: Shelf) -> Iterator[dict[str, RunResult]]:
    """The passage under two masks; the second run must not take a pass."""
    with Store.open(":memory:") as store:
        runner = Runner(store, shelf)
        model = shelf.get(EMBEDDED)
        request = RunRequest(EMBEDDED, text_ids(model, examples()[0].text), CALLS)
        first = runner.run(request)
        masked = runner.run(RunRequest(EMBEDDED, request.token_ids, CALLS[1:2], mask="no_bos"))
        assert (first.info.forward_passes, masked.info.forward_passes) == (1, 0)
        yield {"all": first, "no_bos": masked}


def by_point(result: RunResult, metric: str) -> pd.Series:
    rows = result.table("layer_metrics")
    return rows[rows["metric"] == metric].set_index("layer")["value"]


def test_the_passage_has_as_many_tokens(results: dict[str, RunResult]) -> None:
    assert results["all"].info.n_tokens == LANDMARKS["n_tokens"]


@pytest.mark.parametrize(
    ("mask", "metric", "convention"),
    [
        ("all", "alpha_sigma", "normed_all"),
        ("no_bos", "alpha_sigma", "normed_no_bos"),
        ("all", "alpha_sigma@raw_all", "raw_all"),
        ("all", "alpha_sigma@raw_no_bos", "raw_no_bos"),
        ("all", "alpha_sigma_11_100@raw_no_bos", "raw_no_bos_ranks_11_100"),
    ],
)
def test_alpha_by_convention(results: dict[str, RunResult], mask: str, metric: str, convention: str) -> None:
    found = by_point(results[mask], metric)
    for point, values in LANDMARKS["alpha_sigma"].items():
        assert found[int(point)] == pytest.approx(values[convention], rel=1e-3), (point, convention)


def test_largest_entry_of_each_point(results: dict[str, RunResult]) -> None:
    table = results["all"].table("massive")
    for point, expected in LANDMARKS["massive"].items():
        rows = table[table["layer"] == int(point)]
        largest = rows.loc[rows["value"].abs().idxmax()]
        assert (largest["pos"], largest["dim"]) == (expected["pos"], expected["dim"])
        assert largest["value"] == pytest.approx(expected["value"], rel=1e-3)
        assert largest["median"] == pytest.approx(expected["median"], rel=1e-3)


def test_sink_heads_by_block_are_exact(results: dict[str, RunResult]) -> None:
    heads = results["all"].table("head_metrics")
    flags = heads[heads["metric"] == "is_sink"].groupby("layer")["value"].sum()
    assert flags.astype(int).tolist() == LANDMARKS["sink_share_eps_0.3_by_block"]
    scores = heads[heads["metric"] == "sink_score"].groupby("layer")["value"].mean()
    np.testing.assert_allclose(scores, LANDMARKS["mean_sink_score_by_block"], atol=6e-5)


def test_raw_lens_and_loss(results: dict[str, RunResult]) -> None:
    for point, expected in LANDMARKS["lens"].items():
        kl = by_point(results["all"], "lens_kl")[int(point)]
        assert kl == pytest.approx(expected["raw"]["kl_final_layer"], rel=1e-3, abs=1e-4)
        entropy = by_point(results["all"], "lens_entropy")[int(point)]
        assert entropy == pytest.approx(expected["raw"]["entropy"], rel=1e-3, abs=6e-4)
    tokens = results["all"].table("token_metrics")
    nll = tokens.loc[tokens["metric"] == "nll", "value"]
    assert nll.mean() == pytest.approx(LANDMARKS["nll_mean"], rel=1e-3)


def test_two_neurons_write_the_massive_activation(results: dict[str, RunResult]) -> None:
    neurons = results["all"].table("massive_neurons")
    own = neurons[(neurons["dim"] == 507) & (neurons["pos"] == 0) & (neurons["layer"] == 11)]
    largest = own.sort_values("contribution", ascending=False).head(4)
    expected = LANDMARKS["edits"]["writers_block_11_mlp_dim_507_pos_0"]
    assert list(largest["neuron"]) == [neuron for neuron, _ in expected["neurons"]]
    np.testing.assert_allclose(largest["contribution"], [value for _, value in expected["neurons"]], rtol=1e-2)
    events = results["all"].table("massive_events")
    birth = events[(events["dim"] == 507) & (events["pos"] == 0)].iloc[0]
    assert birth["birth"] == 12
    assert birth["mlp_delta"] == pytest.approx(expected["mlp_total"], rel=1e-3)


FIRST = {
    "first token <|im_start|>": ("<|im_start|>",),
    "first token <|endoftext|>": ("<|endoftext|>",),
    "first token no BOS": (),
}
ZEROED = {
    f"point {point} ({position},{dim}) = 0": {
        "site": "resid", "layer": point, "positions": [position], "dims": [dim], "op": "set", "source": "zero"
    }
    for point, position, dim in ((12, 0, 507), (18, 0, 507), (24, 0, 507), (12, 0, 100), (12, 40, 507))
}  # fmt: skip
NUDGED = {**ZEROED["point 12 (0,507) = 0"], "source": 24926.2 * 1.01}
EDITS = {"clean": None, **ZEROED, "point 12 (0,507) = 24926.2 + 1 %": NUDGED}


@pytest.fixture(scope="module")
def edited(shelf: Shelf) -> Iterator[dict[str, dict[str, float]]]:
    """Every edit of the landmarks against the clean run, one lean pass each: metrics without a layer by name."""
    with Store.open(":memory:") as store:
        runner = Runner(store, shelf)
        ids = text_ids(shelf.get(EMBEDDED), examples()[0].text)
        clean = runner.run(RunRequest(EMBEDDED, ids, (ProbeCall("sinks"),))).info.run_id
        effect = (ProbeCall("effect", {"against": clean}),)
        found = {}
        for name, given in EDITS.items():
            edits = () if given is None else (parse_edit(given),)
            result = runner.run(RunRequest(EMBEDDED, ids, effect, edits=edits))
            assert result.info.forward_passes == (given is not None), name
            rows = result.table("layer_metrics")
            plain = rows[rows["layer"].isna()].set_index("metric")["value"]
            shares = rows[(rows["metric"] == "sink_share") & rows["layer"].between(13, 30)]["value"]
            assert len(shares) == 18
            found[name] = plain.to_dict() | {"by hand": shares.mean()}
        yield found


def test_every_edit_of_the_landmarks_is_tried() -> None:
    assert {name for name in LANDMARKS["edits"] if not name.startswith("writers")} == {*EDITS, *FIRST}


@pytest.mark.parametrize("name", EDITS)
def test_an_edit_does_to_loss_and_sinks_what_the_landmarks_say(edited: dict[str, dict[str, float]], name: str) -> None:
    expected, found = LANDMARKS["edits"][name], edited[name]
    assert found["perplexity"] == pytest.approx(expected["perplexity"], rel=0.01)
    assert found["perplexity_clean"] == pytest.approx(LANDMARKS["edits"]["clean"]["perplexity"], rel=0.01)
    assert found["sink_share_on"] == pytest.approx(expected["sink_share_blocks_12_29"], rel=0.01)
    assert found["by hand"] == pytest.approx(found["sink_share_on"], rel=1e-6)


def test_controls_are_smaller_by_orders_of_magnitude(edited: dict[str, dict[str, float]]) -> None:
    kl = {name: metrics["effect_kl"] for name, metrics in edited.items()}
    assert kl["clean"] == 0.0
    for control in ("point 12 (0,100) = 0", "point 12 (40,507) = 0", "point 12 (0,507) = 24926.2 + 1 %"):
        assert kl["point 12 (0,507) = 0"] > 1000 * kl[control], control


@pytest.mark.parametrize("name", FIRST)
def test_the_first_token_gets_the_value_whatever_it_is(shelf: Shelf, name: str) -> None:
    model, expected = shelf.get(EMBEDDED), LANDMARKS["edits"][name]
    text = text_ids(model, examples()[0].text, bos=False)
    ids = (*(model.tokenizer.convert_tokens_to_ids(token) for token in FIRST[name]), *text)
    with Store.open(":memory:") as store:
        result = Runner(store, shelf).run(RunRequest(EMBEDDED, ids, (ProbeCall("tokens"),)))
        assert float(result.tensor("resid.12")[0, 507]) == pytest.approx(
            expected["value_point12_pos0_dim507"], rel=0.01
        )
        assert float(result.tensor("resid.12")[1:, 507].abs().max()) < 1000
        tokens = result.table("token_metrics")
    losses = tokens[tokens["metric"] == "nll"]["value"]
    assert np.exp(losses.mean()) == pytest.approx(expected["perplexity"], rel=0.01)
