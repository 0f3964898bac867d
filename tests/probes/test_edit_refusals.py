"""Edits that cannot be: one sentence each that says what could, before anything runs and with nothing stored."""

from typing import Any

import pytest

from probes.errors import BadRequest
from probes.model import forward as passes
from probes.model.bank import bank_id
from probes.model.edits import Edit, parse_edit, parse_edits
from probes.model.loaded import LoadedModel
from probes.model.tokenise import text_ids
from probes.request import ProbeCall, RunRequest
from probes.runner import Runner
from tests import tiny
from tests.probes.test_edits import MASK, RESID, VALUE


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    return tiny.loaded("llama")


def request_for(model: LoadedModel, *edits: Edit, text: str = tiny.TEXT) -> RunRequest:
    return RunRequest(model.facts.name, text_ids(model, text), (ProbeCall("tokens"),), edits=edits)


def sentence(error: pytest.ExceptionInfo[BadRequest]) -> str:
    says = str(error.value)
    assert says.startswith("Edit: ") or says[0].isupper()
    assert says.endswith(".")
    assert ". " not in says
    assert "\n" not in says
    return says


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({**RESID, "site": "resid_mid"}, "resid, attn_out, mlp_out, head_z, value, pattern"),
        ({**RESID, "site": ["resid"]}, "site must be one of"),
        ({**RESID, "op": "multiply"}, "set or add or scale"),
        ({**RESID, "op": "mask"}, "set or add or scale"),
        ({**MASK, "op": "scale", "source": 2}, "mask or set"),
        ({**RESID, "token": 3}, "an edit has no 'token'"),
        ({k: v for k, v in RESID.items() if k != "layer"}, "layer is missing"),
        ({k: v for k, v in RESID.items() if k != "op"}, "op is missing"),
        ({k: v for k, v in RESID.items() if k != "source"}, "the source must be"),
        *(({**RESID, "layer": bad}, "whole number from 0") for bad in (-1, 1.0, True, "1", None, [1], float("nan"))),
        *(({**RESID, "positions": bad}, "whole numbers from 0") for bad in ([-1], [1.0], [True], ["0"], [[0]], [None])),
        *(({**RESID, "dims": bad}, "dims must be a list") for bad in (5, "5", {"5": 1}, True)),
        *(({**RESID, name: []}, f"{name} is empty") for name in ("positions", "dims")),
        *(({**MASK, name: []}, f"{name} is empty") for name in ("keys", "queries", "heads")),
        ({**RESID, "positions": [3, 1, 3]}, "positions names 3 twice"),
        ({**MASK, "keys": [2, 2]}, "keys names 2 twice"),
        ({**RESID, "heads": [0]}, "resid takes no heads; it takes positions, dims"),
        ({**RESID, "keys": [0]}, "resid takes no keys"),
        ({**RESID, "renormalise": True}, "resid takes no renormalise"),
        ({**MASK, "dims": [0]}, "pattern takes no dims"),
        ({**MASK, "positions": [0]}, "pattern takes no positions"),
        ({**MASK, "keys": None}, "needs the keys"),
        ({**MASK, "source": "zero"}, "takes no source"),
        *(({**MASK, "renormalise": bad}, "true or false") for bad in (0, 1, "no", [])),
        ({**MASK, "op": "set", "source": "zero"}, 'must be "uniform"'),
        ({**MASK, "op": "set", "source": "uniform", "renormalise": False}, "goes with op mask"),
        ({**RESID, "source": "uniform"}, "the source must be"),
        ({**RESID, "source": None}, "the source must be"),
        ({**RESID, "source": True}, "the source must be"),
        ({**RESID, "source": [1.0]}, "the source must be"),
        ({**RESID, "op": "add"}, '"zero" (with set)'),
        *(({**RESID, "source": bad}, "within float32") for bad in (float("nan"), float("inf"), -1e39, 10**400)),
        *(({**VALUE, "source": bad}, "scale takes a number") for bad in ("zero", {"mean": "builtin"}, {"vector": [1]})),
        ({**RESID, "source": {"median": "builtin"}}, "a mean, a run or a vector"),
        ({**RESID, "source": {"mean": 3}}, "a mean, a run or a vector"),
        ({**RESID, "source": {"run": None}}, "a mean, a run or a vector"),
        ({**RESID, "source": {"vector": 1.0}}, "a mean, a run or a vector"),
        ({**RESID, "source": {}}, "names one thing"),
        ({**RESID, "source": {"mean": "builtin", "run": "a"}}, "names one thing"),
        *(
            ({**RESID, "source": {"vector": bad}}, "at least one number, all of them finite")
            for bad in ([], [float("nan")], [1e39], [True], ["1"], [None], [[1.0]], [10**400])
        ),
        ([RESID], "an edit is an object"),
        ("zero", "an edit is an object"),
        (None, "an edit is an object"),
    ],
)
def test_what_means_nothing_on_any_model_is_refused(given: Any, says: str) -> None:
    with pytest.raises(BadRequest) as error:
        parse_edit(given)
    assert says in sentence(error)


