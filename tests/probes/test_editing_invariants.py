"""What edits must leave alone, on several architectures: bits, causality, attention rows, replays and resumed passes."""

import itertools
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor

from probes.model.capture import Capture
from probes.model.editing import delta_name
from probes.model.forward import forward
from probes.model.health import relative_error
from probes.model.replay import replay
from probes.model.resume import resume
from probes.progress import Progress
from tests import tiny
from tests.probes.captured import capture_of, edited, editing_of
from tests.probes.test_editing import CASES, PATTERNS, SITES, logits
from tests.probes.test_parity import hooks

N_TOKENS = len(tiny.TEXT) + 1


@pytest.fixture(scope="module", params=CASES)
def clean(request: pytest.FixtureRequest) -> Capture:
    name, changes = CASES[request.param]
    return edited(tiny.loaded(name, **changes))


@pytest.fixture(scope="module")
def llama() -> Capture:
    return edited(tiny.loaded("llama"))


def points(capture: Capture) -> Tensor:
    return torch.stack([capture.resid(point) for point in range(capture.model.facts.n_layers + 1)])


def loss(capture: Capture) -> float:
    targets = capture.token_ids[1:]
    return float(torch.nn.functional.cross_entropy(logits(capture)[:-1].double(), targets))


def test_no_edit_and_scale_by_one_change_no_bit(clean: Capture) -> None:
    assert torch.equal(points(clean), points(capture_of(clean.model)))  # a pass without any list of edits
    for site in SITES:
        same = edited(clean.model, {"site": site, "layer": 1, "op": "scale", "source": 1})
        assert torch.equal(points(same), points(clean)), site


def test_setting_what_stood_there_is_the_identity(clean: Capture) -> None:
    for site in SITES:
        lists = [{}, {"positions": [0]}, {"positions": [60, 3]}, {"dims": [5, 1], "positions": [7]}]
        lists += [{"heads": [1]}, {"heads": [1, 0], "dims": [2], "positions": [8, 9]}] if site == "head_z" else []
        for some in lists:
            edit = {"site": site, "layer": 1, "op": "set", "source": {"run": "clean"}, **some}
            assert torch.equal(points(edited(clean.model, edit, other=clean)), points(clean)), (site, some)
    ends = [{"site": "resid", "layer": p, "op": "set", "source": {"run": "c"}} for p in (0, clean.model.facts.n_layers)]
    assert torch.equal(points(edited(clean.model, *ends, other=clean)), points(clean))


def test_setting_from_another_run_puts_its_state_there(clean: Capture) -> None:
    ids = clean.token_ids.tolist()
    other = edited(clean.model, token_ids=[*ids[:2], *reversed(ids[2:])])
    whole = edited(clean.model, {"site": "resid", "layer": 1, "op": "set", "source": {"run": "o"}}, other=other)
    assert torch.equal(points(whole)[1:], points(other)[1:])
    some = {"positions": [5, 2], "dims": [3, 4], "op": "set", "source": {"run": "o"}}
    for site in SITES:
        capture = edited(clean.model, {"site": site, "layer": 1, **some}, other=other)
        name = f"{site}.1"
        expected, heads = clean.read(name).clone(), {"head_z": clean.model.facts.n_heads, "value": -1}.get(site, 1)
        heads = clean.model.facts.n_kv_heads if heads == -1 else heads
        view, theirs = (t.reshape(N_TOKENS, heads, -1) for t in (expected, other.read(name)))
        for position, dim in itertools.product((5, 2), (3, 4)):
            view[position, :, dim] = theirs[position, :, dim]
        torch.testing.assert_close(capture.read(name), expected, rtol=0, atol=0)


def test_a_replayed_block_equals_the_edited_pass(clean: Capture) -> None:
    edits: list[dict[str, Any]] = [
        {"site": "resid", "layer": 1, "positions": [0], "op": "scale", "source": 2.0},
        {"site": "value", "layer": 1, "op": "scale", "source": 0.5, "heads": [0]},
        {"site": "pattern", "layer": 1, "op": "mask", "keys": [0, 7]},
        {"site": "head_z", "layer": 1, "op": "set", "source": "zero", "heads": [2]},
        {"site": "attn_out", "layer": 1, "op": "add", "source": 0.5, "dims": [1]},
        {"site": "mlp_out", "layer": 1, "op": "scale", "source": 2.0, "positions": [3]},
        {"site": "resid", "layer": 2, "positions": [3], "op": "set", "source": 0.75},
    ]
    capture = edited(clean.model, *edits)
    again = capture.replay(1)
    for name in ("attn_out", "mlp_out", "head_z"):
        assert torch.equal(getattr(again, name), capture.read(f"{name}.1")), name
    repeats = clean.model.facts.n_heads // clean.model.facts.n_kv_heads
    values = capture.read("value.1").reshape(N_TOKENS, -1, clean.model.facts.d_head).transpose(0, 1)
    assert torch.equal(again.values, values.repeat_interleave(repeats, dim=0))
    assert again.pattern[:, :, 7].count_nonzero() == 4  # the one query that is 7 itself
    torch.testing.assert_close(again.pattern.double().sum(1), capture.attention.column_sum[1], rtol=1e-6, atol=1e-6)
    total = capture.resid(1) + again.attn_out + again.mlp_out + capture.moved("resid", 2)
    assert relative_error(total, capture.resid(2)) <= 1e-5
    assert capture.moved("resid", 3) is None


