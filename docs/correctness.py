"""The page docs/correctness.md and its picture, of the embedded model: ``python -m docs.correctness``."""

from pathlib import Path
from typing import Any

import pandas as pd

from app.figures.predicting import auc_dots
from app.predicting import prediction_document
from app.report.pictures import picture
from app.services import Services, start
from app.text import number
from probes.claims.bench import Bench
from probes.model.catalog import EMBEDDED
from probes.predicting import predict_correctness
from probes.progress import Progress
from probes.prompts.library import find_set

PAGE = Path(__file__).parent / "correctness.md"
IMAGE = Path(__file__).parent / "images" / "correctness.png"
SET = "factual-reasoning"


def asked(held: Services, *, chat: bool, shuffled: bool = False) -> dict[str, Any]:
    """What the command ``predict`` writes."""
    prompts = find_set(held.store, SET)
    bench = Bench(held.runner, held.shelf, EMBEDDED, prompts, Progress(), shuffled=shuffled, chat=chat)
    return prediction_document(predict_correctness(bench), EMBEDDED, prompts, chat)


def table(document: dict[str, Any]) -> str:
    """A row a predictor: its AUC, that of shuffled labels, and over which baselines it gains."""
    shuffled = {row["name"]: row for row in document["shuffled"]}
    lines = ["| predictor | AUC [95 %] | labels shuffled, mean (sd) | gains clearly over |", "|---|---|---|---|"]
    for row in document["predictors"]:
        null, own = shuffled.get(row["name"]), [one for one in document["gains"] if one["name"] == row["name"]]
        clear = ", ".join(one["baseline"] for one in own if one["low"] > 0) or "none"
        cells = (
            f"{row['name']}{' (baseline)' if row['baseline'] else ''}",
            f"{row['auc']:.3f} [{row['low']:.3f}, {row['high']:.3f}]",
            "" if null is None else f"{null['mean']:.3f} ({null['sd']:.3f}, {null['shuffles']} times)",
            "" if row["baseline"] else clear,
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def counted(document: dict[str, Any]) -> str:
    """How many were answered, and rightly."""
    ended = document["of"] - document["n"]
    left = f"; after {ended} more prompts it ends at once" if ended else ""
    return (
        f"{document['n_right']} of {document['n']} answers are right{left}. Alpha is of {document['n_tokens']} tokens."
    )


def early(document: dict[str, Any]) -> str:
    """How soon the stream tells."""
    found = document["early"]
    if found is None:
        return "No stream is long enough to be read window by window."
    when = (
        "" if found["median_windows"] is None else f" (half of them within {number(found['median_windows'])} windows)"
    )
    return (
        f"Read window by window, the stream finds {found['detected']:.0%} of the right answers{when} with "
        f"{found['false_alarms']:.0%} false alarms."
    )


def told(plain: dict[str, Any], chat: dict[str, Any], shuffled: dict[str, Any]) -> str:
    """The page."""
    return f"""# Right answers, told before they are given

arXiv 2604.15350 reports that alpha alone tells before the answer whether it will be right (mean AUC .893 over six models).
Tested on the embedded model with the {plain["of"]} prompts of `{SET}`, which were written for this project as two groups
of one template and length: small problems and questions of general knowledge, each with an answer that a rule checks (a
word or a number). None was chosen by how the model does on it. The model writes up to 32 tokens, greedily; every feature is
of the tokens before the answer. Made by `python -m docs.correctness`; the same numbers come from `python -m app predict
--model {EMBEDDED} --prompt-set {SET} --json - [--chat] [--shuffled]` and stand on the page
*Correctness*. How it is done: [statistics](methods/statistics.md).

## In the chat template

{counted(chat)}

![AUC of every predictor](images/correctness.png)

{table(chat)}

{early(chat)}

The control: right and wrong permuted over prompts before anything else ({shuffled["n_right"]} of {shuffled["n"]} "right").

{table(shuffled)}

## Read plain

{counted(plain)}

{table(plain)}

{early(plain)}

## What this does not say

With {chat["n"]} answers an AUC of .6 is compatible with chance, and the intervals keep folds and training sets fixed, so
they are rather too narrow. A predictor that gains over no baseline says nothing that number of tokens, likelihood or the
kind of question do not say. One model of 135 million weights, Q4_1 dequantised; the paper's models are larger and its
problems harder: this is no refutation of it.
"""


def main() -> None:
    held = start()
    try:
        plain, chat = (asked(held, chat=chat) for chat in (False, True))
        shuffled = asked(held, chat=True, shuffled=True)
        drawn = auc_dots(pd.DataFrame(chat["predictors"]), pd.DataFrame(chat["shuffled"]))
        IMAGE.write_bytes(picture(drawn, "png"))
        PAGE.write_text(told(plain, chat, shuffled), encoding="utf-8")
    finally:
        held.close()


if __name__ == "__main__":
    main()