@pytest.mark.parametrize(
    "text",
    ["", "{", "nonsense", "[" * 100_000, '{"site": ' + "9" * 5000 + "}", "[]", "[[]]", "3", "null", '["resid"]', "{}"],
)
def test_texts_that_are_no_edit_are_refused(text: str) -> None:
    with pytest.raises(BadRequest) as error:
        parse_edits([text])
    assert '"site": "resid"' in sentence(error)  # an example of one that is


def test_a_long_list_is_read_at_once() -> None:
    many = list(range(200_000))
    assert parse_edit({**RESID, "positions": many}).positions == tuple(many)
    with pytest.raises(BadRequest, match="names 7 twice"):
        parse_edit({**RESID, "positions": [*many, 7]})


def test_a_pass_that_begins_is_seen(runner: Runner, model: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(pytest.fail.Exception, match="began"):
        refused(runner, model, RESID, monkeypatch)


def refused(runner: Runner, model: LoadedModel, given: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> str:
    """What the runner says, having neither run nor stored anything."""
    before = len(runner.store.runs())
    monkeypatch.setattr(passes._Kept, "__init__", lambda *_: pytest.fail("a forward pass began"))
    with pytest.raises(BadRequest) as error:
        runner.run(request_for(model, parse_edit(given)))
    assert len(runner.store.runs()) == before
    return sentence(error)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({**RESID, "layer": 4}, "a point from 0 to 3 here, not 4"),
        *(({**VALUE, "site": site, "heads": None, "layer": 3}, "0 to 2") for site in ("attn_out", "mlp_out", "head_z")),
        ({**VALUE, "layer": 3}, "a block from 0 to 2"),
        ({**MASK, "layer": 3}, "a block from 0 to 2"),
        ({**RESID, "positions": [2, 107]}, "positions of resid lie in 0..106 here, not 107"),
        ({**RESID, "dims": [32]}, "0..31"),
        ({**VALUE, "dims": [8]}, "0..7"),
        ({**VALUE, "heads": [2]}, "key/value heads of value lie in 0..1"),  # 4 heads read 2
        ({**VALUE, "site": "head_z", "heads": [4]}, "heads of head_z lie in 0..3"),
        ({**MASK, "heads": [4]}, "0..3"),
        ({**MASK, "keys": [107]}, "keys of pattern lie in 0..106"),
        ({**MASK, "queries": [107]}, "queries of pattern lie in 0..106"),
        ({**RESID, "layer": 10**30}, "from 0 to 3"),
        ({**RESID, "source": {"vector": [1.0, 2.0]}}, "must have 1 numbers"),
        ({**RESID, "dims": None, "source": {"vector": [1.0]}}, "must have 32 numbers"),
        ({**VALUE, "op": "set", "source": {"vector": [1.0] * 32}}, "must have 8 numbers"),
        ({**RESID, "source": {"mean": "nobody"}}, "there is no bank 'nobody'"),
        ({**RESID, "source": {"mean": "\ud800"}}, "there is no bank"),
        ({**RESID, "source": {"run": "0" * 32}}, "holds no run"),
        ({**RESID, "source": {"run": "\ud800"}}, "holds no run"),
    ],
)
def test_places_this_model_or_prompt_lacks_are_refused_before_a_pass(
    runner: Runner, model: LoadedModel, given: dict[str, Any], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert says in refused(runner, model, given, monkeypatch)


def test_a_bank_of_another_model_is_refused(
    runner: Runner, model: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = bank_id("builtin", tiny.loaded("gpt2").facts)
    assert bank_id("builtin", model.facts) != theirs
    says = refused(runner, model, {**RESID, "source": {"mean": theirs}}, monkeypatch)
    assert "made of another model" in says
    assert model.facts.name in says


def test_runs_that_do_not_fit_are_refused(runner: Runner, model: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    wide = tiny.loaded("gpt2", n_embd=64)
    runner._shelf.put(wide)
    narrow_ids = text_ids(wide, tiny.TEXT)
    other = runner.run(RunRequest(wide.facts.name, narrow_ids, (ProbeCall("tokens"),))).info.run_id
    short = runner.run(request_for(model, text="short")).info.run_id
    says = refused(runner, model, {**RESID, "source": {"run": other}}, monkeypatch)
    assert "d_model 64" in says
    assert "32" in says
    far = {**RESID, "positions": [2, 6], "source": {"run": short}}
    assert "positions 0..5, there is no state at 6" in refused(runner, model, far, monkeypatch)
    whole = {**RESID, "positions": None, "source": {"run": short}}
    assert "no state at 106" in refused(runner, model, whole, monkeypatch)
