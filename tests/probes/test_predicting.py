"""Correctness predicted on a tiny model: features stand before the answer, controls beside them, refusals with a reason."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from cache.store import Store
from probes.claims.bench import Bench
from probes.errors import BadRequest
from probes.model.loaded import LoadedModel
from probes.model.shelf import Shelf
from probes.predicting import ALPHA, STREAM, TRAJECTORY, predict_correctness
from probes.progress import Progress
from probes.prompts.sets import Prompt, PromptSet
from probes.runner import Runner
from probes.saes.judge_check import known_texts
from tests import tiny_words

N = 56


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    return tiny_words.loaded()


def bench(model: LoadedModel, store: Store, answers: list[str | None]) -> Bench:
    shelf = Shelf()
    shelf.put(model)
    texts = [f"{text} {place}" for place, (_, text) in zip(range(N), known_texts() * 9, strict=False)]
    prompts = tuple(
        Prompt(f"p{place}", f"{text}", None, "ab"[place % 2], answer, None)
        for place, (text, answer) in enumerate(zip(texts, answers, strict=True))
    )
    return Bench(Runner(store, shelf), shelf, model.facts.name, PromptSet("own", "own", prompts), Progress())


def written(model: LoadedModel, store: Store) -> list[str]:
    """The first word of every response with one."""
    found = bench(model, store, ["zzz"] * N).responses()
    return [one.text.split()[0] for one in found]


def test_right_answers_are_predicted_beside_baselines_and_shuffles(
    model: LoadedModel, store: Store, empty_home: Path
) -> None:
    words = written(model, store)
    assert len(words) == N
    right = np.arange(N) % 4 == 0
    found = predict_correctness(bench(model, store, [w if r else "zzz" for w, r in zip(words, right, strict=True)]))
    assert found.status == "ok"
    np.testing.assert_array_equal(found.right, right)
    assert found.table is not None
    rows = found.table.table.set_index("name")
    assert {ALPHA, TRAJECTORY} <= set(rows.index)
    assert STREAM in found.left_out, "no window of 32 tokens stands before these answers"
    assert found.early is None
    assert rows.loc["tokens", "baseline"]
    assert rows.loc["loss at the output", "baseline"]
    assert rows.loc[ALPHA, "low"] <= rows.loc[ALPHA, "auc"] <= rows.loc[ALPHA, "high"]
    assert set(found.table.shuffled["name"]) == set(rows.index[~rows["baseline"].astype(bool)])
    again = dataclasses.replace(
        bench(model, store, [w if r else "zzz" for w, r in zip(words, right, strict=True)]), shuffled=True
    )
    moved = predict_correctness(again)
    assert moved.right.sum() == right.sum()
    assert not np.array_equal(moved.right, right), "the control permutes which answer is right"

    one_class = predict_correctness(bench(model, store, ["zzz"] * N))
    assert (one_class.status, one_class.table, one_class.early) == ("single_class", None, None)


def test_a_set_without_answers_is_refused(model: LoadedModel, store: Store) -> None:
    with pytest.raises(BadRequest, match="No prompt of own has an answer"):
        predict_correctness(bench(model, store, [None] * N))
