"""The page docs/reasoning-and-factual.md and its pictures, of the embedded model: ``python -m docs.groups``."""

import sys
from pathlib import Path
from typing import Any

from app.compare_groups import group_document
from app.groups import GroupAsk, compared, specified
from app.panels.groups import options_of
from app.panels.registry import panel
from app.report.pictures import picture
from app.selection import Selection
from app.services import start
from app.view import View
from probes.model.catalog import EMBEDDED
from probes.progress import Progress
from probes.prompts.library import find_set
from probes.request import DEFAULT_PROBES, RunRequest
from probes.set_sweep import SetAsk

PAGE = Path(__file__).parent / "reasoning-and-factual.md"
IMAGES = Path(__file__).parent / "images"
PANELS = ("groups-means", "groups-difference", "groups-conventions")
SHOWN = (0, 1, 6, 12, 18, 24, 30)


def told(whole: dict[str, Any], matched: dict[str, Any]) -> str:
    """The page: what was asked, what came out, what it does not say."""
    plain, same = whole["compare"]["overall"], matched["compare"]["overall"]
    signs, n = matched["compare"]["conventions"], matched["compare"]["tokens"]
    layers = matched["layers"]
    clear = sum(row["p_bh"] is not None and row["p_bh"] < 0.05 for row in layers)
    largest = max(layers, key=lambda row: abs(row["difference"]))
    direction = "steeper" if same["difference"] > 0 else "flatter"
    rows = [
        f"| {row['layer']} | {row['mean_first']:.4f} | {row['mean_second']:.4f} | {row['difference']:+.4f} "
        f"[{row['low']:+.4f}, {row['high']:+.4f}] | {row['p_bh']:.2g} | {row['p_permuted']:.2g} |"
        for row in layers
        if row["layer"] in SHOWN
    ]
    return f"""# Reasoning against factual prompts

arXiv 2604.15350 reports that spectra of reasoning are flatter (a lower alpha) than those of factual recall. Tested on
the embedded
model with the built-in set: {same["n_first"]} small problems against {same["n_second"]} questions of general knowledge,
one template,
every prompt read at {n} tokens (up to 20 windows a prompt). Made by
`python -m docs.groups`; the same numbers come from `python -m app compare --model {EMBEDDED} --prompt-set factual-reasoning --a
reasoning --b factual --length matched --json -` and stand on the page *Compare groups*.

**Here the direction is {"the other one" if same["difference"] > 0 else "the reported one"}.** Alpha of singular values
(normed rows,
centred, all usable ranks), mean over {matched["compare"]["n_layers"]} points: reasoning {same["mean_first"]:.3f}, factual
{same["mean_second"]:.3f}; reasoning − factual = **{same["difference"]:+.4f}**, 95 % interval {same["low"]:+.4f} to
{same["high"]:+.4f},
Welch p = {same["p"]:.1g}, labels permuted p = {same["p_permuted"]:.1g} (the least 2,000 permutations can give is .0005),
Hedges g =
{same["g"]:.2f} [{same["g_low"]:.2f}, {same["g_high"]:.2f}]. Reasoning is {direction} at {clear} of {len(layers)} points
with p below .05
after Benjamini-Hochberg. Every prompt whole, whose lengths are alike: {plain["difference"]:+.4f} [{plain["low"]:+.4f},
{plain["high"]:+.4f}].

![Both groups by layer](images/groups-means.png)

| point | reasoning | factual | difference, 95 % interval | p over points | p permuted |
|---|---|---|---|---|---|
{chr(10).join(rows)}

Grey: alpha with the columns of the same windows permuted (dotted), and of Gaussian noise of that size (dash-dotted).

![Difference by layer](images/groups-difference.png)

## Every convention

Preparation, range of ranks and estimator are conventions: {signs["defined"]} of 32 are defined at {n} tokens. Reasoning
is steeper under
{signs["first_steeper"]} and flatter under {signs["first_flatter"]}: **{signs["same_sign"]:.0%} have the sign of the headline**,
{signs["clear_same"]} with an interval without 0; {signs["clear_other"]} have the other sign clearly.

![The sign under every convention](images/groups-conventions.png)

## What this does not say

The difference is largest at point {largest["layer"]} ({largest["difference"]:+.3f}) and {layers[-1]["difference"]:+.3f} at
the last; at point 0, where nothing has been computed yet, it is {layers[0]["difference"]:+.3f} (p {layers[0]["p_bh"]:.1g}).
The groups differ in more than reasoning: in words, in how often a text repeats its own words and numbers, in how many the
model answers rightly. What stands at point 0 is of the words alone. One model of 135 million weights, Q4_1 dequantised; one
template; one language. The paper's models are larger and its prompts are its own, so this is no refutation of it.
"""


def main() -> None:
    held = start()
    try:
        asked = SetAsk(find_set(held.store, "factual-reasoning"), RunRequest(EMBEDDED, (0,), DEFAULT_PROBES))
        ask = GroupAsk(asked, "reasoning", "factual")
        whole = group_document(held, ask, "whole", None, Progress())
        matched = group_document(held, ask, "matched", None, Progress())
        ask = GroupAsk(asked, "reasoning", "factual", n=int(matched["compare"]["tokens"]))
        _, found = compared(held, ask)
        result = held.open(found.runs[0])
        if result is None or specified(held, ask, None).table.empty:
            sys.exit("the prompts were run, but their runs are not in the store")
        for key in PANELS:
            options = options_of(ask)
            if key == "groups-conventions":
                del options["metric"]
            drawn = panel(key).draw(View(held, result, Selection()), options)
            if drawn.fig is None:
                sys.exit(f"{key}: {drawn.note}")
            (IMAGES / f"{key}.png").write_bytes(picture(drawn.fig, "png"))
        PAGE.write_text(told(whole, matched), encoding="utf-8")
    finally:
        held.close()


if __name__ == "__main__":
    main()
