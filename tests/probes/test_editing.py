"""Edited passes against TransformerBridge's own hooks, on several architectures.

The bridge has a hook for every site of an edit in each of these architectures, value vectors of joint query, key and
value projections among them; what is done there is written out below by loops, without the code under test.
"""

import itertools
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from probes.model.capture import Capture
from probes.model.health import relative_error
from tests import tiny
from tests.probes.captured import edited

CASES = {
    "llama": ("llama", {}),  # grouped: 4 heads read 2 value heads
    "ungrouped": ("llama", {"num_key_value_heads": 4}),
    "gpt2": ("gpt2", {}),
    "neox": ("neox", {}),
    "gemma2": ("gemma2", {}),  # post-norms, sliding window of 16
}
SITES = ("resid", "attn_out", "mlp_out", "head_z", "value")
BRIDGE = {
    "attn_out": "blocks.{}.hook_attn_out",
    "mlp_out": "blocks.{}.hook_mlp_out",
    "head_z": "blocks.{}.attn.hook_z",
    "value": "blocks.{}.attn.hook_v",
    "pattern": "blocks.{}.attn.hook_pattern",
}


@pytest.fixture(scope="module", params=CASES)
def clean(request: pytest.FixtureRequest) -> Capture:
    name, changes = CASES[request.param]
    return edited(tiny.loaded(name, **changes))


def logits(capture: Capture) -> Tensor:
    return capture.model.unembed(capture.resid(capture.model.facts.n_layers))


def bridge_logits(clean: Capture, *edits: dict[str, Any]) -> Tensor:
    """The bridge's logits, each edit done by hand in a hook of its own."""
    n_layers = clean.model.facts.n_layers
    named: list[tuple[str, Callable[..., Tensor]]] = []
    for edit in edits:
        name = BRIDGE.get(edit["site"], "blocks.{}.hook_in").format(edit["layer"])
        if edit["site"] == "resid" and edit["layer"] == n_layers:
            name = f"blocks.{n_layers - 1}.hook_out"
        by_hand = pattern_by_hand if edit["site"] == "pattern" else state_by_hand
        named.append((name, lambda state, hook, edit=edit, by_hand=by_hand: by_hand(state.clone(), edit)))
    with torch.no_grad():
        return clean.model.bridge.run_with_hooks(clean.token_ids[None], fwd_hooks=named)[0]


def state_by_hand(state: Tensor, edit: dict[str, Any]) -> Tensor:
    view = state[0] if state.dim() == 4 else state[0][:, None]
    n_tokens, n_heads, width = view.shape
    source = edit["source"]
    for position, head in itertools.product(edit.get("positions", range(n_tokens)), edit.get("heads", range(n_heads))):
        for slot, dim in enumerate(edit.get("dims", range(width))):
            number = source["vector"][slot] if isinstance(source, dict) else 0.0 if source == "zero" else source
            old = float(view[position, head, dim])
            view[position, head, dim] = {"set": number, "add": old + number, "scale": old * number}[edit["op"]]
    return state


def pattern_by_hand(pattern: Tensor, edit: dict[str, Any]) -> Tensor:
    """[1, heads, queries, keys]: keys are taken away but for a query's own; uniform shares among what it sees of them."""
    n_heads, n_queries = pattern.shape[1:3]
    for head, query in itertools.product(edit.get("heads", range(n_heads)), edit.get("queries", range(n_queries))):
        row = pattern[0, head, query]
        keys = edit.get("keys", range(n_queries))
        if edit["op"] == "mask":
            for key in keys:
                row[key] = row[key] if key == query else 0.0
            row /= row.sum() if edit.get("renormalise", True) else 1.0
        elif seen := [key for key in keys if row[key] > 0]:
            row[:] = 0.0
            row[seen] = 1.0 / len(seen)
    return pattern


@cache
def numbers(n: int) -> list[float]:
    return [round(x, 3) for x in torch.randn(n, generator=torch.Generator().manual_seed(n)).mul(2).tolist()]


def changes(site: str, width: int) -> dict[str, dict[str, Any]]:
    """What the brief of an edit can say at this site, by name."""
    head = {"heads": [1]} if site in ("head_z", "value") else {}  # a norm after attention undoes a scale of all
    some = {"positions": [3, 0, 40], "dims": [6, 2, 1], **head}
    return {
        "zero everywhere": {"op": "set", "source": "zero"},
        "zero at one position": {"op": "set", "source": "zero", "positions": [5]},
        "zero in one dim": {"op": "set", "source": "zero", "dims": [3]},
        "a number in a few": {"op": "set", "source": 3.5, **some},
        "a vector in a few": {"op": "set", "source": {"vector": [1.5, -2.0, 0.25]}, **some},
        "a vector added": {"op": "add", "source": {"vector": numbers(width)}, "positions": [0, 7]},
        "a number added": {"op": "add", "source": -1.25, "dims": [0]},
        "scaled": {"op": "scale", "source": -0.5, **some},
        "scaled everywhere": {"op": "scale", "source": 1.5, **head},
    }