def test_resumed_versions_equal_whole_passes(clean: Capture) -> None:
    model, last = clean.model, clean.model.facts.n_layers
    before = hooks(model)
    later = [{"site": "head_z", "layer": 2, "op": "set", "source": "zero", "heads": [1]}]
    for point in (0, 1, last):
        versions = [
            {"site": "resid", "layer": point, "positions": [p], "op": "set", "source": "zero"} for p in (0, 2, 9)
        ]
        wholes = [edited(model, version, *later) for version in versions]
        batch = torch.stack([whole.resid(point) for whole in wholes])
        found = resume(model, clean.token_ids, point, batch, editing_of(model, later, N_TOKENS))
        for row, whole in zip(found, wholes, strict=True):
            assert relative_error(row, whole.resid(last)) <= 1e-5, point
    assert hooks(model) == before


def test_masked_rows_keep_themselves_and_sum_to_one(clean: Capture) -> None:
    capture = edited(clean.model, {"site": "pattern", "layer": 1, "op": "mask", "keys": [0, 5]})
    pattern, before = capture.replay(1).pattern, clean.replay(1).pattern
    torch.testing.assert_close(pattern.sum(dim=-1), torch.ones_like(pattern[..., 0]), rtol=0, atol=1e-6)
    assert torch.equal(pattern[:, 0, 0], before[:, 0, 0])  # position 0 has nothing but itself
    assert (pattern[:, 5, 5] > before[:, 5, 5]).all()
    assert not pattern[:, 6:, [0, 5]].any()
    leaking = edited(
        clean.model, {"site": "pattern", "layer": 1, "op": "mask", "keys": [0, 5], "renormalise": False}
    ).replay(1)
    kept = before.clone()
    kept[:, 1:, 0] = 0.0
    kept[:, 6:, 5] = 0.0
    torch.testing.assert_close(leaking.pattern, kept, rtol=1e-6, atol=1e-7)


def test_rows_before_a_masked_key_keep_every_bit(clean: Capture) -> None:
    capture = edited(clean.model, {"site": "pattern", "layer": 0, "op": "mask", "keys": [50]})
    assert torch.equal(points(capture)[:, :51], points(clean)[:, :51])
    assert not torch.equal(points(capture)[1, 51:], points(clean)[1, 51:])


def test_a_column_nobody_attends_to_changes_nothing(llama: Capture) -> None:
    model = tiny.loaded("llama")
    with torch.no_grad():  # attention so sharp that some keys get nothing
        model.hf.model.layers[1].self_attn.q_proj.weight.mul_(30.0)
    clean = edited(model)
    share = clean.replay(1).pattern.sum(dim=1)  # heads, keys
    head, key = divmod(int(share[:, :-1].argmin()), N_TOKENS - 1)
    others = clean.replay(1).pattern[head, :, key].clone()
    others[key] = 0.0
    assert others.max() < 1e-6
    mask = {"site": "pattern", "layer": 1, "op": "mask", "keys": [key], "heads": [head]}
    assert abs(loss(edited(model, mask)) - loss(clean)) < 1e-6
    seen = int(share[head, :-1].argmax())
    assert abs(loss(edited(model, {**mask, "keys": [seen]})) - loss(clean)) > 1e-6


@pytest.mark.parametrize("what", PATTERNS)
def test_entropy_of_an_edited_pattern_is_of_what_was_used(clean: Capture, what: str) -> None:
    capture = edited(clean.model, {"site": "pattern", "layer": 1, **PATTERNS[what]})
    pattern = capture.replay(1).pattern.double()
    expected = -torch.xlogy(pattern, pattern).sum(dim=-1)
    torch.testing.assert_close(capture.attention.row_entropy[1].double(), expected, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(expected.float(), clean.attention.row_entropy[1], atol=1e-3)


def test_the_lock_is_free_and_no_hook_is_left_after_an_error(clean: Capture) -> None:
    model, before = clean.model, hooks(clean.model)
    every = [{"site": site, "layer": 1, "op": "scale", "source": 2} for site in SITES]
    editing = editing_of(model, [{"site": "resid", "layer": 0, "op": "scale", "source": 2}, *every], N_TOKENS)
    object.__setattr__(editing.edits[-1], "table", torch.ones(1, 1, 31))  # as wrong as a bug could make it
    wanted = frozenset({"resid"}), frozenset({"column_sum"}), Progress()
    for broken in (
        lambda: forward(model, clean.token_ids, *wanted, editing),
        lambda: resume(model, clean.token_ids, 1, clean.resid(1)[None], editing),
        lambda: replay(model, clean.token_ids, 1, clean.resid(1), None, editing),
    ):
        with pytest.raises(RuntimeError, match="size of tensor"):
            broken()
        assert hooks(model) == before
        with ThreadPoolExecutor(1) as elsewhere:
            assert elsewhere.submit(model.lock.acquire, timeout=1).result()
            elsewhere.submit(model.lock.release).result()
    assert torch.equal(points(edited(model)), points(clean))


def test_by_how_much_an_edit_moved_is_what_the_next_block_reads(llama: Capture) -> None:
    edit = {"site": "resid", "layer": 2, "positions": [4], "dims": [7], "op": "add", "source": 2.5}
    moved = edited(llama.model, edit).read(delta_name("resid", 2))
    assert moved[4, 7] == pytest.approx(2.5, rel=1e-5)
    assert moved.count_nonzero() == 1
