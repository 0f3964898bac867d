"""Tests of "does it matter?": a target, the edits that take it away, and random controls of the same kind.

Everything follows from the clean run, so a test asked again is the same runs and takes no pass (methods 2.3, 3.2).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from probes.checks import whole
from probes.errors import BadRequest
from probes.model.bank import BUILTIN, bank_id
from probes.model.edits import Edit, Mean, Source
from probes.model.loaded import ModelFacts

__all__ = ["DRAWS", "HOW", "KINDS", "Background", "How", "Kind", "Target", "Trial", "trials"]

Kind = Literal["entry", "sink", "key", "head", "block", "dimension"]
How = Literal["zero", "mean"]
KINDS: dict[str, tuple[str, ...]] = {
    "entry": ("layer", "position", "dim"),
    "sink": ("layer", "position"),
    "key": ("layer", "position"),
    "head": ("layer", "head"),
    "block": ("layer",),
    "dimension": ("layer", "dim"),
}
HOW = ("zero", "mean")
DRAWS = 5
_SEED = 0
_MIN_VISIBLE = 8


@dataclass(frozen=True, slots=True)
class Target:
    """What is taken away: one residual entry (point, position, dimension), a key as a sink (from a block on), a key in one
    block (or in one head of it), a head, a block, or a dimension at all positions. Raises BadRequest where a part of the
    place is missing.

    ``layer`` is a point for entries and dimensions, and a block for heads, blocks, keys and sinks (the first one changed).
    """

    __no_type_check__ = True  # values come from people: refused in a sentence, not by the type hook of the tests

    kind: Kind
    layer: int
    position: int | None = None
    head: int | None = None
    dim: int | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise BadRequest(f"A test is of one of {', '.join(KINDS)}, not {str(self.kind)[:80]!r}.")
        for name in KINDS[self.kind]:
            if not whole(getattr(self, name)):
                raise BadRequest(
                    f"A test of one {self.kind} needs {' and '.join(KINDS[self.kind])}; {name} is missing."
                )


@dataclass(frozen=True, slots=True)
class Trial:
    """One changed pass of a test. ``role``: the target itself, a variant of it, or a control."""

    label: str
    role: Literal["target", "variant", "control"]
    edits: tuple[Edit, ...]


@dataclass(frozen=True, slots=True)
class Background:
    """What the clean run knows that controls must avoid: massive (position, dimension) pairs, keys that are sinks, and
    the largest entry of the target's point and position that is not massive, if it is known."""

    massive: frozenset[tuple[int, int]] = frozenset()
    sinks: frozenset[int] = frozenset()
    runner_up: int | None = None


def trials(target: Target, how: str, facts: ModelFacts, n_tokens: int, known: Background) -> tuple[Trial, ...]:
    """The passes of a test, target first. ``how``: to zero, or to the mean of the built-in bank.

    Controls are drawn with one fixed seed: up to 5 of each kind, fewer where the model or the text has no more.
    """
    if how not in HOW:
        raise BadRequest(f"A test sets to zero or to the mean, not to {str(how)[:80]!r}.")
    draw = random.Random(f"{_SEED} {target} {how}")
    source: Source = "zero" if how == "zero" else Mean(bank_id(BUILTIN, facts))
    make: Callable[..., list[Trial]] = {
        "entry": _entry,
        "sink": _sink,
        "key": _sink,
        "head": _head,
        "block": _block,
        "dimension": _dimension,
    }[target.kind]
    return tuple(make(target, source, facts, n_tokens, known, draw))


def _entry(
    target: Target, source: Source, facts: ModelFacts, n_tokens: int, known: Background, draw: random.Random
) -> list[Trial]:
    point, position, dim = target.layer, int(target.position or 0), int(target.dim or 0)

    def edit(at: int, d: int) -> tuple[Edit, ...]:
        return (Edit("resid", point, "set", source, positions=(at,), dims=(d,)),)

    avoid = {d for at, d in known.massive if at == position} | {dim}
    here = _drawn(draw, range(facts.d_model), avoid, 3)
    away = _drawn(draw, range(n_tokens), {at for at, d in known.massive if d == dim} | {position}, 3)
    here = [d for d in here if d != known.runner_up]  # that one is a control already
    found = [Trial(f"position {position}, dimension {dim}", "target", edit(position, dim))]
    if known.runner_up is not None and known.runner_up != dim:
        label = f"largest not massive here, dimension {known.runner_up}"
        found.append(Trial(label, "control", edit(position, known.runner_up)))
    found += [Trial(f"same position, dimension {d}", "control", edit(position, d)) for d in here]
    found += [Trial(f"same dimension, position {at}", "control", edit(at, dim)) for at in away]
    return found