PATTERNS: dict[str, dict[str, Any]] = {
    "a key masked": {"op": "mask", "keys": [0]},
    "a key masked, leaking": {"op": "mask", "keys": [0], "renormalise": False},
    "keys, heads, queries": {"op": "mask", "keys": [0, 3, 30], "heads": [1, 3], "queries": [3, 4, 31, 60]},
    "one head, leaking": {"op": "mask", "keys": [20, 21], "heads": [2], "renormalise": False},
    "uniform": {"op": "set", "source": "uniform"},
    "uniform over keys": {"op": "set", "source": "uniform", "keys": [2, 9, 50], "heads": [0], "queries": [9, 51, 60]},
}


@pytest.mark.parametrize("site", SITES)
def test_an_edit_equals_the_bridges_hook(clean: Capture, site: str) -> None:
    facts = clean.model.facts
    width = facts.d_head if site in ("head_z", "value") else facts.d_model
    for what, change in changes(site, width).items():
        edit = {"site": site, "layer": 1, **change}
        found, expected = logits(edited(clean.model, edit)), bridge_logits(clean, edit)
        assert relative_error(found, expected) <= 1e-4, what
        assert relative_error(found, logits(clean)) > 1e-3, f"{what} must change something"


@pytest.mark.parametrize("what", PATTERNS)
def test_an_edited_pattern_equals_the_bridges_hook(clean: Capture, what: str) -> None:
    for layer in (0, 1):  # with gemma2, block 0 sees 16 keys and block 1 all
        edit = {"site": "pattern", "layer": layer, **PATTERNS[what]}
        capture = edited(clean.model, edit)
        assert relative_error(logits(capture), bridge_logits(clean, edit)) <= 1e-4
        assert relative_error(logits(capture), logits(clean)) > 1e-3


def test_edits_at_both_ends_and_several_in_order_equal_the_bridge(clean: Capture) -> None:
    last = clean.model.facts.n_layers
    first_and_last = [
        {"site": "resid", "layer": 0, "positions": [4], "op": "scale", "source": 2.0},
        {"site": "resid", "layer": last, "positions": [6], "op": "add", "source": {"vector": numbers(32)}},
    ]
    twice = [
        {"site": "resid", "layer": 1, "positions": [2], "dims": [3], "op": "add", "source": 1.0},
        {"site": "resid", "layer": 1, "positions": [2], "dims": [3], "op": "scale", "source": 3.0},
    ]
    mixed = [
        {"site": "pattern", "layer": 0, "op": "mask", "keys": [1]},
        {"site": "pattern", "layer": 0, "op": "mask", "keys": [2], "heads": [0], "renormalise": False},
        {"site": "value", "layer": 0, "op": "scale", "source": 0.5, "heads": [1]},
        {"site": "head_z", "layer": 2, "op": "set", "source": "zero", "heads": [3]},
        {"site": "mlp_out", "layer": 2, "op": "set", "source": "zero"},
    ]
    for edits in (first_and_last, twice, mixed):
        assert relative_error(logits(edited(clean.model, *edits)), bridge_logits(clean, *edits)) <= 1e-4
    backwards = edited(clean.model, *reversed(twice))
    assert relative_error(logits(backwards), logits(edited(clean.model, *twice))) > 1e-3


def test_patterns_of_a_long_prompt_are_edited_in_every_query_block() -> None:
    model = tiny.loaded("gemma2", max_position_embeddings=1024, sliding_window=300)
    ids = torch.randint(4, tiny.VOCAB, (600,), generator=torch.Generator().manual_seed(1)).tolist()
    clean = edited(model, token_ids=ids)
    for layer in (0, 1):
        for change in (
            {"op": "mask", "keys": [0, 255, 256, 310], "queries": [*range(200, 600, 7)]},
            {"op": "mask", "keys": [*range(500)], "renormalise": False, "heads": [2]},
            {"op": "set", "source": "uniform", "keys": [3, 290, 400], "queries": [2, 299, 303, 520, 590]},
        ):
            edit = {"site": "pattern", "layer": layer, **change}
            found = logits(edited(model, edit, token_ids=ids))
            assert relative_error(found, bridge_logits(clean, edit)) <= 1e-4
            assert relative_error(found, logits(clean)) > 1e-3
