"""Tokens of many stored runs as one matrix: what probes read that are fitted on other texts than the shown one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float32
from torch import Tensor

from probes.checks import require
from probes.errors import BadRequest
from probes.probe import Context

if TYPE_CHECKING:
    from probes.model.capture import Capture

__all__ = ["TYPICAL_TOKENS", "check_corpus", "other_texts", "stacked"]

TYPICAL_TOKENS = 256  # of a text of which nothing is known yet


def check_corpus(corpus: Any, name: str) -> None:
    """Raise ValueError unless ``corpus`` is a tuple of different run ids; ``name`` is ``probe.parameter``."""
    known = isinstance(corpus, tuple) and len(corpus) > 0 and all(isinstance(one, str) for one in corpus)
    require(known and len(set(corpus)) == len(corpus), name, "ids of different runs", corpus)


def other_texts(probe: str, corpus: Sequence[str], shown: Capture, context: Context) -> list[Capture]:
    """The captures of a corpus but those of the shown text itself, which is held out.

    Raises BadRequest for runs of another model or dtype, edited ones, and a corpus of the shown text alone.
    """
    others = []
    for run in corpus:
        other = context.other(run)
        theirs, ours = other.model.facts, shown.model.facts
        if theirs.fingerprint != ours.fingerprint or theirs.dtype != ours.dtype or other.edits:
            raise BadRequest(f"{probe} needs a corpus of runs of {ours.name} in {ours.dtype} without edits.")
        if not torch.equal(other.token_ids, shown.token_ids):
            others.append(other)
    if not others:
        raise BadRequest(f"{probe} needs other texts than the shown one.")
    return others


def stacked(corpus: Sequence[Capture], point: int) -> Float32[Tensor, "n d_model"]:
    """The states of all tokens of all texts at a point, in order."""
    return torch.cat([one.resid(point) for one in corpus])
