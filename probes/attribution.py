"""Direct logit attribution: which embedding, head and MLP wrote the answer at one position (docs/methods/lens.md)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import pandas as pd
import torch
from jaxtyping import Float, Float32, Float64
from torch import Tensor

from analysis.attribution import (
    NotAdditive,
    contribution,
    freeze_norm,
    head_contributions,
    source_contributions,
    sum_error,
)
from probes.checks import require, whole
from probes.errors import BadRequest
from probes.probe import Context, ProbeSpec, Result

if TYPE_CHECKING:
    from probes.model.capture import Capture
    from probes.model.loaded import LoadedModel, ModelFacts

__all__ = ["Params", "compatible", "cost", "run", "spec"]

_TOLERANCE = {"float32": 1e-4, "float16": 2e-2, "bfloat16": 5e-2}  # of the sum of parts, by what the model computes in
_COLUMNS = ["pos", "target", "layer", "component", "head", "source_pos", "value"]

Row = tuple[int | None, str, int | None, int | None, float]


@dataclass(frozen=True)
class Params:
    """``position``: "last" or a position. ``target``: "top1" or a token id. ``versus``: what is subtracted, "top2" (the
    best other token), a token id, or None for the plain logit. ``strongest``: how many heads are split by source token;
    ``also``: one more (block, head) to split.
    """

    __no_type_check__ = (
        True  # values come from people: they are refused in a sentence, not by the type hook of the tests
    )

    position: Literal["last"] | int = "last"
    target: Literal["top1"] | int = "top1"
    versus: Literal["top2"] | int | None = "top2"
    strongest: int = 6
    also: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        require(
            self.position == "last" or whole(self.position),
            "attribution.position",
            '"last" or a position',
            self.position,
        )
        require(self.target == "top1" or whole(self.target), "attribution.target", '"top1" or a token id', self.target)
        compared = self.versus is None or self.versus == "top2" or whole(self.versus)
        require(compared, "attribution.versus", '"top2", a token id or null', self.versus)
        require(whole(self.strongest) and self.strongest <= 64, "attribution.strongest", "0 to 64", self.strongest)
        pair = isinstance(self.also, tuple) and len(self.also) == 2 and all(whole(part) for part in self.also)
        require(self.also is None or pair, "attribution.also", "a block and a head, or null", self.also)
        if self.target == self.versus:
            raise ValueError(f"attribution.versus must be another token than the target, not {self.versus}")


spec = ProbeSpec(
    name="attribution",
    version=1,
    question="Which heads, MLPs and source tokens wrote the answer at this position?",
    sites=frozenset({"resid", "head_z", "mlp_out"}),
    reductions=frozenset(),
    tables=("components", "token_metrics"),
)


def compatible(model: LoadedModel) -> str | None:
    return None


def cost(params: Params, facts: ModelFacts, n_tokens: int) -> int:
    """One row of logits, W_O of a block in float64, and a block run again for each head that is split."""
    projection = facts.n_heads * facts.d_head * facts.d_model * 8
    replayed = n_tokens * (4 * facts.d_model + 2 * facts.d_mlp + 3 * facts.n_heads * facts.d_head) * 4
    return 3 * facts.d_vocab * 4 + projection + replayed


def run(capture: Capture, params: Params, context: Context) -> Result:
    """``components``: ``embed``, ``head``, ``attn_bias``, ``mlp``, ``norm_bias`` and ``edit`` (what edits of the residual
    stream or of attention outputs moved) sum to the logit before any soft-cap, or to the difference of two; rows with
    ``source_pos`` split one head again and are not part of that sum. ``target`` is ``a`` or ``a-b`` in token ids.

    Token metrics without a layer: ``dla_total``, the model's own number, and ``dla_error``, how far the sum is from it
    relative to the largest part. Raises BadRequest for a position, token or head that does not exist. A layout whose
    parts do not sum gets no components, and a note.
    """
    facts = capture.model.facts
    position = capture.n_tokens - 1 if params.position == "last" else int(params.position)
    _within("position", position, capture.n_tokens - 1)
    if params.also is not None:
        _within("also", params.also[0], facts.n_layers - 1)
        _within("also", params.also[1], facts.n_heads - 1)
    try:
        answer = _Answer(capture, position, params)
        parts = answer.parts(context)
        error = sum_error(torch.tensor([row[-1] for row in parts], dtype=torch.float64), answer.total)
        if error > _TOLERANCE[facts.dtype]:
            raise NotAdditive(f"its parts miss the logit by {error:.1e} of the largest part")
    except NotAdditive as reason:
        return Result({}, notes=(f"Attribution does not apply to this model: {reason}.",))
    heads = sorted((row for row in parts if row[1] == "head"), key=lambda row: -abs(row[-1]))
    chosen = [(int(row[0] or 0), int(row[2] or 0)) for row in heads[: params.strongest]]
    if params.also is not None and params.also not in chosen:
        chosen.append(params.also)
    rows = parts + answer.sources(chosen, context)
    frame = pd.DataFrame([(position, answer.label, *row) for row in rows], columns=_COLUMNS)
    metrics = [(position, "dla_total", answer.total, len(parts)), (position, "dla_error", error, len(parts))]
    tokens = pd.DataFrame(metrics, columns=["pos", "metric", "value", "n_used"]).assign(layer=pd.NA, status="ok")
    return Result(
        {
            "components": frame.astype({"layer": "Int64", "head": "Int64", "source_pos": "Int64"}),
            "token_metrics": tokens.astype({"layer": "Int64"})[["layer", "pos", "metric", "value", "n_used", "status"]],
        }
    )


class _Answer:
    """One logit (or difference of two) at one position, and what each part adds to it."""

    def __init__(self, capture: Capture, position: int, params: Params) -> None:
        self._capture, self._position = capture, position
        model = capture.model
        hidden = capture.resid(model.facts.n_layers)[position]
        self._normed = model.normalise(hidden[None])[0].float().cpu()
        logits = self._logits()
        target = int(logits.argmax()) if params.target == "top1" else int(params.target)
        _within("target", target, model.facts.d_vocab - 1)
        versus = _runner_up(logits, target) if params.versus == "top2" else params.versus
        if versus is not None:
            _within("versus", int(versus), model.facts.d_vocab - 1)
        if versus == target:
            raise BadRequest(f"attribution.versus must be another token than the target, not {versus}")
        self.label = f"{target}" if versus is None else f"{target}-{versus}"
        self.total = float(logits[target] - (0.0 if versus is None else logits[int(versus)]))
        matrix, bias = model.unembed_matrix(), model.unembed_bias
        direction = matrix[target].double().cpu()
        shift = 0.0 if bias is None else float(bias[target])
        if versus is not None:
            direction = direction - matrix[int(versus)].double().cpu()
            shift -= 0.0 if bias is None else float(bias[int(versus)])
        norm_bias = torch.zeros(model.facts.d_model) if model.norm_bias is None else model.norm_bias
        self._norm_bias = float(norm_bias.double() @ direction) + shift
        self._tolerance = _TOLERANCE[model.facts.dtype]
        norm = freeze_norm(hidden, self._normed, model.norm_weight, norm_bias, model.facts.norm, self._tolerance)
        self._pulled = norm.pull_back(direction)

    @torch.no_grad()
    def _logits(self) -> Float64[Tensor, " d_vocab"]:
        """The logits before any soft-cap, which is monotonic: it changes no order, but is no sum."""
        model = self._capture.model
        logits: Tensor = model.sites.unembed(self._normed.to(model.device, model.dtype))
        return logits.double().cpu()

    def parts(self, context: Context) -> list[Row]:
        """Every term of the sum. Raises NotAdditive where a post-norm is of a kind that cannot be frozen."""
        capture, model, position = self._capture, self._capture.model, self._position
        edits = self._edits()
        embedded = float(contribution(capture.resid(0)[position], self._pulled))
        rows: list[Row] = [
            (None, "embed", None, None, embedded - sum(row[-1] for row in edits if row[0] is None)),
            *edits,
            (None, "norm_bias", None, None, self._norm_bias),
        ]
        for block in range(model.facts.n_layers):
            context.progress.step(0.5 * block / model.facts.n_layers, f"parts of block {block}")
            w_o, bias = _o_proj(model, block)
            pulled = self._behind_post_norm(block)
            values = head_contributions(self._z(block), w_o, pulled)
            rows += [(block, "head", head, None, value) for head, value in enumerate(values.tolist())]
            if bias is not None:
                rows.append((block, "attn_bias", None, None, float(contribution(bias, pulled))))
            mlp = contribution(capture.mlp_out(block)[position], self._pulled)
            rows.append((block, "mlp", None, None, float(mlp)))
        return rows

    def _edits(self) -> list[Row]:
        """What each edit added itself; an edit of point p counts to block p - 1, one of the embeddings to none."""
        found: list[Row] = []
        for site, layer in dict.fromkeys((edit.site, edit.layer) for edit in self._capture.edits):
            moved = self._capture.moved(site, layer) if site in ("resid", "attn_out") else None
            if moved is not None:
                block = layer - 1 if site == "resid" else layer
                value = float(contribution(moved[self._position], self._pulled))
                found.append((None if block < 0 else block, "edit", None, None, value))
        return found

    def sources(self, heads: Sequence[tuple[int, int]], context: Context) -> list[Row]:
        """The given (block, head) split by source token, each block run again once."""
        rows: list[Row] = []
        blocks = sorted({block for block, _ in heads})
        for i, block in enumerate(blocks):
            context.progress.step(0.5 + 0.5 * i / len(blocks), f"source tokens of block {block}")
            again = self._capture.replay(block, (self._position,))
            w_o, _ = _o_proj(self._capture.model, block)
            pulled = self._behind_post_norm(block)
            seen = self._position + 1
            for _, head in (pair for pair in heads if pair[0] == block):
                row, keys = again.pattern[head, 0, :seen], again.values[head, :seen]
                values = source_contributions(row, keys, w_o[head], pulled).tolist()
                rows += [(block, "head", head, source, value) for source, value in enumerate(values)]
        return rows

    def _z(self, block: int) -> Float32[Tensor, "heads d_head"]:
        return self._capture.head_z(block)[self._position].reshape(self._capture.model.facts.n_heads, -1)

    @torch.no_grad()
    def _behind_post_norm(self, block: int) -> Float64[Tensor, " d_model"]:
        """The direction heads are measured along: pulled back once more where a norm follows attention."""
        model = self._capture.model
        sites = model.sites.blocks[block]
        if not sites.attn_post_norm:
            return self._pulled
        w_o, bias = _o_proj(model, block)
        summed = torch.einsum("he,hed->d", self._z(block), w_o) + (0.0 if bias is None else bias)
        both = torch.stack([summed, torch.ones_like(summed)]).to(model.device, model.dtype)
        added, gain = sites.attn_added(both).float().cpu()  # what ones become is the gain, but for a constant
        norm = freeze_norm(summed, added, gain, torch.zeros_like(gain), "rms", self._tolerance)
        return norm.pull_back(self._pulled)


def _o_proj(
    model: LoadedModel, block: int
) -> tuple[Float32[Tensor, "heads d_head d_model"], Float32[Tensor, " d_model"] | None]:
    weight, bias = model.o_proj(block)
    return weight.float().cpu(), None if bias is None else bias.float().cpu()


def _runner_up(logits: Float[Tensor, " d_vocab"], target: int) -> int:
    """The best token that is not the target."""
    first, second = logits.topk(2).indices.tolist()
    return int(second if first == target else first)


def _within(name: str, value: int, last: int) -> None:
    if value > last:
        raise BadRequest(f"attribution.{name} must be 0 to {last}, not {value}")
