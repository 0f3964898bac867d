"""Logit lens: what each residual point would predict, raw and mean-corrected (docs/methods/lens.md)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import groupby
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Float32, Int64
from torch import Tensor

from analysis.lens import CHUNK_ROWS, NO_TARGET, Reading, Variant, View, mean_corrected, mismatched, read_views
from probes.checks import require, some_whole, whole
from probes.errors import BadRequest
from probes.lens_tables import layer_means, metric_rows, settling_rows, top_rows
from probes.probe import Context, ProbeSpec, Result

if TYPE_CHECKING:
    from probes.model.capture import Capture
    from probes.model.loaded import LoadedModel, ModelFacts

__all__ = ["SAMPLE_SIZE", "Params", "compatible", "cost", "positions_of", "run", "spec"]

SAMPLE_SIZE = 32
_VARIANTS = get_args(Variant)


@dataclass(frozen=True)
class Params:
    """Where to read, and against what.

    ``points``: "all" or residual points. ``positions``: "all", "last", "sample" (every position of up to 32 tokens,
    otherwise 32 evenly spaced ones with the first and last) or positions. ``variants``: "raw", "mean"
    (mean-corrected), "no_norm" (LLM-Microscope: unembedding without the final norm). ``targets``: "next" (the token
    that follows), "final" (the model's own top token) or a token id. ``control_seed`` draws the mismatched targets.
    ``js`` adds the Jensen-Shannon divergence.
    """

    __no_type_check__ = (
        True  # values come from people: they are refused in a sentence, not by the type hook of the tests
    )

    points: Literal["all"] | tuple[int, ...] = "all"
    positions: Literal["all", "last", "sample"] | tuple[int, ...] = "sample"
    variants: tuple[Variant, ...] = ("raw", "mean")
    top_k: int = 10
    control_seed: int = 0
    targets: Literal["next", "final"] | int = "next"
    js: bool = False

    def __post_init__(self) -> None:
        require(
            some_whole(self.points) or self.points == "all", "lens.points", '"all" or whole numbers from 0', self.points
        )
        named = isinstance(self.positions, str) and self.positions in ("all", "last", "sample")
        wanted = '"all", "last", "sample" or whole numbers from 0'
        require(named or some_whole(self.positions), "lens.positions", wanted, self.positions)
        known = isinstance(self.variants, tuple) and len(self.variants) > 0
        known = known and all(self.variants.count(variant) <= 1 for variant in _VARIANTS)
        known = known and all(variant in _VARIANTS for variant in self.variants)
        require(known, "lens.variants", f"some of {', '.join(_VARIANTS)}, each once", self.variants)
        require(whole(self.top_k) and 1 <= self.top_k <= 100, "lens.top_k", "a whole number from 1 to 100", self.top_k)
        require(whole(self.control_seed), "lens.control_seed", "a whole number from 0", self.control_seed)
        aimed = whole(self.targets) or (isinstance(self.targets, str) and self.targets in ("next", "final"))
        require(aimed, "lens.targets", '"next", "final" or a token id', self.targets)
        require(isinstance(self.js, bool), "lens.js", "true or false", self.js)


spec = ProbeSpec(
    name="lens",
    version=1,
    question="What would the model predict if it stopped at this layer?",
    sites=frozenset({"resid"}),
    reductions=frozenset({"column_sum"}),
    tables=("lens_topk", "token_metrics", "layer_metrics"),
)


def compatible(model: LoadedModel) -> str | None:
    return None


def cost(params: Params, facts: ModelFacts, n_tokens: int) -> int:
    """Logits of one chunk (twice for half precision or a soft-cap), passes over a few rows of it, and the tables."""
    n_positions = {"all": n_tokens, "last": 1, "sample": SAMPLE_SIZE}.get(str(params.positions), len(params.positions))
    n_points = facts.n_layers + 1 if params.points == "all" else len(params.points)
    row_bytes = 60 * (params.top_k + 2 * len(fields(Reading)))
    return (2 * CHUNK_ROWS + 48) * facts.d_vocab * 4 + len(params.variants) * n_points * min(
        n_positions, n_tokens
    ) * row_bytes


def run(capture: Capture, params: Params, context: Context) -> Result:
    """Token metrics at the position whose state is read: ``lens_rank`` at t is of the token that follows t.

    Plain names are the raw lens, ``@mean`` the mean-corrected, ``@no_norm`` the one without final norm. ``lens_depth``
    and the convergence of a position have no layer, and need every point. Means over positions leave position 0 out: it
    sees only itself. Raises BadRequest for a point, position or token id that does not exist.
    """
    facts = capture.model.facts
    points = range(facts.n_layers + 1) if params.points == "all" else sorted(set(params.points))
    _within("points", points, facts.n_layers)
    positions = positions_of(params.positions, capture.n_tokens)
    source = _Source(capture, points, positions, params, context)
    targets, controls = _targets(capture, positions, params, source)
    views = [View(point, variant) for variant in params.variants for point in points]
    reading = _read(source, views, targets, controls, params, context)
    keep = capture.mask(context.mask).numpy()[positions] & (positions > 0)
    tokens = metric_rows(views, positions, reading)
    tables = [tokens] if len(points) <= facts.n_layers else [tokens, settling_rows(views, positions, reading)]
    return Result(
        {
            "lens_topk": top_rows(views, positions, reading),
            "token_metrics": pd.concat(tables, ignore_index=True),
            "layer_metrics": layer_means(views, keep, reading),
        },
        notes=source.notes(capture.n_tokens),
    )


def positions_of(wanted: str | tuple[int, ...], n_tokens: int) -> np.ndarray:
    """The positions meant by "all", "last", "sample" or given, ascending; BadRequest for one outside the prompt."""
    if isinstance(wanted, tuple):
        _within("positions", wanted, n_tokens - 1)
        return np.array(sorted(set(wanted)), dtype=np.int64)
    if wanted == "last":
        return np.array([n_tokens - 1])
    if wanted == "sample" and n_tokens > SAMPLE_SIZE:
        return np.linspace(0, n_tokens - 1, SAMPLE_SIZE).round().astype(np.int64)
    return np.arange(n_tokens)


class _Source:
    """Gives logits of views at positions, keeping no more than the residual points it was asked for."""

    def __init__(
        self, capture: Capture, points: Sequence[int], positions: np.ndarray, params: Params, context: Context
    ) -> None:
        self._model = capture.model
        self.last = capture.model.facts.n_layers
        self._rows = slice(None) if len(positions) == capture.n_tokens else torch.from_numpy(positions)
        self._states = {point: capture.resid(point)[self._rows] for point in {*points, self.last}}
        self._bank = self._model.mean_bank(context.progress.part(0.0, 0.2)) if "mean" in params.variants else None
        # Rows of W_U beyond the tokenizer are padding: no token, often never trained.
        self.vocabulary = min(self._model.facts.d_vocab, len(self._model.tokenizer))
        self.device = self._model.device
        self.n_positions = len(positions)

    def logits(self, views: Sequence[View], where: slice) -> Float32[Tensor, "rows vocab"]:
        """Views outermost; neighbours that are projected alike share one matmul."""
        pieces = []
        for unnormed, alike in groupby(views, key=lambda view: view.variant == "no_norm"):
            states = torch.cat([self._state(view, where) for view in alike])
            pieces.append(self._project(states) if unnormed else self._model.unembed(states))
        return (pieces[0] if len(pieces) == 1 else torch.cat(pieces))[:, : self.vocabulary]

    def final_top1(self) -> Int64[Tensor, " positions"]:
        """The model's own top token at every position asked for."""
        steps = range(0, self.n_positions, CHUNK_ROWS)
        last = View(self.last, "raw")
        return torch.cat([self.logits([last], slice(i, i + CHUNK_ROWS)).argmax(-1).cpu() for i in steps])

    def notes(self, n_tokens: int) -> tuple[str, ...]:
        """What a reader of the numbers must know."""
        notes = (
            []
            if self.n_positions == n_tokens
            else [f"The lens was read at {self.n_positions} of {n_tokens} positions."]
        )
        if self._bank is not None:
            notes.append(f"Mean-corrected lens: means over {self._bank.n_tokens:,} tokens ({self._bank.source}).")
        return tuple(notes)

    def _state(self, view: View, where: slice) -> Float[Tensor, "positions d_model"]:
        state = self._states[view.layer][where]
        if view.variant == "mean" and self._bank is not None:
            return mean_corrected(state, self._bank.means[view.layer], self._bank.means[self.last])
        return state

    @torch.no_grad()
    def _project(self, states: Float[Tensor, "rows d_model"]) -> Float32[Tensor, "rows vocab"]:
        """W_U alone, as LLM-Microscope applies it."""
        logits: Tensor = self._model.sites.unembed(states.to(self._model.device, self._model.dtype))
        return logits.float()


def _targets(
    capture: Capture, positions: np.ndarray, params: Params, source: _Source
) -> tuple[Int64[Tensor, " positions"], Int64[Tensor, " positions"]]:
    """The target of each position and its mismatched control: the target of another position."""
    where = torch.from_numpy(positions)
    follows = torch.cat([capture.token_ids[1:], torch.tensor([NO_TARGET])])
    if params.targets == "final":
        targets = source.final_top1()
        controls = mismatched(targets, torch.arange(len(targets)), targets, params.control_seed)
    elif params.targets == "next":
        targets = follows[where]
        controls = mismatched(targets, where, follows, params.control_seed)
    else:
        _within("targets", (int(params.targets),), source.vocabulary - 1)
        targets = torch.full_like(where, int(params.targets))
        controls = mismatched(targets, where, follows, params.control_seed)
    return targets, controls


def _read(
    source: _Source,
    views: Sequence[View],
    targets: Int64[Tensor, " positions"],
    controls: Int64[Tensor, " positions"],
    params: Params,
    context: Context,
) -> Reading:
    """All views at all positions, ``[views positions]``. At the last point every variant is the model's own output."""
    last = View(source.last, "raw")
    wanted = dict.fromkeys(last if view.layer == last.layer else view for view in views)
    progress = context.progress.part(0.2, 1.0)
    kept: dict[View, list[Reading]] = {view: [] for view in wanted}
    stream = read_views(
        list(wanted),
        source.n_positions,
        last.layer + 1,
        source.logits,
        targets.to(source.device),
        controls.to(source.device),
        k=min(params.top_k, source.vocabulary),
        js=params.js,
    )
    for where, batch, reading in stream:
        for i, view in enumerate(batch):
            kept[view].append(Reading(**{f.name: getattr(reading, f.name)[i].cpu() for f in fields(Reading)}))
        progress.step(where.start / source.n_positions, f"logit lens, position {where.start} of {source.n_positions}")
    ordered = [kept[last if view.layer == last.layer else view] for view in views]
    return Reading(
        **{
            f.name: torch.stack([torch.cat([getattr(piece, f.name) for piece in pieces]) for pieces in ordered])
            for f in fields(Reading)
        }
    )


def _within(name: str, values: Sequence[int], last: int) -> None:
    outside = [value for value in values if value > last]
    if outside:
        raise BadRequest(f"lens.{name} must be 0 to {last}, not {outside[0]}")
