"""Patching: a logit difference between two tokens, point by point, and what restores it from another run's states."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import pandas as pd
import torch
from jaxtyping import Float32
from torch import Tensor

from probes.checks import require, whole
from probes.errors import BadRequest
from probes.model.resume import resume
from probes.probe import Context, ProbeSpec, Result

if TYPE_CHECKING:
    from probes.model.capture import Capture
    from probes.model.loaded import LoadedModel, ModelFacts

__all__ = ["LIMIT", "Params", "compatible", "cost", "run", "spec"]

LIMIT = 128
_BATCH_TOKENS = 512


@dataclass(frozen=True)
class Params:
    """``target`` and ``versus``: token ids whose logits are subtracted, at ``position`` ("last" or a position).

    ``source``: the id of a run (the clean prompt) whose states are patched in at each point and position, or "" for none.
    """

    __no_type_check__ = True  # values come from people: refused in a sentence, not by the type hook of the tests

    target: int = 0
    versus: int = 1
    position: Literal["last"] | int = "last"
    source: str = ""

    def __post_init__(self) -> None:
        for name in ("target", "versus"):
            require(whole(getattr(self, name)), f"patching.{name}", "a token id", getattr(self, name))
        require(self.target != self.versus, "patching.versus", "another token than the target", self.versus)
        known = self.position == "last" or whole(self.position)
        require(known, "patching.position", '"last" or a position', self.position)
        require(isinstance(self.source, str), "patching.source", "a run id, or empty", self.source)

    @property
    def runs(self) -> tuple[str, ...]:
        return (self.source,) if self.source else ()


spec = ProbeSpec(
    name="patching",
    version=1,
    question="Where does the answer of one prompt become that of another?",
    sites=frozenset({"resid"}),
    reductions=frozenset(),
    tables=("layer_metrics", "token_metrics"),
    masks=False,
)


def compatible(model: LoadedModel) -> str | None:
    return None


def cost(params: Params, facts: ModelFacts, n_tokens: int) -> int:
    """One row of logits a version, and the states of a batch of versions."""
    batch = max(_BATCH_TOKENS, n_tokens)
    return 4 * batch * max(facts.d_mlp, 4 * facts.d_model) * 4 + 3 * LIMIT * facts.d_vocab * 4


def run(capture: Capture, params: Params, context: Context) -> Result:
    """``layer_metrics``: ``logit_diff`` = logit(target) - logit(versus) of the raw lens at ``position``, by point.

    With a source, ``token_metrics``: ``patched_logit_diff``, the final difference after the residual stream at one point
    and position was set to what stood there in the source; layer and pos name the place. ``layer_metrics`` without a
    layer: ``logit_diff_source`` and ``logit_diff_own``, between which a patch restores. Raises BadRequest for token ids
    the model lacks, a source of another model, or more than 128 tokens to patch.
    """
    model, n_tokens = capture.model, capture.n_tokens
    position = n_tokens - 1 if params.position == "last" else int(params.position)
    for name in ("target", "versus"):
        if getattr(params, name) >= model.facts.d_vocab:
            raise BadRequest(f"patching.{name} must lie in 0..{model.facts.d_vocab - 1}, not {getattr(params, name)}.")
    points = range(model.facts.n_layers + 1)
    own = _difference(model, torch.stack([capture.resid(point)[position] for point in points]), params)
    layers = [(point, "logit_diff", value, 1, "ok") for point, value in zip(points, own.tolist(), strict=True)]
    tokens: list[tuple[int, int, str, float, int, str]] = []
    if params.source:
        source = context.other(params.source)
        _check_source(capture, source, params.source)
        ends = (("logit_diff_source", source.resid(points[-1])), ("logit_diff_own", capture.resid(points[-1])))
        for name, states in ends:
            layers.append((pd.NA, name, float(_difference(model, states[position][None], params)), 1, "ok"))
        for point in points:
            context.progress.step(point / len(points), f"patching point {point}")
            values = _patched(capture, source, point, position, params)
            tokens += [(point, pos, "patched_logit_diff", value, 1, "ok") for pos, value in enumerate(values.tolist())]
    columns = ["layer", "metric", "value", "n_used", "status"]
    return Result(
        {
            "layer_metrics": pd.DataFrame(layers, columns=columns).astype({"layer": "Int64"}),
            "token_metrics": pd.DataFrame(tokens, columns=["layer", "pos", *columns[1:]]).astype({"layer": "Int64"}),
        }
    )


def _check_source(capture: Capture, source: Capture, run: str) -> None:
    if source.n_tokens > LIMIT:
        raise BadRequest(f"patching takes at most {LIMIT} tokens, not {source.n_tokens}.")
    if source.model.facts.fingerprint != capture.model.facts.fingerprint:
        raise BadRequest(f"patching needs two runs of one model; {run[:8]} is of {source.model.facts.name}.")


def _patched(
    capture: Capture, source: Capture, point: int, position: int, params: Params
) -> Float32[Tensor, " tokens"]:
    """The difference at ``position`` after each position's state at ``point`` was replaced, one version a position.

    What stands behind ``position`` cannot reach it, and is left out: it changes nothing.
    """
    model, ours, theirs = capture.model, capture.resid(point), source.resid(point)
    reach = position + 1
    size = max(1, _BATCH_TOKENS // capture.n_tokens)
    values = []
    for start in range(0, reach, size):
        which = torch.arange(start, min(start + size, reach))
        versions = ours.repeat(len(which), 1, 1)
        versions[torch.arange(len(which)), which] = theirs[which]
        ends = resume(model, capture.token_ids, point, versions, capture.editing)
        values.append(_difference(model, ends[:, position], params))
    return torch.cat(values)


def _difference(model: LoadedModel, states: Float32[Tensor, "n d_model"], params: Params) -> Float32[Tensor, " n"]:
    logits = model.unembed(states)
    return (logits[:, params.target] - logits[:, params.versus]).float().cpu()
