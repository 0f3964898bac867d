"""A comparison of groups as one JSON document: what is missing is run first. No streamlit."""

import dataclasses
from typing import Any

import pandas as pd

from app.cli_sets import set_entry
from app.group_models import compared_models, in_model
from app.groups import GroupAsk, compared, matched_ask, matched_length, specified
from app.services import Services
from app.text import json_rows
from probes.progress import Progress
from probes.set_sweep import SetAsk, sweep_set

__all__ = ["group_document"]


def group_document(held: Services, ask: GroupAsk, length: str, other: str | None, progress: Progress) -> dict[str, Any]:
    """``{"compare": {...}, "layers": [rows], "conventions": [rows], "models": {...}}``; the last two where asked for.

    ``length`` is ``whole``, ``matched`` or a number of tokens. Raises what a sweep and a comparison raise.
    """
    models = [ask.asked.like.model, *([other] if other is not None else [])]
    parts = [progress.part(place / len(models), (place + 1) / len(models)) for place in range(len(models))]
    refused: dict[str, str] = {}
    for model, part in zip(models, parts, strict=True):
        asked = in_model(ask, model).asked
        refused |= _swept(held, asked, part.part(0.0, 0.6))
        if length != "whole":
            n = int(length) if length.isdecimal() else ask.n or matched_length(held, in_model(ask, model))
            ask = dataclasses.replace(ask, n=n)
            refused |= _swept(held, matched_ask(asked, ask.n), part.part(0.6, 1.0))
    comparison, _ = compared(held, ask)
    overall = comparison.overall.to_dict()
    document: dict[str, Any] = {
        "compare": {
            "prompt_set": set_entry(ask.asked.prompts), "model": ask.asked.like.model, "a": ask.first, "b": ask.second,
            "metric": ask.metric, "mask": ask.asked.like.mask, "chat": ask.asked.chat, "bos": ask.asked.bos,
            "tokens": ask.n or None, "n_layers": comparison.n_layers, "length_ratio": comparison.length_ratio,
            "exploratory": comparison.exploratory, "no_test_because": comparison.refusal, "overall": _row(overall),
            "refused": [{"id": one, "reason": why} for one, why in refused.items()],
        },
        "layers": json_rows(comparison.table),
    }  # fmt: skip
    if ask.n:
        found = specified(held, ask, None)
        document["compare"]["conventions"] = {
            "first_steeper": found.signs.steeper, "first_flatter": found.signs.flatter, "defined": found.signs.n_used,
            "same_sign": found.same_sign, "clear_same": found.clear_same, "clear_other": found.clear_other,
        }  # fmt: skip
        document["conventions"] = json_rows(found.table)
    if other is not None:
        document["models"] = _models(held, ask, other)
    return document


def _models(held: Services, ask: GroupAsk, other: str) -> dict[str, Any]:
    found = compared_models(held, ask, other)
    told: dict[str, Any] = {
        "b": other, "n_prompts": found.n_prompts, "by_layer": found.by_layer,
        "change": _row(found.change.overall.to_dict()), "layers": json_rows(found.change.table),
    }  # fmt: skip
    if found.turned is not None:
        told["reverses"] = found.turned.reverses
        told["interaction"] = _row(found.turned.interaction.overall.to_dict())
        told["reversal"] = json_rows(found.turned.table)
    return told


def _row(row: dict[str, Any]) -> dict[str, Any]:
    [one] = json_rows(pd.DataFrame([row]))
    return one


def _swept(held: Services, asked: SetAsk, progress: Progress) -> dict[str, str]:
    """Run what is missing of a set; why each prompt that could not be run was refused, by its id."""
    swept = sweep_set(held.runner, held.shelf, asked, progress)
    if len(swept.refused) == len(asked.prompts.prompts):
        raise next(iter(swept.refused.values()))
    return {asked.prompts.prompts[place].id: str(why) for place, why in swept.refused.items()}
