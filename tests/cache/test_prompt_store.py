"""Imported prompt sets in the store, and what is asked of many runs at once."""

import math
from collections.abc import Iterator

import pandas as pd
import pytest

from cache import Store
from cache.query import QueryRefused
from tests.cache.rows import capture, run, tables

PROMPTS = pd.DataFrame(
    {
        "prompt_id": ["b", "a", "c"],
        "grp": ["right", None, "left"],
        "text": ["'; DROP TABLE prompts; --", None, "x"],
        "messages": [None, '[{"role": "user", "content": "hi"}]', None],
        "answer": [None, "4", None],
        "response": [None, None, "long ago"],
    }
)


@pytest.fixture
def store() -> Iterator[Store]:
    with Store.open(":memory:") as opened:
        yield opened


def test_prompts_come_back_in_their_order_with_what_is_missing_missing(store: Store) -> None:
    store.put_prompt_set("s0", "mine", "mine.jsonl", PROMPTS)
    found = store.prompts("s0")
    assert found.to_dict("records") == PROMPTS.astype(object).where(PROMPTS.notna(), None).to_dict("records")
    sets = store.prompt_sets()
    assert sets[["set_id", "name", "source"]].values.tolist() == [["s0", "mine", "mine.jsonl"]]
    assert store.prompts("s1").empty


def test_a_set_that_does_not_fit_leaves_nothing(store: Store) -> None:
    with pytest.raises(ValueError, match="prompt_id"):
        store.put_prompt_set("s0", "mine", "mine.jsonl", PROMPTS.assign(prompt_id=None))
    with pytest.raises(ValueError, match="lacks the column 'answer'"):
        store.put_prompt_set("s0", "mine", "mine.jsonl", PROMPTS.drop(columns="answer"))
    assert store.prompt_sets().empty
    assert store.prompts("s0").empty


def test_a_name_stands_for_one_set_until_it_is_dropped(store: Store) -> None:
    store.put_prompt_set("s0", "mine", "mine.jsonl", PROMPTS)
    store.put_prompt_set("s0", "mine", "mine.jsonl", PROMPTS)
    assert len(store.prompts("s0")) == 3
    with pytest.raises(ValueError, match="prompt set 'mine' with other prompts"):
        store.put_prompt_set("s1", "mine", "other.jsonl", PROMPTS)
    assert store.prompts("s1").empty
    store.drop_prompt_set("s0")
    assert store.prompts("s0").empty
    store.put_prompt_set("s1", "mine", "other.jsonl", PROMPTS)
    assert store.prompt_sets()["set_id"].tolist() == ["s1"]


def test_sets_can_be_read_by_a_query_and_not_written(store: Store) -> None:
    store.put_prompt_set("s0", "mine", "mine.jsonl", PROMPTS)
    sql = (
        "SELECT s.name, p.grp, count(*) AS n FROM prompts p JOIN prompt_sets s USING (set_id) GROUP BY ALL ORDER BY grp"
    )
    found = store.query(sql, rows=10, seconds=5.0).frame
    assert found["grp"].tolist()[:2] == ["left", "right"]
    with pytest.raises(QueryRefused):
        store.query("DELETE FROM prompts", rows=10, seconds=5.0)


def test_what_is_known_of_many_runs_at_once(store: Store) -> None:
    nll = pd.DataFrame({"layer": [None] * 3, "pos": [0, 1, 2], "metric": "nll", "value": [math.nan, 1.0, 4.0]})
    scored = nll.assign(n_used=1, status="ok").astype({"layer": "Int64"})
    store.write_run(run("r0"), {"tokens": tables()["tokens"], "token_metrics": scored}, {}, capture())
    store.write_run(run("r1"), {}, {}, capture())
    assert store.known_runs(["r1", "r0", "r9"]) == {"r0", "r1"}
    assert store.known_runs([]) == frozenset()
    assert store.losses(["r0", "r1", "r9"]).values.tolist() == [["r0", 2.5, 2]]
    assert store.losses([]).empty
    assert store.facts_of("tiny", "float32") == {"name": "tiny", "n_layers": 2}
    assert store.facts_of("tiny", "float16") is None
    assert store.facts_of("other", "float32") is None
