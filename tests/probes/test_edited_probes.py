"""Probes on edited passes: parts still sum to the logit, and what an edit moved is not taken for what a block wrote."""

from typing import Any

import pandas as pd
import pytest
import torch

from cache.store import Store
from probes import attribution, massive
from probes.model.capture import Capture
from probes.model.edits import parse_edit
from probes.model.loaded import LoadedModel
from probes.model.shelf import Shelf
from probes.model.tokenise import text_ids
from probes.registry import probe
from probes.request import ProbeCall, RunRequest
from probes.runner import Runner
from tests import tiny
from tests.probes.captured import CONTEXT, edited
from tests.probes.test_editing import CASES

EDITS: dict[str, list[dict[str, Any]]] = {
    "resid": [{"site": "resid", "layer": 2, "op": "add", "source": {"vector": [0.5, -3.0]}, "dims": [1, 7]}],
    "embeddings": [{"site": "resid", "layer": 0, "op": "scale", "source": 3.0}],
    "last point": [{"site": "resid", "layer": 3, "op": "set", "source": 2.0, "dims": [4]}],
    "attn_out": [{"site": "attn_out", "layer": 1, "op": "scale", "source": -2.0}],
    "mlp_out": [{"site": "mlp_out", "layer": 1, "op": "scale", "source": -2.0}],
    "head_z": [{"site": "head_z", "layer": 1, "op": "scale", "source": 3.0, "heads": [2]}],
    "value": [{"site": "value", "layer": 1, "op": "scale", "source": 3.0, "heads": [1]}],
    "pattern": [{"site": "pattern", "layer": 1, "op": "set", "source": "uniform"}],
}
EDITS["all at once"] = [edit for several in EDITS.values() for edit in several]
ADDED = ("resid", "embeddings", "last point", "attn_out", "all at once")  # what no head and no MLP wrote
DIM, NEURON = 5, 7


@pytest.fixture(scope="module", params=CASES)
def model(request: pytest.FixtureRequest) -> LoadedModel:
    name, changes = CASES[request.param]
    return tiny.loaded(name, **changes)


def output(capture: Capture, position: int) -> torch.Tensor:
    """The logits of an edited pass before any soft-cap, from its last point alone."""
    model = capture.model
    hidden = model.normalise(capture.resid(model.facts.n_layers)[position][None])
    with torch.no_grad():
        return model.sites.unembed(hidden)[0].double()


@pytest.mark.parametrize("what", EDITS)
def test_parts_of_an_edited_run_sum_to_its_logit(model: LoadedModel, what: str) -> None:
    capture = edited(model, *EDITS[what])
    for position in (9, capture.n_tokens - 1):
        logits = output(capture, position)
        result = attribution.run(capture, attribution.Params(position=position, target=70, versus=None), CONTEXT)
        frame = result.tables["components"]
        parts = frame[frame["source_pos"].isna()]
        scale = float(parts["value"].abs().max())
        assert parts["value"].sum() == pytest.approx(float(logits[70]), abs=1e-4 * scale)
        assert ("edit" in set(parts["component"])) == (what in ADDED)
        for _, split in frame[frame["source_pos"].notna()].groupby(["layer", "head"]):
            assert len(split) == position + 1


def test_the_row_of_an_edit_is_what_it_added(model: LoadedModel) -> None:
    capture = edited(model, *EDITS["last point"])
    clean = edited(model)
    frame = attribution.run(capture, attribution.Params(target=70, versus=None), CONTEXT).tables["components"]
    [row] = frame[frame["component"] == "edit"].itertuples()
    assert row.layer == 2  # the block whose output it changed
    heads = frame[(frame["component"] == "head") & frame["source_pos"].isna() & (frame["layer"] == 0)]
    assert len(heads) == model.facts.n_heads
    moved = capture.resid(3)[-1] - clean.resid(3)[-1]
    assert moved.count_nonzero() == 1
    without = frame[frame["source_pos"].isna() & (frame["component"] != "edit")]["value"].sum()
    assert row.value == pytest.approx(float(output(capture, -1)[70]) - without, rel=1e-3, abs=1e-3)
    if model.facts.norm == "rms":  # the norm is frozen at what it divides by, so the row is one product
        divided = capture.resid(3)[-1].double().square().mean().sqrt()
        gain = model.normalise(capture.resid(3)[-1][None])[0].double() / (capture.resid(3)[-1].double() / divided)
        expected = float(moved[4].double() / divided * gain[4] * model.unembed_matrix()[70, 4].double())
        assert row.value == pytest.approx(expected, rel=1e-4)


@pytest.fixture(scope="module")
def writing() -> LoadedModel:
    """In block 1 one neuron writes a huge value to one dimension of every token."""
    model = tiny.loaded("llama")
    with torch.no_grad():
        model.hf.model.layers[1].mlp.down_proj.weight[DIM, NEURON] = 1e6
    return model


def origin(capture: Capture) -> pd.DataFrame:
    tables = massive.run(capture, massive.Params(), CONTEXT).tables
    events, neurons = tables["massive_events"], tables["massive_neurons"]
    assert len(events)
    assert set(neurons.groupby(["pos", "dim"])["neuron"].first()) == {NEURON}
    return events.set_index(["pos", "dim"])


@pytest.mark.parametrize("edit", [{"op": "scale", "source": 2.0}, {"op": "add", "source": 1e5, "dims": [DIM]}])
def test_a_birth_keeps_its_writers_where_an_edit_changes_the_value(writing: LoadedModel, edit: dict[str, Any]) -> None:
    clean = origin(edited(writing))
    changed = origin(edited(writing, {"site": "resid", "layer": 2, **edit}))
    shared = clean.index.intersection(changed.index)
    assert len(shared) > 10
    for name in ("birth", "attn_delta", "mlp_delta"):
        pd.testing.assert_series_equal(changed.loc[shared, name], clean.loc[shared, name])


def test_entries_an_edit_made_are_born_of_no_neuron() -> None:
    model = tiny.loaded("llama")
    capture = edited(model, {"site": "resid", "layer": 1, "positions": [4], "dims": [9], "op": "set", "source": 1e5})
    [event] = massive.run(capture, massive.Params(), CONTEXT).tables["massive_events"].itertuples()
    assert (event.pos, event.dim, event.birth) == (4, 9, 1)
    assert abs(event.attn_delta) + abs(event.mlp_delta) < 100


def test_probes_run_on_an_edited_pass_and_says_the_same_twice() -> None:
    model = tiny.loaded("llama")
    shelf = Shelf()
    shelf.put(model)
    plain = tuple(ProbeCall(name) for name in ("tokens", "spectral", "sinks", "massive", "attribution", "events"))
    edits = tuple(parse_edit(edit) for edit in EDITS["all at once"])
    found = []
    for _ in range(2):
        with Store.open(":memory:") as store:
            result = Runner(store, shelf).run(
                RunRequest(model.facts.name, text_ids(model, tiny.TEXT), plain, edits=edits)
            )
            found.append({name: result.table(name) for name in result.table_names})
            assert {table for call in plain for table in probe(call.name).spec.tables} == set(found[-1])
    assert len(found[0]["components"])
    for name, table in found[0].items():
        pd.testing.assert_frame_equal(table, found[1][name])
