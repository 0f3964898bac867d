"""The probe pattern: whole rows, or the largest entry of squares."""

import jaxtyping
import pytest
import torch

from probes import pattern
from probes.errors import BadRequest
from probes.model.capture import Capture
from probes.probe import Context
from probes.progress import Cancelled, Progress
from tests import tiny
from tests.probes.captured import CONTEXT, capture_of


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parameters come from people: outside tests nothing checks their types before they do."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


@pytest.fixture(scope="module")
def capture() -> Capture:
    return capture_of(tiny.loaded("llama"))


def test_rows_are_the_attention_of_the_block(capture: Capture) -> None:
    result = pattern.run(capture, pattern.Params(block=1), CONTEXT)
    found = result.tensors["pattern"]
    assert found.shape == (4, capture.n_tokens, capture.n_tokens)
    torch.testing.assert_close(found.sum(-1), torch.ones(4, capture.n_tokens))
    sums = capture.attention.column_sum[1].float()
    torch.testing.assert_close(found.sum(1), sums, rtol=1e-5, atol=1e-5)
    assert not found.triu(1).any()
    assert result.notes == ()
    assert not result.tables


@pytest.mark.parametrize("chunk_bytes", [1, 20_000, 1 << 30])
def test_long_prompts_are_pooled_and_say_so(
    capture: Capture, chunk_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = pattern.run(capture, pattern.Params(), CONTEXT).tensors["pattern"]
    monkeypatch.setattr(pattern, "LIMIT", 40)
    monkeypatch.setattr(pattern, "_CHUNK_BYTES", chunk_bytes)
    step = pattern.pool_step(capture.n_tokens)
    assert step == 3
    result = pattern.run(capture, pattern.Params(), CONTEXT)
    pooled = result.tensors["pattern"]
    side = -(-capture.n_tokens // step)
    assert pooled.shape == (4, side, side)
    for row in (0, 7, side - 1):
        for column in (0, 3, row):
            square = whole[:, row * step : (row + 1) * step, column * step : (column + 1) * step]
            assert torch.equal(pooled[:, row, column], square.amax(dim=(1, 2)))
    assert result.notes == ("Attention of block 0 is shown in squares of 3 x 3 tokens by their largest entry.",)


@pytest.mark.parametrize("n_tokens", [1, 1024, 1025, 2048, 2049, 8192])
def test_a_stored_pattern_stays_below_the_limit(n_tokens: int) -> None:
    step = pattern.pool_step(n_tokens)
    assert -(-n_tokens // step) <= pattern.LIMIT
    assert (step == 1) == (n_tokens <= pattern.LIMIT)


def test_the_cost_of_long_prompts_is_bounded(capture: Capture) -> None:
    facts = capture.model.facts
    assert pattern.cost(pattern.Params(), facts, 8192) < 2 * (256 << 20) + facts.n_heads * 1024 * 1024 * 4 + 1


def test_a_block_that_does_not_exist(capture: Capture) -> None:
    with pytest.raises(BadRequest, match="from 0 to 2, not 3"):
        pattern.run(capture, pattern.Params(block=3), CONTEXT)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("block", [-1, True, "1", 1.0, float("nan"), None])
def test_parameters_out_of_range(block: object) -> None:
    with pytest.raises(ValueError, match=r"pattern\.block must be a whole number"):
        pattern.Params(block=block)  # type: ignore[arg-type]


def test_can_be_cancelled(capture: Capture) -> None:
    with pytest.raises(Cancelled):
        pattern.run(capture, pattern.Params(), Context("all", {}, Progress(cancelled=lambda: True)))
