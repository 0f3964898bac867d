"""Effect: what a run predicts otherwise than another run of the same length, and what its sinks became."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float32
from torch import Tensor

from analysis.effect import MEASURES, effect
from analysis.sinks import MIN_TOKENS_IS_SINK, first_sink_block, head_sinks
from probes.checks import require, whole
from probes.errors import BadRequest
from probes.probe import Context, ProbeSpec, Result

if TYPE_CHECKING:
    from probes.model.capture import Capture
    from probes.model.loaded import LoadedModel, ModelFacts

__all__ = ["Params", "compatible", "cost", "run", "spec"]

_ROWS = 64


@dataclass(frozen=True)
class Params:
    """``against``: the id of the clean run. ``top``: likely tokens kept a position, before and after."""

    __no_type_check__ = True  # values come from people: refused in a sentence, not by the type hook of the tests

    against: str = ""
    top: int = 5

    def __post_init__(self) -> None:
        require(isinstance(self.against, str) and bool(self.against), "effect.against", "a run id", self.against)
        require(whole(self.top) and 1 <= self.top <= 50, "effect.top", "a whole number from 1 to 50", self.top)

    @property
    def runs(self) -> tuple[str, ...]:
        return (self.against,)


spec = ProbeSpec(
    name="effect",
    version=2,
    question="What does this run predict otherwise than the clean one?",
    sites=frozenset({"final"}),
    reductions=frozenset({"column_sum"}),
    tables=("token_metrics", "layer_metrics", "lens_topk"),
    after=("tokens",),
    masks=False,
)


def compatible(model: LoadedModel) -> str | None:
    return None


def cost(params: Params, facts: ModelFacts, n_tokens: int) -> int:
    """Logits of a few rows of both runs, and their probabilities."""
    return 10 * _ROWS * facts.d_vocab * 4


def run(capture: Capture, params: Params, context: Context) -> Result:
    """Everything without a layer but the shares of sink heads.

    ``token_metrics``: ``nll`` (unless the probe tokens wrote it) and ``nll_clean`` at the token; ``effect_dlp``,
    ``effect_kl``, ``effect_hellinger``, ``effect_jsd``, ``effect_flip`` at the position that predicts.

    ``layer_metrics``: their means (``effect_*`` without position 0, which is drawn but not counted), ``perplexity`` and
    ``perplexity_clean`` = exp of the mean nll of all targets, ``sink_share`` of each block at its point, and
    ``sink_share_on`` and ``sink_share_on_clean`` over the blocks from the first with sinks in the clean run.

    ``lens_topk``: the likely tokens at the last point, variants ``clean`` and ``edited``.

    Raises BadRequest for a clean run of another text: from position 1 on, both must predict the same tokens.
    """
    clean = context.other(params.against)
    if not torch.equal(clean.token_ids[1:], capture.token_ids[1:]):
        raise BadRequest(f"effect needs a run of the same text: the tokens of {params.against[:8]} are others.")
    last = capture.model.facts.n_layers
    before, after = clean.resid(clean.model.facts.n_layers), capture.resid(last)
    targets = capture.token_ids.roll(-1)
    columns: dict[str, list[Tensor]] = {name: [] for name in (*MEASURES, "nll", "nll_clean")}
    tops: dict[str, list[Tensor]] = {"clean": [], "edited": []}
    for start in range(0, capture.n_tokens, _ROWS):
        context.progress.step(start / capture.n_tokens, "effect on every prediction")
        rows = slice(start, start + _ROWS)
        p, q = clean.model.unembed(before[rows]), capture.model.unembed(after[rows])
        found = effect(p, q)
        for name in MEASURES:
            columns[name].append(getattr(found, name).cpu())
        for name, logits in (("nll", q), ("nll_clean", p)):
            wanted = targets[rows].to(logits.device)
            columns[name].append(torch.nn.functional.cross_entropy(logits, wanted, reduction="none").cpu())
        for name, logits in (("clean", p), ("edited", q)):
            tops[name].append(torch.stack([x.cpu().double() for x in logits.softmax(dim=-1).topk(params.top)]))
    values = {name: torch.cat(parts).double().numpy() for name, parts in columns.items()}
    rows, sinks = _token_rows(values), _sinks(capture, clean)
    earlier = context.tables.get("token_metrics")
    if earlier is not None and (earlier["metric"] == "nll").any():
        rows = rows[rows["metric"] != "nll"]
    return Result(
        {
            "token_metrics": rows,
            "layer_metrics": pd.concat([_summary(values), sinks], ignore_index=True),
            "lens_topk": pd.concat([_top_rows(torch.cat(t, dim=1), name, last) for name, t in tops.items()]),
        }
    )


def _token_rows(values: dict[str, np.ndarray]) -> pd.DataFrame:
    frames = []
    for name, column in values.items():
        of_token = name.startswith("nll")
        shown = np.concatenate([[np.nan], column[:-1]]) if of_token else column
        known = np.isfinite(shown)
        frame = pd.DataFrame({"pos": np.arange(len(shown)), "value": shown, "n_used": known.astype(int)})
        frame = frame.assign(value=frame["value"].where(known), status=np.where(known, "ok", "non_finite"))
        if of_token:
            frame.loc[0, "status"] = "not_applicable"
        frames.append(frame.assign(metric=name if of_token else f"effect_{name}"))
    rows = pd.concat(frames, ignore_index=True)
    rows.insert(0, "layer", pd.Series([pd.NA] * len(rows), dtype="Int64"))
    return rows[["layer", "pos", "metric", "value", "n_used", "status"]]


def _summary(values: dict[str, np.ndarray]) -> pd.DataFrame:
    n_targets = len(values["nll"]) - 1
    rows = []
    for name, metric in (("nll", "perplexity"), ("nll_clean", "perplexity_clean")):
        mean = float(values[name][:-1].mean()) if n_targets else float("nan")
        with np.errstate(over="ignore"):
            rows.append((metric, float(np.exp(mean)), n_targets))
    for name in MEASURES:
        rows.append((f"effect_{name}", float(values[name][1:].mean()) if n_targets else float("nan"), n_targets))
    frame = pd.DataFrame(rows, columns=["metric", "value", "n_used"]).assign(status="ok")
    infinite = ~np.isfinite(frame["value"])
    return frame.assign(
        layer=pd.array([pd.NA] * len(frame), dtype="Int64"),
        value=frame["value"].mask(infinite),
        status=frame["status"].mask(infinite, "non_finite" if n_targets else "too_few_tokens"),
    )[["layer", "metric", "value", "n_used", "status"]]


def _sinks(capture: Capture, clean: Capture) -> pd.DataFrame:
    """Shares of sink heads, by block and over the blocks that are on in the clean run; undefined below 32 tokens."""
    columns = ["layer", "metric", "value", "n_used", "status"]
    if capture.n_tokens < MIN_TOKENS_IS_SINK:
        rows = [(pd.NA, name, np.nan, 0, "too_few_tokens") for name in ("sink_share_on", "sink_share_on_clean")]
        return pd.DataFrame(rows, columns=columns).astype({"layer": "Int64"})
    ours, theirs = (head_sinks(one.importance).is_sink.double() for one in (capture, clean))
    heads = ours.shape[1]
    share = ours.mean(dim=1)
    rows = [(block + 1, "sink_share", float(value), heads, "ok") for block, value in enumerate(share)]
    first = first_sink_block(clean.importance.above)
    for name, flags in (("sink_share_on", ours), ("sink_share_on_clean", theirs)):
        if first is not None and flags.shape == theirs.shape:
            counted = flags[first:]
            rows.append((pd.NA, name, float(counted.mean()), counted.numel(), "ok"))
        else:
            rows.append((pd.NA, name, np.nan, 0, "not_applicable"))
    return pd.DataFrame(rows, columns=columns).astype({"layer": "Int64"})


def _top_rows(top: Float32[Tensor, "2 n k"] | Tensor, variant: str, layer: int) -> pd.DataFrame:
    probs, ids = top[0].numpy(), top[1].numpy().astype(np.int64)
    n, k = ids.shape
    return pd.DataFrame(
        {
            "layer": layer,
            "pos": np.repeat(np.arange(n), k),
            "variant": variant,
            "rank": np.tile(np.arange(1, k + 1), n),
            "token_id": ids.ravel(),
            "prob": probs.ravel(),
        }
    )
