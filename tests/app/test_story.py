"""The story: planned from a run's own tables, told from stored passes, nothing known beforehand."""

from collections.abc import Iterator

import pandas as pd
import pytest

from app.services import Services
from app.story import damage, largest_birth, make_plan, missing, submit, traced
from app.story_text import born, damaged, position_not_token, sinks_begin, written
from cache.store import Store
from probes.model.catalog import EMBEDDED
from probes.model.shelf import Shelf
from probes.model.tokenise import text_ids
from probes.prompts import examples
from probes.request import ProbeCall, RunRequest
from probes.runner import Runner, RunResult
from tests import tiny

pytestmark = pytest.mark.model


@pytest.fixture(scope="module")
def held(shelf: Shelf) -> Iterator[Services]:
    store = Store.open(":memory:")
    made = Services(store, shelf, Runner(store, shelf))
    yield made
    made.close()


@pytest.fixture(scope="module")
def clean(held: Services) -> RunResult:
    calls = (ProbeCall("tokens"), ProbeCall("sinks"), ProbeCall("massive"))
    ids = text_ids(held.shelf.get(EMBEDDED), examples()[0].text[:400])
    return held.runner.run(RunRequest(EMBEDDED, ids, calls))


def test_the_story_of_the_embedded_model_is_found_planned_and_told(held: Services, clean: RunResult) -> None:
    birth = largest_birth(clean)
    assert birth is not None
    assert (birth.position, birth.dim, birth.birth) == (0, 507, 12)
    assert birth.writers()["neuron"].tolist() == [1229, 1487]
    assert birth.mlp == pytest.approx(24881.6, rel=0.01)
    plan = make_plan(held, clean, birth)
    assert plan.points == (12, 18, 24)
    assert len(plan.traces) == 5
    assert plan.skipped == ()
    assert missing(held, plan) == len({run for run, _ in plan.requests()})
    job = submit(held, plan)
    assert job.wait(600)
    assert job.error is None
    assert missing(held, plan) == 0

    table = damage(held, plan)
    targets = table[table["role"] == "target"].set_index("changed")["perplexity"]
    controls = table.loc[table["role"] == "control", "perplexity"]
    clean_perplexity = table["perplexity"].iloc[0]
    assert targets["point 12: entry to zero"] > 100 * controls.max()
    assert targets["point 12: entry to its mean"] == pytest.approx(clean_perplexity, rel=0.01)
    assert controls.max() < 1.5 * clean_perplexity
    rows = traced(held, plan)
    at_birth = rows[(rows["layer"] == 12) & (rows["pos"] == 0)]
    assert len(at_birth) == 5
    assert (at_birth["value"] > 20_000).all(), "whatever token comes first"
    later = rows[(rows["layer"] == 12) & (rows["pos"] > 0)]
    assert (later["value"].abs() < 1_000).all(), "and not the same token later"

    tokens = tuple(clean.tokens["text"])
    told = [born(clean, birth, tokens), written(birth), sinks_begin(clean, birth)]
    told += [damaged(table, plan), position_not_token(rows, birth)]
    assert f"{31 * len(tokens) * 576:,} numbers" in told[0]
    assert "1229" in told[1]
    heads = clean.table("head_metrics")
    first = int(heads.loc[(heads["metric"] == "is_sink") & (heads["value"] == 1), "layer"].min())
    assert f"are in block {first}, {11 - first} blocks before the one that writes it" in told[2]
    assert f"{targets['point 12: entry to zero']:,.0f} at point 12" in told[3]
    assert "later in the chat" in told[4]


def test_a_model_without_massive_entries_has_no_story() -> None:
    shelf = Shelf()
    shelf.put(tiny.loaded("llama"))
    ids = text_ids(shelf.get("tiny-llama"), tiny.TEXT)
    result = Runner(Store.open(":memory:"), shelf).run(RunRequest("tiny-llama", ids, (ProbeCall("massive"),)))
    assert largest_birth(result) is None


def test_no_sinks_are_told_as_none(clean: RunResult) -> None:
    birth = largest_birth(clean)
    assert birth is not None

    class Without:
        def table(self, name: str) -> pd.DataFrame:
            rows = clean.table(name)
            return rows.assign(value=0.0) if name == "layer_metrics" else rows

    assert sinks_begin(Without(), birth).startswith("No head")  # type: ignore[arg-type]
