"""Logit lens: what each residual point would predict, raw, mean-corrected and tuned (docs/methods/lens.md, tuned-lens.md)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd
import torch
from jaxtyping import Int64
from torch import Tensor

from analysis.lens import CHUNK_ROWS, NO_TARGET, Reading, Variant, View, mismatched, read_views
from probes.checks import require, some_whole, whole
from probes.errors import BadRequest
from probes.lens_states import LensStates
from probes.lens_tables import layer_means, metric_rows, settling_rows, top_rows
from probes.lenses.folder import digest_of, lens_folder, misfit, read_config
from probes.probe import Context, ProbeSpec, Result

if TYPE_CHECKING:
    from probes.model.capture import Capture
    from probes.model.loaded import LoadedModel, ModelFacts

__all__ = ["SAMPLE_SIZE", "Params", "compatible", "cost", "positions_of", "run", "spec"]

SAMPLE_SIZE = 32
_VARIANTS: tuple[Variant, ...] = ("raw", "mean", "no_norm")


@dataclass(frozen=True)
class Params:
    """Where to read, and against what.

    ``points``: "all" or residual points. ``positions``: "all", "last", "sample" (every position of up to 32 tokens,
    otherwise 32 evenly spaced ones with the first and last) or positions. ``variants``: "raw", "mean"
    (mean-corrected), "no_norm" (LLM-Microscope: unembedding without the final norm). ``targets``: "next" (the token
    that follows), "final" (the model's own top token) or a token id. ``control_seed`` draws the mismatched targets.
    ``js`` adds the Jensen-Shannon divergence. ``tuned`` names an installed tuned lens that is read as well; ``content``
    follows from it: a hash of its files, so that a result is never mistaken for one of another lens of that name.
    ``tail`` adds the tail lens with so many of the last blocks.
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
    tuned: str | None = None
    tail: int | None = None
    content: str = field(init=False)

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
        named = self.tuned is None or (isinstance(self.tuned, str) and 0 < len(self.tuned) <= 64)
        require(named, "lens.tuned", "the name of an installed tuned lens", self.tuned)
        require(self.tail is None or whole(self.tail), "lens.tail", "a whole number of blocks from 0", self.tail)
        object.__setattr__(self, "content", "" if self.tuned is None else digest_of(self.tuned))

    @property
    def read(self) -> tuple[Variant, ...]:
        """Every variant that is read."""
        more: tuple[Variant, ...] = ("tuned",) if self.tuned is not None else ()
        more += ("tail",) if self.tail is not None else ()
        return (*self.variants, *more)


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
    """Logits of one chunk (twice for half precision or a soft-cap), passes over a few rows of it, the tables, and the states
    of the tail lens and a tuned lens.

    Raises BadRequest here, before anything runs, for a tuned lens that is not there or not of this model's shape.
    """
    n_positions = {"all": n_tokens, "last": 1, "sample": SAMPLE_SIZE}.get(str(params.positions), len(params.positions))
    n_points = facts.n_layers + 1 if params.points == "all" else len(params.points)
    row_bytes = 60 * (params.top_k + 2 * len(fields(Reading)))
    lens = 0 if params.tail is None else n_points * n_tokens * facts.d_model * 4
    if params.tuned is not None:
        lens += 2 * facts.n_layers * facts.d_model * (facts.d_model + 1) * 4
        reason = misfit(read_config(lens_folder(params.tuned)), facts)
        if reason is not None:
            raise BadRequest(f"The tuned lens {params.tuned!r} does not fit: {reason}.")
    tables = len(params.read) * n_points * min(n_positions, n_tokens) * row_bytes
    return (2 * CHUNK_ROWS + 48) * facts.d_vocab * 4 + tables + lens


def run(capture: Capture, params: Params, context: Context) -> Result:
    """Token metrics at the position whose state is read: ``lens_rank`` at t is of the token that follows t.

    Plain names are the raw lens, ``@mean`` the mean-corrected, ``@no_norm`` the one without final norm, ``@tuned`` the
    tuned lens that was named. ``lens_depth`` and the convergence of a position have no layer, and need every point. Means
    over positions leave position 0 out: it sees only itself. ``@tail`` is the tail lens. Raises BadRequest for a point,
    position or token id that does not exist, and for a tuned lens that is of another model.
    """
    facts = capture.model.facts
    points = range(facts.n_layers + 1) if params.points == "all" else sorted(set(params.points))
    _within("points", points, facts.n_layers)
    positions = positions_of(params.positions, capture.n_tokens)
    source = LensStates(
        capture,
        points,
        positions,
        params.variants,
        context.progress.part(0.0, 0.2),
        tuned=params.tuned,
        tail=params.tail,
    )
    targets, controls = _targets(capture, positions, params, source)
    views = [View(point, variant) for variant in params.read for point in points]
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


def _targets(
    capture: Capture, positions: np.ndarray, params: Params, source: LensStates
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
    source: LensStates,
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
