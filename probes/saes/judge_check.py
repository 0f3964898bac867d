"""Whether a model can judge at all: its AUC on texts whose topic is known, and the refusal below .7 (core.md 7.6)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from analysis.roc import auc
from cache.keys import digest
from cache.store import Store
from probes.errors import BadRequest, ModelRefused
from probes.progress import Progress
from probes.saes.judge import DEMONSTRATIONS, REFERENCE, Judge

__all__ = ["LEAST_AUC", "JudgeCheck", "JudgeRefused", "check_judge", "known_texts", "stored_check"]

LEAST_AUC = 0.7
_KIND = "judge"
_VERSION = 1
_LEAST_LABELS = 5
_TEXTS = Path(__file__).parents[1] / "prompts" / "known_labels.jsonl"


@dataclass(frozen=True, slots=True)
class JudgeCheck:
    """How well a model judges: ``labels`` maps each known label to the AUC of its texts against those of all others."""

    model: str
    labels: Mapping[str, float]
    n_texts: int

    @property
    def auc(self) -> float:
        """The mean over labels."""
        return float(np.mean(list(self.labels.values())))

    @property
    def refusal(self) -> str | None:
        """Why no word may be tested with this judge; None if it is good enough."""
        if self.auc >= LEAST_AUC:
            return None
        return (
            f"Words cannot be tested here: the judge, {self.model}, tells texts on {len(self.labels)} known topics apart with "
            f"an AUC of {self.auc:.2f} ({self.n_texts} texts; chance is 0.50), and at least {LEAST_AUC:.2f} is needed."
        )


class JudgeRefused(ModelRefused):
    """The model tells known topics apart too badly to be asked for unknown ones (exit status 1); ``check`` says how badly."""

    def __init__(self, check: JudgeCheck) -> None:
        super().__init__(check.refusal)
        self.check = check


@cache
def known_texts() -> tuple[tuple[str, str], ...]:
    """Pairs of label and text, written for this project; no text holds a label."""
    rows = (json.loads(line) for line in _TEXTS.read_text(encoding="utf-8").splitlines())
    return tuple((row["label"], row["text"]) for row in rows)


def check_judge(judge: Judge, store: Store, progress: Progress | None = None) -> JudgeCheck:
    """Judge the known texts, or read from the store how it went before.

    Raises:
        JudgeRefused: the mean AUC is below .7.
        BadRequest: the tokenizer has fewer than five of the labels as a token of their own.
    """
    facts = judge.model.facts
    found = stored_check(store, facts.fingerprint, facts.name)
    if found is None:
        found = _measure(judge, progress or Progress())
        store.put_answer(_KIND, _judge_id(), "", facts.fingerprint, asdict(found))
    if found.refusal is not None:
        raise JudgeRefused(found)
    return found


def stored_check(store: Store, fingerprint: str, model: str) -> JudgeCheck | None:
    """What the store knows of the model of this fingerprint as a judge, asked as it would be now."""
    known: dict[str, Any] | None = store.answer(_KIND, _judge_id(), "", fingerprint)
    return None if known is None else JudgeCheck(model, known["labels"], known["n_texts"])


def _measure(judge: Judge, progress: Progress) -> JudgeCheck:
    pairs = known_texts()
    tokens = {label: judge.known(label) for label in dict.fromkeys(label for label, _ in pairs)}
    usable = {label: token for label, token in tokens.items() if token is not None}
    if len(usable) < _LEAST_LABELS:
        raise BadRequest(
            f"{judge.model.facts.name} cannot be asked for labels: {len(usable)} of the {len(tokens)} known topics are a token "
            f"of its tokenizer; {_LEAST_LABELS} are needed to check it."
        )
    texts = judge.read([judge.text_ids(text) for _, text in pairs], progress.part(0.0, 0.6))
    everyone = torch.arange(len(pairs))
    found = {}
    for number, (label, token) in enumerate(usable.items()):
        progress.step(0.6 + 0.4 * number / len(usable), f"judging known texts: {label}")
        with torch.no_grad():
            odds = judge.log_odds(texts, everyone, judge.embed([token])[0])
        found[label] = float(auc(odds.double().numpy(), np.array([own == label for own, _ in pairs])))
    return JudgeCheck(judge.model.facts.name, found, len(pairs))


def _judge_id() -> str:
    """What tells one way of asking and checking from another."""
    return digest([_VERSION, DEMONSTRATIONS, REFERENCE, known_texts()])
