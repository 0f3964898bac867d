"""The weights probe: singular values of the linear maps of a block."""

import math

import numpy as np
import pytest

from analysis.heavy_tail import WEIGHT_BAND, alpha_tail
from probes import weights
from probes.errors import BadRequest
from probes.model.loaded import LoadedModel
from probes.probe import Context
from probes.progress import Cancelled, Progress
from probes.weights import Params, run
from tests import tiny
from tests.probes.captured import CONTEXT, capture_of


@pytest.mark.parametrize("name", ["llama", "gpt2", "neox"])
def test_every_linear_map_of_every_block_has_its_singular_values(name: str) -> None:
    model = tiny.loaded(name)
    table = run(capture_of(model, token_ids=[1, 9, 12]), Params(), CONTEXT).tables["weight_spectra"]
    assert list(table.columns) == ["block", "matrix", "k", "singular_value"]
    for block in range(model.facts.n_layers):
        matrices = model.weight_matrices(block)
        assert set(table[table["block"] == block]["matrix"]) == set(matrices)
        for role, matrix in matrices.items():
            here = table[(table["block"] == block) & (table["matrix"] == role)]
            expected = np.linalg.svd(matrix.detach().double().numpy(), compute_uv=False)
            np.testing.assert_allclose(here["singular_value"], expected[: len(here)], rtol=1e-6)
            assert len(here) == min(matrix.shape)


def test_one_block_on_request() -> None:
    model = tiny.loaded("llama")
    table = run(capture_of(model, token_ids=[1, 9]), Params(blocks=(2,)), CONTEXT).tables["weight_spectra"]
    assert set(table["block"]) == {2}


def test_a_block_beyond_the_model_is_refused() -> None:
    capture = capture_of(tiny.loaded("llama"), token_ids=[1, 9])
    with pytest.raises(BadRequest, match=r"weights\.blocks must be from 0 to 2, not 3"):
        run(capture, Params(blocks=(3,)), CONTEXT)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -1, 0, 1e9, "9", None, (), (True,), (1.0,)])
def test_values_that_do_not_fit_are_refused(bad: object) -> None:
    with pytest.raises(ValueError, match=r"weights\.blocks must be"):
        Params(blocks=bad)


def test_cancelling_stops_between_matrices() -> None:
    context = Context("all", {}, Progress(cancelled=lambda: True))
    with pytest.raises(Cancelled):
        run(capture_of(tiny.loaded("llama"), token_ids=[1, 9]), Params(), context)


def test_the_cost_grows_with_the_blocks() -> None:
    facts = tiny.loaded("llama").facts
    assert weights.cost(Params(), facts, 10) > weights.cost(Params(blocks=(1,)), facts, 10) > 0


@pytest.mark.model
def test_a_real_block_has_the_tail_exponents_weightwatcher_finds(embedded: LoadedModel) -> None:
    from weightwatcher.WW_powerlaw import WWFit

    capture = capture_of(embedded, token_ids=[1, 504])
    table = run(capture, Params(blocks=(15,)), CONTEXT).tables["weight_spectra"]
    sizes = table.groupby("matrix")["k"].max()
    assert sizes.to_dict() == {
        "attn.q": 576, "attn.k": 192, "attn.v": 192, "attn.o": 576, "mlp.gate": 576, "mlp.in": 576, "mlp.out": 576,
    }  # fmt: skip
    inside = []
    for role, rows in table.groupby("matrix"):
        eigenvalues = rows["singular_value"].to_numpy() ** 2
        ours = alpha_tail(eigenvalues, min_tail=2)
        assert ours.alpha == pytest.approx(WWFit(eigenvalues).alpha, rel=1e-9), role
        inside.append(WEIGHT_BAND[0] <= alpha_tail(eigenvalues).alpha <= WEIGHT_BAND[1])
    assert any(inside)
