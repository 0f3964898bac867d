"""A bundle is verified by running it again: the same model reproduces every number, and what was changed is named."""

import io
from dataclasses import replace

import pandas as pd
import pyarrow as pa
import pytest

from app.bundles import export, make_item
from app.panels.registry import panel
from app.selection import Selection
from app.services import Services
from app.verify import _compared, verify_bundle
from app.view import View
from cache import Store
from cache.bundle_format import Bundle
from cache.bundle_read import read_bundle
from probes.model.shelf import Shelf
from probes.progress import Progress
from probes.request import ProbeCall, RunRequest
from probes.runner import Runner
from tests import tiny


@pytest.fixture(scope="module")
def shelf() -> Shelf:
    made = Shelf()
    made.put(tiny.loaded("llama"))
    return made


@pytest.fixture(scope="module")
def bundle(shelf: Shelf) -> Bundle:
    """A session with a panel of a run of a tiny model, and one that an answer beside it draws."""
    with Store.open(":memory:") as store:
        services = Services(store, shelf, Runner(store, shelf))
        name = tiny.loaded("llama").facts.name
        calls = tuple(ProbeCall(one) for one in ("tokens", "spectral", "sinks", "massive"))
        run = services.runner.run(RunRequest(name, tuple(range(3, 75)), calls))
        pattern = ProbeCall("pattern", {"block": 1})
        services.runner.run(run.info.request.with_probes(pattern))
        view = View(services, run, Selection(2, 5))
        session, _ = store.create_session("verified")
        for key in ("sinks-heads", "sinks-attention"):
            store.add_item(session.session_id, make_item(panel(key), view, {}))
        out = io.BytesIO()
        export(services, session.session_id, out)
    return read_bundle(io.BytesIO(out.getvalue()))


def test_an_item_carries_what_it_was_drawn_from(bundle: Bundle) -> None:
    assert [item.view for item in bundle.items] == ["sinks-heads", "sinks-attention"]
    assert len(bundle.runs) == 2
    assert {name for _, name in bundle.tensors} == {"pattern", "attention.column_sum"}
    assert bundle.items[1].params["runs"], "the run that holds the pattern"


def test_the_same_model_reproduces_every_number(bundle: Bundle, shelf: Shelf) -> None:
    found = verify_bundle(bundle, shelf, Progress())
    assert found.reproduced, found.table()
    assert {"layer_metrics", "head_metrics", "spectra", "token_metrics", "tokens", "tensor"} <= set(
        found.table()["table"]
    )
    assert found.table()["n"].sum() > 500


def test_a_changed_number_is_named(bundle: Bundle, shelf: Shelf) -> None:
    table = bundle.tables["head_metrics"]
    frame = table.to_pandas()
    place = frame.index[frame["metric"] == "sink_score"][3]
    frame.loc[place, "value"] += 0.01
    changed = pa.Table.from_pandas(frame, table.schema, preserve_index=False)
    found = verify_bundle(replace(bundle, tables={**bundle.tables, "head_metrics": changed}), shelf, Progress())
    [odd] = [one for one in found.verdicts if one.outcome != "reproduced"]
    assert (odd.table, odd.metric, odd.outcome, odd.n - odd.agreeing) == ("head_metrics", "sink_score", "differs", 1)


def test_events_are_compared_whatever_their_order() -> None:
    events = pd.DataFrame({"layer": [3, 3], "kind": ["birth", "sinks"], "text": ["a", "b"], "evidence": ["{}", "{}"]})
    events["layer"] = events["layer"].astype("Int64")
    (same,) = _compared("run", "events", events, events.iloc[::-1].astype({"layer": "int64"}))
    assert (same.outcome, same.n, same.agreeing) == ("reproduced", 2, 2)
    (other,) = _compared("run", "events", events, events.assign(text=["a", "c"]))
    assert (other.outcome, other.n, other.agreeing) == ("differs", 2, 1)


def test_a_changed_tensor_is_named(bundle: Bundle, shelf: Shelf) -> None:
    [place] = [key for key in bundle.tensors if key[1] == "pattern"]
    changed = bundle.tensors[place].clone()
    changed[0, 40, 3] += 0.01
    found = verify_bundle(replace(bundle, tensors={**bundle.tensors, place: changed}), shelf, Progress())
    [odd] = [one for one in found.verdicts if one.outcome != "reproduced"]
    assert (odd.table, odd.metric, odd.n - odd.agreeing) == ("tensor", "pattern", 1)


def test_other_weights_cannot_run_it_and_it_says_why(bundle: Bundle) -> None:
    other = Shelf()
    other.put(tiny.loaded("llama", hidden_size=64))
    found = verify_bundle(bundle, other, Progress())
    assert not found.reproduced
    assert {one.outcome for one in found.verdicts} == {"cannot run"}
    assert "other weights" in found.verdicts[0].reason
