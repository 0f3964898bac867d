"""Attribution on tiny random models: parts sum to the model's own logit, sources to their head."""

import itertools
import math

import numpy as np
import pandas as pd
import pytest
import torch

from probes.attribution import Params, run
from probes.errors import BadRequest
from probes.model.capture import Capture
from probes.probe import Result
from tests import tiny
from tests.probes.captured import CONTEXT, capture_of


@pytest.fixture(scope="module", params=tiny.ARCHITECTURES)
def capture(request: pytest.FixtureRequest) -> Capture:
    return capture_of(tiny.loaded(request.param))


@pytest.fixture(scope="module")
def llama() -> Capture:
    return capture_of(tiny.loaded("llama"))


def output(capture: Capture, position: int) -> torch.Tensor:
    """The logits of the plain model, with any soft-cap undone."""
    model = capture.model
    with torch.no_grad():
        logits = model.hf(capture.token_ids[None], use_cache=False).logits[0, position].double()
    cap = model.facts.softcap
    return logits if cap is None else cap * torch.atanh(logits / cap)


def summed(result: Result) -> float:
    frame = result.tables["components"]
    return float(frame[frame["source_pos"].isna()]["value"].sum())


def metric(result: Result, name: str) -> float:
    frame = result.tables["token_metrics"]
    return float(frame[frame["metric"] == name]["value"].iloc[0])


def test_parts_sum_to_the_logit(capture: Capture) -> None:
    for position in (capture.n_tokens - 1, 9):
        logits = output(capture, position)
        result = run(capture, Params(position=position, target=70, versus=None), CONTEXT)
        assert summed(result) == pytest.approx(float(logits[70]), rel=1e-4, abs=1e-4 * float(logits.abs().max()))
        assert metric(result, "dla_error") < 1e-4


def test_default_is_the_best_token_against_the_second(capture: Capture) -> None:
    logits = output(capture, capture.n_tokens - 1)
    first, second = logits.topk(2).indices.tolist()
    result = run(capture, Params(), CONTEXT)
    assert set(result.tables["components"]["target"]) == {f"{first}-{second}"}
    difference = float(logits[first] - logits[second])
    assert summed(result) == pytest.approx(difference, rel=1e-4, abs=1e-4 * float(logits.abs().max()))
    assert metric(result, "dla_total") == pytest.approx(difference, rel=1e-4, abs=1e-5 * float(logits.abs().max()))


def test_sources_sum_to_their_head(capture: Capture) -> None:
    result = run(capture, Params(position=20, strongest=3, also=(1, 2)), CONTEXT)
    frame = result.tables["components"]
    split = frame[frame["source_pos"].notna()]
    whole = frame[(frame["component"] == "head") & frame["source_pos"].isna()].set_index(["layer", "head"])["value"]
    strongest = whole.abs().nlargest(3).index
    assert set(zip(split["layer"], split["head"], strict=True)) == {*strongest, (1, 2)}
    scale = whole.abs().max()
    for place, rows in split.groupby(["layer", "head"]):
        assert rows["value"].sum() == pytest.approx(whole[place], rel=1e-4, abs=1e-5 * scale)
        assert sorted(rows["source_pos"]) == list(range(21))


def test_a_head_is_what_it_writes_measured_along_the_frozen_norm(llama: Capture) -> None:
    model, position = llama.model, 9
    frame = run(llama, Params(position=position, target=70, versus=None), CONTEXT).tables["components"]
    hidden = llama.resid(3)[position].double()
    scale = (hidden.square().mean() + model.norm_eps).rsqrt()
    attn = model.hf.model.layers[1].self_attn
    wrote = llama.head_z(1)[position, 8:16].double() @ attn.o_proj.weight.detach()[:, 8:16].double().T
    expected = float((wrote * scale * model.norm_weight) @ model.unembed_matrix()[70].double())
    row = frame[
        (frame["component"] == "head") & (frame["layer"] == 1) & (frame["head"] == 1) & frame["source_pos"].isna()
    ]
    assert float(row["value"].iloc[0]) == pytest.approx(expected, rel=1e-6)


def test_against_another_token_values_are_differences(llama: Capture) -> None:
    def values(**given: int | None) -> np.ndarray:
        frame: pd.DataFrame = run(llama, Params(position=12, strongest=0, **given), CONTEXT).tables["components"]
        return frame["value"].to_numpy()

    difference = values(target=70, versus=80)
    np.testing.assert_allclose(difference, values(target=70, versus=None) - values(target=80, versus=None), atol=1e-6)


def test_parts_that_do_not_sum_are_not_shown(llama: Capture) -> None:
    read = llama.read
    altered = Capture(
        llama.model,
        llama.token_ids,
        llama.tokens,
        llama.special,
        lambda name: read(name) * (1.5 if "mlp" in name else 1),
    )
    result = run(altered, Params(), CONTEXT)
    assert not result.tables
    assert "its parts miss the logit" in result.notes[0]


def test_a_norm_that_cannot_be_frozen_is_said(monkeypatch: pytest.MonkeyPatch, llama: Capture) -> None:
    monkeypatch.setitem(vars(llama.model), "norm_weight", torch.linspace(1, 2, 32, dtype=torch.float64))
    result = run(llama, Params(), CONTEXT)
    assert "not a rms norm" in result.notes[0]


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        *itertools.product(("position", "target", "versus", "strongest"), (-1, "9", math.nan, math.inf, True, 1.5, ())),
        *[("position", None), ("target", None), ("strongest", 65), ("also", (1,)), ("also", (0, -1)), ("also", 3)],
    ],
)
def test_parameters_that_mean_nothing_are_refused_by_name(name: str, bad: object) -> None:
    with pytest.raises(ValueError, match=rf"^attribution\.{name} must be"):
        Params(**{name: bad})


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ({"position": 10**9}, "position"),
        ({"target": 260}, "target"),
        ({"versus": 260}, "versus"),
        ({"also": (3, 0)}, "also"),
        ({"also": (0, 4)}, "also"),
    ],
)
def test_what_does_not_exist_in_this_run_is_refused(llama: Capture, given: dict[str, object], name: str) -> None:
    with pytest.raises(BadRequest, match=rf"attribution\.{name} must be 0 to \d+"):
        run(llama, Params(**given), CONTEXT)


def test_a_token_against_itself_is_refused(llama: Capture) -> None:
    with pytest.raises(ValueError, match="another token"):
        Params(target=5, versus=5)
    best = int(output(llama, llama.n_tokens - 1).argmax())
    with pytest.raises(BadRequest, match="another token"):
        run(llama, Params(versus=best), CONTEXT)
