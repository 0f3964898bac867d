"""A right-padded batch leaves of each prompt what a pass of its own leaves."""

from typing import get_args

import pytest
import torch

from probes.errors import NonFinite
from probes.model.forward import forward, forward_batch
from probes.model.loaded import LoadedModel
from probes.model.tokenise import text_ids
from probes.probe import Reduction, Site
from probes.progress import Progress
from tests import tiny

SITES = frozenset(get_args(Site))
REDUCTIONS = frozenset(get_args(Reduction))
TEXTS = (tiny.TEXT, "a", "Nobody planned the third change.", tiny.TEXT * 2, "The mill.", "The mill!")


@pytest.fixture(scope="module", params=tiny.ARCHITECTURES)
def model(request: pytest.FixtureRequest) -> LoadedModel:
    return tiny.loaded(request.param)


def ids_of(model: LoadedModel, text: str) -> torch.Tensor:
    return torch.tensor(text_ids(model, text))


def parity(left: torch.Tensor, right: torch.Tensor) -> float:
    """Per-row norms of the difference over those of the reference, the largest."""
    assert (left.shape, left.dtype) == (right.shape, right.dtype)
    norms = (left - right).double().norm(dim=-1) / right.double().norm(dim=-1).clamp_min(1e-9)
    return float(norms.max())


def test_every_tensor_of_every_row_is_that_of_a_single_pass(model: LoadedModel) -> None:
    prompts = [ids_of(model, text) for text in TEXTS]
    batch = forward_batch(model, prompts, SITES, REDUCTIONS, Progress())
    for ids, left in zip(prompts, batch, strict=True):
        alone = forward(model, ids, SITES, REDUCTIONS, Progress())
        assert isinstance(left, dict)
        assert left.keys() == alone.keys()
        worst = max(parity(left[name], alone[name]) for name in alone)
        assert worst <= 1e-5, (len(ids), worst)
        assert all(tensor.is_contiguous() for name, tensor in left.items() if name.startswith(("resid", "update")))


def test_padding_receives_and_gives_no_attention(model: LoadedModel) -> None:
    """Each real query hands out exactly 1: what a row's keys receive sums to its own length, whatever stands behind."""
    prompts = [ids_of(model, text) for text in TEXTS]
    for ids, left in zip(prompts, forward_batch(model, prompts, SITES, REDUCTIONS, Progress()), strict=True):
        assert isinstance(left, dict)
        received = left["attention.column_sum"].sum(dim=-1)
        assert torch.allclose(received, torch.full_like(received, len(ids)), rtol=1e-5)


def test_a_row_that_is_not_finite_spoils_no_other() -> None:
    model = tiny.loaded("llama")
    bad = torch.tensor([1, 70, 99, 80])
    with torch.no_grad():
        model.hf.get_input_embeddings().weight[99] = torch.nan
    good = torch.tensor([1, 70, 71, 72, 73, 74])
    first, second, third = forward_batch(model, [good, bad, good[:3]], SITES, REDUCTIONS, Progress())
    assert isinstance(second, NonFinite)
    assert "point 0, token 2" in str(second)
    alone = forward(model, good, SITES, REDUCTIONS, Progress())
    assert isinstance(first, dict)
    assert isinstance(third, dict)
    assert parity(first["resid.3"], alone["resid.3"]) <= 1e-5
    assert torch.isfinite(third["resid.3"]).all()
    with pytest.raises(NonFinite, match="token 2"):
        forward(model, bad, SITES, REDUCTIONS, Progress())


def test_no_hook_stays_after_a_batch(model: LoadedModel) -> None:
    def hooks() -> int:
        return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.hf.modules())

    before = hooks()
    forward_batch(model, [ids_of(model, "a"), ids_of(model, "ab")], SITES, REDUCTIONS, Progress())
    assert hooks() == before