def _sink(
    target: Target, source: Source, facts: ModelFacts, n_tokens: int, known: Background, draw: random.Random
) -> list[Trial]:
    """A sink from the target's block to the last: in every block, position 0 without its key would just be a text without
    it. A key in its one block, in all heads or in one."""
    key, alone = int(target.position or 0), target.kind == "key"
    blocks = range(target.layer, target.layer + 1 if alone else facts.n_layers)
    heads = None if target.head is None else (target.head,)
    place = (
        "" if not alone else f" in block {target.layer}" if heads is None else f" in head {target.layer}.{target.head}"
    )

    def masked(k: int, renormalise: bool = True) -> tuple[Edit, ...]:
        return tuple(Edit("pattern", b, "mask", heads=heads, keys=(k,), renormalise=renormalise) for b in blocks)

    def valued(k: int) -> tuple[Edit, ...]:
        return tuple(Edit("value", b, "set", source, positions=(k,)) for b in blocks)

    others = _drawn(draw, range(max(1, n_tokens - _MIN_VISIBLE + 1)), known.sinks | {key}, DRAWS)
    if source != "zero":
        found = [Trial(f"key {key}{place}: its value set to the mean", "target", valued(key))]
        return found + [Trial(f"key {k}{place}: its value set to the mean", "control", valued(k)) for k in others]
    found = [
        Trial(f"key {key} masked{place}, rescaled", "target", masked(key)),
        Trial(f"key {key} masked{place}, not rescaled", "variant", masked(key, False)),
    ]
    if heads is None:  # a value belongs to all query heads that share it
        found.append(Trial(f"key {key}: its value set to zero{place}", "variant", valued(key)))
    return found + [Trial(f"key {k} masked{place}, rescaled", "control", masked(k)) for k in others]


def _head(
    target: Target, source: Source, facts: ModelFacts, n_tokens: int, known: Background, draw: random.Random
) -> list[Trial]:
    def edit(block: int, head: int) -> tuple[Edit, ...]:
        return (Edit("head_z", block, "set", source, heads=(head,)),)

    own = (target.layer, int(target.head or 0))
    same = [(target.layer, h) for h in _drawn(draw, range(facts.n_heads), {own[1]}, 3)]
    every = [(b, h) for b in range(facts.n_layers) if b != target.layer for h in range(facts.n_heads)]
    other = _drawn(draw, every, set(), 3)
    found = [Trial(f"head {own[0]}.{own[1]}", "target", edit(*own))]
    return found + [Trial(f"head {b}.{h}", "control", edit(b, h)) for b, h in same + other]


def _block(
    target: Target, source: Source, facts: ModelFacts, n_tokens: int, known: Background, draw: random.Random
) -> list[Trial]:
    def attention(block: int) -> tuple[Edit, ...]:
        return (Edit("attn_out", block, "set", source),)

    def mlp(block: int) -> tuple[Edit, ...]:
        return (Edit("mlp_out", block, "set", source),)

    own = target.layer
    others = _drawn(draw, range(facts.n_layers), {own}, DRAWS)
    return [
        Trial(f"block {own}", "target", attention(own) + mlp(own)),
        Trial(f"attention of block {own}", "variant", attention(own)),
        Trial(f"MLP of block {own}", "variant", mlp(own)),
        *(Trial(f"block {b}", "control", attention(b) + mlp(b)) for b in others),
    ]


def _dimension(
    target: Target, source: Source, facts: ModelFacts, n_tokens: int, known: Background, draw: random.Random
) -> list[Trial]:
    def edit(d: int, positions: tuple[int, ...] | None = None) -> tuple[Edit, ...]:
        return (Edit("resid", target.layer, "set", source, positions=positions, dims=(d,)),)

    dim = int(target.dim or 0)
    found = [Trial(f"dimension {dim}, all positions", "target", edit(dim))]
    if n_tokens > 1:
        found.append(Trial(f"dimension {dim} without position 0", "variant", edit(dim, tuple(range(1, n_tokens)))))
    others = _drawn(draw, range(facts.d_model), {d for _, d in known.massive} | {dim}, DRAWS)
    return found + [Trial(f"dimension {d}, all positions", "control", edit(d)) for d in others]


def _drawn(draw: random.Random, among: Sequence[Any], without: Collection[Any], count: int) -> list[Any]:
    """Up to ``count`` different ones, in ascending order."""
    left = [one for one in among if one not in without]
    return sorted(draw.sample(left, min(count, len(left))))
