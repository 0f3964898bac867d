"""Bundles of unknown origin: a run that could not be opened is refused in a sentence, before anything is stored."""

import dataclasses
import json
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest

from app.bundles import check_runs
from cache.bundle_format import BundleRefused
from probes.request import ProbeCall, RunRequest
from tests.app.fakes import FACTS

TOKENS = [(2, 5), (0, 3), (1, 4)]


def bundle(request: Any = None, facts: Any = None, tokens: Any = None) -> Any:
    """The tables of a bundle that are looked at, with parts of the request and the facts changed."""
    asked = json.loads(RunRequest("tiny", (3, 4, 5), (ProbeCall("tokens"),)).as_json()) | (request or {})
    known = dataclasses.asdict(FACTS) | (facts or {})
    positions, ids = zip(*(tokens or TOKENS), strict=True)
    tables = {
        "captures": {"capture_id": ["c"], "facts": [json.dumps(known)]},
        "tokens": {"capture_id": ["c"] * len(ids), "pos": positions, "token_id": ids},
        "runs": {"run_id": ["r"], "capture_id": ["c"], "n_tokens": [3], "request": [json.dumps(asked)]},
    }
    return SimpleNamespace(tables={name: pa.table(columns) for name, columns in tables.items()})


def test_a_run_as_this_program_writes_it_is_taken() -> None:
    check_runs(bundle())


@pytest.mark.parametrize(
    "changed",
    [
        {"request": {"probes": 5}}, {"request": {"probes": [{"name": "nope", "params": {}}]}}, {"request": {"x": 1}},
        {"request": {"probes": [{"name": [], "params": {}}]}}, {"request": {"token_ids": 3}}, {"request": {"model": 5}},
        {"request": {"edits": [5]}}, {"request": {"dtype": []}}, {"facts": {"n_layers": "6"}}, {"facts": {"softcap": []}},
        {"facts": {"more": 1}}, {"tokens": [(0, 3)]}, {"tokens": [(0, 3), (0, 3), (1, 4)]}, {"request": {"token_ids": [3]}},
    ],
)  # fmt: skip
def test_what_could_not_be_opened_is_refused(changed: dict[str, Any]) -> None:
    with pytest.raises(BundleRefused, match=r"^The run r of the bundle cannot be opened: .*\.$"):
        check_runs(bundle(**changed))
