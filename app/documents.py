"""Runs as the command line writes them: ``{"run": {...}, "tokens": [rows], "<table>": [rows]}``."""

import dataclasses
import json
from typing import Any

import pandas as pd

from app.text import json_rows
from probes.run import RunInfo, RunResult

__all__ = ["run_document"]

_WHOLE = ("layer", "head", "pos", "source_pos", "birth", "death", "block")


def run_document(result: RunResult, session_id: str | None = None) -> dict[str, Any]:
    """A run with all its tables as plain values; what is missing is null."""
    document = {"run": _entry(result.info) | {"session_id": session_id}, "tokens": _rows(result.tokens)}
    return document | {name: _rows(result.table(name)) for name in result.table_names}


def _entry(info: RunInfo) -> dict[str, Any]:
    entry = {field.name: getattr(info, field.name) for field in dataclasses.fields(info)}
    return entry | {
        "versions": dict(info.versions),
        "notes": list(info.notes),
        "request": json.loads(info.request.as_json()),
    }


def _rows(frame: pd.DataFrame) -> list[dict[str, Any]]:
    whole = {name: "Int64" for name in _WHOLE if name in frame.columns}  # a column with gaps was read as floats
    return json_rows(frame.astype(whole))
