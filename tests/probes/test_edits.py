"""Edits as people write them: parsing, the canonical form and the keys."""

import itertools
import json
from typing import Any

import pytest

from cache.keys import canonical_json
from cache.store import Store
from probes.errors import BadRequest
from probes.model.edits import Edit, FromRun, Mean, Vector, parse_edit, parse_edits
from probes.model.loaded import LoadedModel
from probes.model.shelf import Shelf
from probes.model.tokenise import text_ids
from probes.request import ProbeCall, RunRequest, capture_id
from probes.runner import Runner
from tests import tiny

RESID = {"site": "resid", "layer": 1, "positions": [0], "dims": [5], "op": "set", "source": "zero"}
MASK = {"site": "pattern", "layer": 1, "op": "mask", "keys": [0]}
VALUE = {"site": "value", "layer": 0, "heads": [0], "op": "scale", "source": 2}
ONE = (
    RESID,
    MASK,
    VALUE,
    {**MASK, "renormalise": False, "heads": [3, 1], "queries": [4]},
    {"site": "pattern", "layer": 0, "op": "set", "source": "uniform"},
    {"site": "mlp_out", "layer": 0, "op": "add", "source": {"vector": [1, 2.5]}, "dims": [7, 3]},
    {"site": "head_z", "layer": 0, "op": "set", "source": {"mean": "builtin"}},
    {"site": "attn_out", "layer": 2, "op": "set", "source": {"run": "abc"}},
)


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    return tiny.loaded("llama")


def request_for(model: LoadedModel, *edits: Edit, text: str = tiny.TEXT) -> RunRequest:
    return RunRequest(model.facts.name, text_ids(model, text), (ProbeCall("tokens"),), edits=edits)


def test_parts_become_typed() -> None:
    edit = parse_edit(ONE[5])
    assert (edit.site, edit.layer, edit.op, edit.dims) == ("mlp_out", 0, "add", (7, 3))
    assert edit.source == Vector((1, 2.5))
    assert parse_edit(ONE[6]).source == Mean("builtin")
    assert parse_edit(ONE[7]).source == FromRun("abc")
    assert parse_edit(RESID).heads is None


@pytest.mark.parametrize("given", ONE, ids=lambda edit: f"{edit['site']}-{edit['op']}")
def test_the_canonical_form_reads_back_as_the_same_edit(given: dict[str, Any]) -> None:
    edit = parse_edit(given)
    assert parse_edit(edit.as_dict()) == edit
    assert parse_edit(json.loads(canonical_json(edit.as_dict()))) == edit
    backwards = dict(reversed(given.items()))
    assert canonical_json(parse_edit(backwards).as_dict()) == canonical_json(edit.as_dict())


def test_lists_have_one_order_but_for_the_dims_of_a_vector() -> None:
    lists = {"positions": [9, 2], "heads": [3, 0], "dims": [4, 1]}
    edit = parse_edit({"site": "head_z", "layer": 0, "op": "set", "source": "zero", **lists})
    assert (edit.positions, edit.heads, edit.dims) == ((2, 9), (0, 3), (1, 4))
    vector = parse_edit({"site": "head_z", "layer": 0, "op": "set", "source": {"vector": [1, 2]}, **lists})
    assert (vector.positions, vector.heads, vector.dims) == ((2, 9), (0, 3), (4, 1))


def test_what_is_left_out_or_null_means_all_and_is_not_said() -> None:
    said = {"site": "resid", "layer": 0, "op": "scale", "source": 2.0}
    assert parse_edit(said).as_dict() == said
    assert parse_edit({**said, "positions": None, "dims": None}) == parse_edit(said)
    assert parse_edit(MASK).as_dict()["renormalise"] is True
    assert parse_edit({**MASK, "renormalise": True}) == parse_edit(MASK) != parse_edit({**MASK, "renormalise": False})


def test_texts_hold_one_edit_or_a_list_in_order() -> None:
    texts = [json.dumps(RESID), json.dumps([MASK, VALUE])]
    assert parse_edits(texts) == tuple(map(parse_edit, (RESID, MASK, VALUE)))
    assert parse_edits([]) == ()


def test_every_field_of_an_edit_changes_the_key_and_the_order_of_a_dict_does_not(model: LoadedModel) -> None:
    base = {"site": "head_z", "layer": 1, "positions": [1], "heads": [1], "dims": [1], "op": "set", "source": 0.5}
    changed = [
        {**base, "site": "value"},
        {**base, "layer": 2},
        *({**base, name: [0]} for name in ("positions", "heads", "dims")),
        *({**base, name: None} for name in ("positions", "heads", "dims")),
        {**base, "op": "add"},
        *({**base, "source": source} for source in (0.25, "zero", {"mean": "a"}, {"mean": "b"}, {"vector": [0.5]})),
        {**base, "source": {"run": "a"}},
        MASK,
        {**MASK, "renormalise": False},
        *({**MASK, name: [1]} for name in ("keys", "queries", "heads")),
    ]
    ids = (1, 4, 5)
    keys = [capture_id(model.facts, ids, (parse_edit(edit),)) for edit in (base, *changed)]
    keys += [capture_id(model.facts, ids), capture_id(model.facts, ids, (parse_edit(base),) * 2)]
    pair = parse_edit(base), parse_edit(MASK)
    keys += [capture_id(model.facts, ids, pair), capture_id(model.facts, ids, pair[::-1])]
    assert len(set(keys)) == len(keys)
    shuffled = [dict(items) for items in itertools.islice(itertools.permutations(base.items()), 0, 5040, 500)]
    assert {capture_id(model.facts, ids, (parse_edit(edit),)) for edit in shuffled} == {keys[0]}


def test_a_stored_request_keeps_its_edits(runner: Runner, model: LoadedModel, store: Store) -> None:
    edits = (parse_edit(RESID), parse_edit(MASK))
    made = runner.run(request_for(model, *edits))
    opened = Runner(store, Shelf()).open(made.info.run_id)
    assert opened is not None
    assert opened.info.request.edits == edits
    assert store.run(made.info.run_id)["capture"]["edits"] == [edit.as_dict() for edit in edits]
    assert runner.run(opened.info.request).info.cached


def test_an_edit_refuses_what_parsing_would() -> None:
    with pytest.raises(BadRequest, match="dims must be whole numbers"):
        Edit("resid", 0, "set", "zero", dims=[3])  # a list could be changed afterwards
