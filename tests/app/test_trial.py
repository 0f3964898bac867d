"""Tests of "does it matter?" and the story, on real runs of a tiny model: planned, run, read, and asked again for nothing."""

from collections.abc import Iterator

import numpy as np
import pandas as pd
import pytest

from app.figures.effect import effect_bars, effect_by_position, head_effects, sink_shares
from app.services import Services
from app.trial import EFFECTS, first_sink_block, make_test, submit, summary
from cache.store import Store
from probes.errors import BadRequest
from probes.model.shelf import Shelf
from probes.model.tokenise import text_ids
from probes.request import ProbeCall, RunRequest
from probes.runner import Runner, RunResult
from probes.trials import Target
from tests import tiny


@pytest.fixture(scope="module")
def held() -> Iterator[Services]:
    shelf = Shelf()
    shelf.put(tiny.loaded("llama"))
    store = Store.open(":memory:")
    made = Services(store, shelf, Runner(store, shelf))
    yield made
    made.close()


@pytest.fixture(scope="module")
def clean(held: Services) -> RunResult:
    calls = (ProbeCall("tokens"), ProbeCall("sinks"), ProbeCall("massive"))
    ids = text_ids(held.shelf.get("tiny-llama"), tiny.TEXT)
    return held.runner.run(RunRequest("tiny-llama", ids, calls))


def test_a_test_runs_its_passes_once_and_is_found_again(held: Services, clean: RunResult) -> None:
    test = make_test(clean, Target("head", 1, head=0), "zero")
    assert test.found(held) == ()
    job = submit(held, test)
    assert job.wait(120)
    assert job.error is None
    found = test.found(held)
    assert [trial.role for trial, _ in found] == [trial.role for trial in test.trials]
    again = make_test(clean, Target("head", 1, head=0), "zero")
    assert again.run_ids == test.run_ids
    assert len(again.found(held)) == len(test.trials)
    assert held.runner.run(again.requests[0]).info.forward_passes == 0


def test_the_summary_begins_with_the_clean_run_and_agrees_with_the_tokens(held: Services, clean: RunResult) -> None:
    test = make_test(clean, Target("block", 0), "zero")
    assert submit(held, test).wait(120)
    table = summary(test.found(held))
    assert table["role"].tolist() == ["clean", *(trial.role for trial in test.trials)]
    tokens = clean.table("token_metrics")
    nll = tokens.loc[(tokens["metric"] == "nll") & tokens["value"].notna(), "value"]
    assert table["perplexity"].iloc[0] == pytest.approx(float(np.exp(nll.mean())), rel=1e-5)
    assert (table["effect_kl"].iloc[1:] > 0).all()


@pytest.mark.parametrize(
    ("target", "says"),
    [
        (Target("entry", 4, position=0, dim=0), r"layer of a test lies in 0\.\.3"),
        (Target("head", 0, head=4), r"head of a test lies in 0\.\.3"),
        (Target("sink", 0, position=9999), "position of a test lies in 0"),
        (Target("dimension", 0, dim=32), r"dim of a test lies in 0\.\.31"),
    ],
)
def test_a_place_the_run_does_not_have_is_refused_before_anything_runs(
    clean: RunResult, target: Target, says: str
) -> None:
    with pytest.raises(BadRequest, match=says):
        make_test(clean, target, "zero")


def test_the_largest_entry_that_is_not_massive_is_among_the_controls(clean: RunResult) -> None:
    target = Target("entry", 2, position=5, dim=3)
    state = clean.tensor("resid.2")[5].abs()
    state[3] = 0
    label = make_test(clean, target, "zero").trials[1].label
    assert label == f"largest not massive here, dimension {int(state.argmax())}"


def test_the_first_block_with_sinks_is_that_of_the_table(clean: RunResult) -> None:
    heads = clean.table("head_metrics")
    on = heads[(heads["metric"] == "is_sink") & (heads["value"] == 1)]["layer"]
    assert first_sink_block(clean) == (None if on.empty else int(on.min()))


def test_figures_draw_every_pass_and_leave_gaps() -> None:
    table = pd.DataFrame(
        {
            "changed": ["nothing (clean)", "position 0, dimension 5", "same position, dimension 7"],
            "role": ["clean", "target", "control"],
            "perplexity": [34.0, 2e5, np.nan],
        }
    )
    bars = effect_bars(table)
    assert [trace.name for trace in bars.data] == ["clean", "tested", "control"]
    assert np.isnan(bars.data[2].x[0]), "an undefined perplexity is a gap"
    assert bars.layout.xaxis.type == "log"
    curves = [
        ("a", "target", np.array([np.nan, 1.0, 2.0])),
        ("b", "control", np.array([np.nan, 0.1, 0.3])),
        ("c", "control", np.array([np.nan, 0.2, 0.2])),
    ]
    along = effect_by_position(curves, ("x", "y", "z"), EFFECTS["effect_kl"])
    band, line = along.data
    assert list(band.y) == [0.2, 0.3, 0.2, 0.1], "highest there, lowest back"
    assert line.x.tolist() == [0, 1, 2]
    share = pd.DataFrame({"layer": [1, 2], "value": [0.0, 0.5], "metric": "sink_share"})
    shares = sink_shares(share, [("a", "target", share), ("b", "control", share)], 2)
    assert [trace.name for trace in shares.data] == ["1 control", "a", "clean"]


def test_the_map_of_heads_is_centred_at_no_change() -> None:
    rows = pd.DataFrame(
        {
            "layer": [0, 0, 1, 1], "head": [0, 1, 0, 1], "metric": "effect_nll", "value": [0.1, -0.4, 0.2, 0.0],
            "n_used": 12, "status": "ok",
        }
    )  # fmt: skip
    heat = head_effects(rows, "effect_nll").data[0]
    assert heat.z.shape == (2, 2)
    assert (heat.zmin, heat.zmid, heat.zmax) == (-0.4, 0, 0.4)
