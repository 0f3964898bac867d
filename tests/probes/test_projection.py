"""The projection probe on a tiny model."""

import numpy as np
import pytest

from cache.store import Store
from probes.errors import BadRequest
from probes.model.shelf import Shelf
from probes.model.tokenise import text_ids
from probes.request import ProbeCall, RunRequest
from probes.runner import Runner
from tests import tiny


def test_rows_follow_the_mask_and_the_point() -> None:
    model = tiny.loaded("llama")
    shelf = Shelf()
    shelf.put(model)
    with Store.open(":memory:") as store:
        call = ProbeCall("projection", {"point": 2, "preparation": "raw_no_bos"})
        result = Runner(store, shelf).run(RunRequest(model.facts.name, text_ids(model, tiny.TEXT), (call,)))
        rows = result.table("token_metrics")
        shares = result.table("layer_metrics").set_index("metric")["value"]
    first = rows[rows["metric"] == "pc1"].sort_values("pos")
    assert set(rows["layer"]) == {2}
    assert np.isnan(first["value"].iloc[0])
    assert first["status"].iloc[0] == "not_applicable"
    assert first["value"].iloc[1:].notna().all()
    assert set(first["n_used"]) == {len(tiny.TEXT)}
    assert 1 >= shares["pc1_share"] >= shares["pc2_share"] > 0


@pytest.mark.parametrize(
    "params", [{"point": -1}, {"point": 1.0}, {"point": True}, {"preparation": "some"}, {"preparation": 3}]
)
def test_bad_parameters_are_named(params: dict[str, object]) -> None:
    with pytest.raises(BadRequest, match=r"projection\."):
        ProbeCall("projection", params).full_params()
