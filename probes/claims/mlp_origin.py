"""Claim: massive activations are written by an MLP, not by attention (core.md 3.1)."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float64

from analysis.inference import bootstrap_means, percentile_interval
from probes.claims.bench import Bench, Item
from probes.claims.births import MIN_STARTS, first_tokens
from probes.claims.claim import Claim, Outcome, finite

__all__ = ["claim", "judged", "test"]

_RANDOM = 200  # entries of the block that are not massive, whose share is the control

claim = Claim(
    name="mlp-origin",
    title="Massive activations are written by an MLP",
    paper="Sinks in audio-visual speech recognition, arXiv 2510.22603",
    reported="Massive activations come from MLP layers.",
    tested="Every entry that becomes massive (above 100 and 1,000 times the layer's median) in a block: the share of the "
    "MLP in what that block adds to it, |MLP| / (|attention| + |MLP|), mean by prompt. Prompts are run without BOS and "
    "one stands for each first token, since position 0 sees itself alone.",
    rule="Holds if the interval of the mean share lies above one half and the interval of its difference from random "
    "entries of the same blocks lies above 0.",
    distrust="A share says which part added the number, not why. Entries of one prompt are born together and count once. "
    "A model without massive entries cannot tell.",
    prompts="passages",
)


def test(bench: Bench) -> Outcome:
    """Find births and what wrote them."""
    items = first_tokens(bench)
    shares, controls, blocks = [], [], []
    for place, item in enumerate(items):
        bench.told(place, len(items), "births of massive activations in")
        events = bench.runner.store.table(item.run_id, "massive_events")
        events = events[(events["birth"] > 0) & events["mlp_delta"].notna()]
        if events.empty:
            continue
        attn, mlp = events["attn_delta"].abs(), events["mlp_delta"].abs()
        shares.append(float((mlp / (attn + mlp)).mean()))
        born = sorted({int(point) - 1 for point in events["birth"]})
        controls.append(float(np.mean([_random_share(bench, item, block) for block in born])))
        blocks.append(born)
    return judged(np.array(shares), np.array(controls), blocks, len(items), bench.seed)


def judged(
    shares: Float64[np.ndarray, " n"],
    controls: Float64[np.ndarray, " n"],
    blocks: list[list[int]],
    n_prompts: int,
    seed: int = 0,
) -> Outcome:
    """The verdict on the MLP's share by prompt, beside that at random entries."""
    if len(shares) < MIN_STARTS:
        return Outcome(
            "cannot be tested here",
            f"{len(shares)} of {n_prompts} prompts have an activation that becomes massive in a block; it takes "
            f"{MIN_STARTS}.",
            n=n_prompts,
        )
    low, high = percentile_interval(bootstrap_means(np.column_stack([shares, shares - controls]), seed=seed))
    effect, control = float(shares.mean()), float(controls.mean())
    holds = float(low[0]) > 0.5 and float(low[1]) > 0
    often = sorted({block for born in blocks for block in born}, key=lambda b: -sum(b in born for born in blocks))
    counts = [{"block": block, "prompts with a birth": sum(block in born for born in blocks)} for block in often]
    return Outcome(
        verdict="holds" if holds else "does not hold",
        reason=f"In {len(shares)} of {n_prompts} prompts something becomes massive, most often in block {often[0]}; the "
        f"MLP adds {effect:.1%} of it there, {control:.1%} at random entries.",
        effect=effect, low=finite(float(low[0])), high=finite(float(high[0])), unit="share written by the MLP",
        control=finite(control), control_is="random entries of the same blocks that are not massive",
        n=len(shares), of="prompts with different first tokens", details=tuple(counts[:8]),
    )  # fmt: skip


def _random_share(bench: Bench, item: Item, block: int) -> float:
    """The MLP's share at random entries of a block that are not massive after it."""
    capture = bench.capture(item)
    replayed = capture.replay(block, ())
    attn, mlp = replayed.attn_out.double().abs(), replayed.mlp_out.double().abs()
    after = capture.resid(block + 1).abs()
    ordinary = torch.nonzero((after < 100).flatten())[:, 0]
    chosen = ordinary[torch.from_numpy(np.random.default_rng(bench.seed).integers(len(ordinary), size=_RANDOM))]
    attn, mlp = attn.flatten()[chosen], mlp.flatten()[chosen]
    return float((mlp / (attn + mlp).clamp_min(1e-30)).mean())
