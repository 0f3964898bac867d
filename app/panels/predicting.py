"""Panels of predicted correctness: every predictor beside its controls, and ROC curves."""

import pandas as pd

from app.figures.predicting import auc_dots, roc_curves
from app.panels.panel import Drawn, Option, panel
from app.predicting import Prediction, find_prediction
from app.text import markdown
from app.view import Gap, View
from probes.errors import BadRequest
from probes.prompts.library import find_set

__all__ = ["REASONS", "told"]

_SET = {"prompts": Option(str, "sets-set"), "chat": Option(bool)}
_CURVES = 4
REASONS = {
    "single_class": "all answers are right, or all are wrong",
    "too_few_prompts": "it takes 50 answers, and 10 right and 10 wrong ones",
    "too_few_tokens": "some answer begins before the fifth token",
}


@panel("predict-auc", "predict", "What tells right from wrong", "Do the states say more than length and likelihood?",
       ("statistics", "Correctness"), options=_SET)  # fmt: skip
def predictors(view: View, prompts: str = "", chat: bool = False) -> Drawn:
    found = _found(view, prompts, chat)
    table = found.table("predictors")
    return Drawn(auc_dots(table, found.table("shuffled")), note=told(found), csv=table.drop(columns="layers"))


@panel("predict-roc", "predict", "ROC curves", "How many right answers are found at which price?",
       ("statistics", "Correctness"), options=_SET)  # fmt: skip
def curves(view: View, prompts: str = "", chat: bool = False) -> Drawn:
    found = _found(view, prompts, chat)
    table = found.table("predictors").sort_values("auc", ascending=False)
    of_states = table.loc[~table["baseline"].astype(bool), "name"].tolist()
    usual = table.loc[table["baseline"].astype(bool), "name"].tolist()[:1]
    lines = found.table("curves")
    return Drawn(
        roc_curves(lines, [*of_states, *usual][:_CURVES]), note="All of the states, and the best baseline.", csv=lines
    )


def told(found: Prediction) -> str:
    """What was predicted, in sentences of Markdown."""
    document, gains = found.document, found.table("gains")
    ended = document["of"] - document["n"]
    left = f" ({ended} more prompts take no part: the model ends at once, or they are too long)" if ended else ""
    said = [
        f"{document['n_right']} of {document['n']} answers are right{left}; everything is of the tokens before the answer, alpha "
        f"of the last {document['n_tokens']}."
    ]
    for name, own in gains.groupby("name", sort=False):
        clear = own.loc[own["low"] > 0, "baseline"].tolist()
        over = f"over {', '.join(map(markdown, clear))}" if clear else "over no baseline"
        said.append(f"{markdown(str(name)).capitalize()} gains clearly {over}.")
    if document["early"] is not None:
        early = document["early"]
        when = (
            "" if early["median_windows"] is None else f", half of those within {early['median_windows']:.0f} windows"
        )
        said.append(
            f"Read window by window, the stream finds {early['detected']:.0%} of the right ones{when}, with "
            f"{early['false_alarms']:.0%} false alarms (meant: 5 %)."
        )
    if document["left_out"]:
        said.append(f"Undefined for some prompt and left out: {', '.join(map(markdown, document['left_out']))}.")
    return " ".join(said)


def _found(view: View, prompts: str, chat: bool) -> Prediction:
    try:
        found = find_prediction(view.services, view.facts, find_set(view.services.store, prompts), chat)
    except BadRequest as problem:
        raise Gap(markdown(str(problem))) from None
    if found is None:
        raise Gap(f"Nothing was predicted of this set on this model yet, read {'as a chat' if chat else 'plain'}.")
    if found.document["status"] != "ok":
        document = found.document
        why = REASONS.get(document["status"], document["status"])
        raise Gap(f"{document['n_right']} of {document['n']} answers are right: nothing can be predicted, {why}.")
    if pd.isna(found.table("predictors")["auc"]).all():
        raise Gap("No predictor has an AUC.")
    return found
