"""Whether right answers can be predicted, as the app computes it in the background and keeps it. No streamlit."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from analysis.roc import FPR
from app.jobs import Job, Key
from app.services import Services
from app.text import json_rows
from cache.keys import digest
from probes.claims.bench import Bench
from probes.model.loaded import ModelFacts
from probes.predicting import Predicted, predict_correctness
from probes.progress import Progress
from probes.prompts.sets import PromptSet
from probes.request import library_versions

__all__ = ["Prediction", "find_prediction", "keep_prediction", "predict_job", "predict_key", "prediction_document"]

_KIND = "correctness"
_VERSION = 2


@dataclass(frozen=True)
class Prediction:
    """A kept answer: ``document`` as :func:`prediction_document` writes it."""

    document: Mapping[str, Any]

    def table(self, name: str) -> pd.DataFrame:
        """``predictors``, ``gains``, ``shuffled`` or ``curves``; empty where there is none."""
        return pd.DataFrame(self.document[name])


def predict_key(model: str, prompts: PromptSet, chat: bool) -> Key:
    """What the desk knows a prediction by."""
    return "predict", model, prompts.set_id, chat


def predict_job(held: Services, model: str, prompts: PromptSet, chat: bool) -> Job:
    """Answer the set and predict, in the background; the job in flight if there is one."""

    def work(progress: Progress) -> None:
        bench = Bench(held.runner, held.shelf, model, prompts, progress, chat=chat)
        found = predict_correctness(bench)
        facts = bench.loaded().facts
        keep_prediction(held, facts, prompts, prediction_document(found, model, prompts, chat))

    return held.desk.submit(model, predict_key(model, prompts, chat), f"Predict {prompts.name} on {model}", work)


def keep_prediction(held: Services, facts: ModelFacts, prompts: PromptSet, document: Mapping[str, Any]) -> None:
    """Keep what was predicted of a set on a model, in place of what was kept before."""
    held.store.put_answer(_KIND, _content(prompts, document["chat"]), "", facts.fingerprint, document)


def find_prediction(held: Services, facts: ModelFacts, prompts: PromptSet, chat: bool) -> Prediction | None:
    """What was kept for a model and a set, read plain or as a chat, or None."""
    document = held.store.answer(_KIND, _content(prompts, chat), "", facts.fingerprint)
    return None if document is None else Prediction(document)


def prediction_document(found: Predicted, model: str, prompts: PromptSet, chat: bool) -> dict[str, Any]:
    """``{"model", "prompt_set", "chat", "of", "status", "n", "n_right", "n_tokens", "predictors": [...], "gains", "shuffled",
    "curves", "early", "prompts": [...]}``; ``n`` of ``of`` prompts with an answer were answered. Rows are empty where
    nothing was predicted."""
    document: dict[str, Any] = {
        "model": model, "prompt_set": prompts.name, "chat": chat,
        "of": sum(prompt.answer is not None for prompt in prompts.prompts), "status": found.status, "n": len(found.ids),
        "n_right": int(found.right.sum()), "n_tokens": found.n_tokens, "left_out": list(found.left_out),
        "predictors": [], "gains": [], "shuffled": [], "curves": [], "early": None,
        "prompts": [{"id": one, "right": bool(right)} for one, right in zip(found.ids, found.right, strict=True)],
    }  # fmt: skip
    if found.table is not None:
        table = found.table.table.assign(layers=[list(map(int, one)) for one in found.table.table["layers"]])
        layers = table.pop("layers").tolist()
        document["predictors"] = [row | {"layers": own} for row, own in zip(json_rows(table), layers, strict=True)]
        document["gains"] = json_rows(found.table.gains)
        document["shuffled"] = json_rows(found.table.shuffled)
        document["curves"] = json_rows(_curves(found))
    if found.early is not None and found.early.status == "ok":
        early = found.early
        numbers = pd.DataFrame(
            [{name: getattr(early, name) for name in ("detected", "median_windows", "false_alarms")}]
        )
        [document["early"]] = json_rows(numbers)
    return document


def _curves(found: Predicted) -> pd.DataFrame:
    """The ROC of each predictor with its band: ``name, fpr, tpr, low, high``."""
    assert found.table is not None
    parts = [
        pd.DataFrame({"name": name, "fpr": FPR, "tpr": one.roc.tpr, "low": one.roc.tpr_low, "high": one.roc.tpr_high})
        for name, one in found.table.predictions.items()
        if np.isfinite(one.roc.auc)
    ]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=["name", "fpr", "tpr", "low", "high"])


def _content(prompts: PromptSet, chat: bool) -> str:
    return digest({"prompts": prompts.set_id, "chat": chat, "version": _VERSION, "versions": library_versions()})
