from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from cache import Store
from cache.saes import INDEX_TABLES

FLOATS = np.array([0.0, 1.5, 0.25], np.float32)


@pytest.fixture
def store() -> Iterator[Store]:
    with Store.open(":memory:") as opened:
        yield opened


def row(**changes: Any) -> dict[str, Any]:
    return {
        "sae": "tiny", "content": "c1", "fingerprint": "w1", "model": "m", "layer": 2, "corpus": "some text",
        "n_sequences": 2, "context": 4, "n_tokens": 6, "n_left_out": 1, "seed": 0, "params": {"top": 20}, **changes,
    }  # fmt: skip


def tables() -> dict[str, pd.DataFrame]:
    return {
        "sae_sequences": pd.DataFrame(
            {"seq": [1, 0], "source": "a", "name": "b", "token_ids": [np.array([5, 6, 7]), np.array([1, 2])]}
        ),
        "sae_latents": pd.DataFrame(
            {
                "latent": [0, 1], "n_fired": [2, 0], "density": [1 / 3, 0.0], "max": [1.5, np.nan], "mean": [0.9, np.nan],
                "histogram": [np.arange(32), np.zeros(32, int)], "encoder_cosine": [0.5, np.nan], "x": 0.0, "y": 0.0,
                "label": ["'; --", None], "precision": [1.0, np.nan], "recall": [0.5, np.nan],
            }
        ),
        "sae_hits": pd.DataFrame(
            {
                "latent": [0, 0], "kind": ["top", "quantile"], "rank": [1, 10], "seq": 1, "pos": 1, "activation": 1.5,
                "first": 0, "activations": [FLOATS, FLOATS],
            }
        ),
        "sae_latent_tokens": pd.DataFrame(
            {"latent": [0], "rank": [1], "token_id": [6], "mean_activation": [1.5], "n_fired": [1], "n_seen": [1]}
        ),
        "sae_neighbours": pd.DataFrame(
            {"latent": [1, 0], "kind": "decoder", "rank": [1, 1], "other": [0, 1], "value": [0.5, 0.5]}
        ),
    }  # fmt: skip


def test_an_index_is_read_back_sorted(tmp_path: Path) -> None:
    with Store.open(tmp_path / "s.duckdb") as store:
        key = store.put_sae_index(row(), tables())
    with Store.open(tmp_path / "s.duckdb") as store:
        assert store.verify() == ()
        found = store.sae_index("c1")
        assert found is not None
        assert (found["index_id"], found["params"], found["n_tokens"]) == (key, '{"top":20}', 6)
        sequences = store.sae_table(key, "sae_sequences")
        assert [ids.tolist() for ids in sequences["token_ids"]] == [[1, 2], [5, 6, 7]]
        latents = store.sae_table(key, "sae_latents")
        assert np.isnan(latents["max"][1])
        assert latents["label"][0] == "'; --"
        assert latents["label"].isna().tolist() == [False, True]
        assert latents["histogram"][0].tolist() == list(range(32))
        hits = store.sae_table(key, "sae_hits", 0)
        assert hits["kind"].tolist() == ["quantile", "top"]
        assert hits["activations"][0].tolist() == FLOATS.tolist()
        assert store.sae_table(key, "sae_neighbours")["latent"].tolist() == [0, 1]
        assert store.sae_table(key, "sae_neighbours", 1)["other"].tolist() == [0]
        assert store.sae_table("other", "sae_hits").empty


def test_the_newest_index_of_the_same_weights_and_model_is_found(store: Store) -> None:
    first = store.put_sae_index(row(), tables())
    second = store.put_sae_index(row(fingerprint="w2", corpus="more"), tables())
    newest = store.sae_index("c1")
    assert newest is not None
    assert newest["index_id"] == second
    old = store.sae_index("c1", "w1")
    assert old is not None
    assert old["index_id"] == first
    assert store.sae_index("c2") is None
    assert store.sae_index("c1", "w3") is None
    assert store.sae_indexes()["index_id"].tolist() == [second, first]


def test_the_same_index_again_replaces_its_rows(store: Store) -> None:
    first = store.put_sae_index(row(params='{"b": 1, "a": 2}'), tables())
    fewer = tables()
    fewer["sae_hits"] = fewer["sae_hits"].head(1)
    assert store.put_sae_index(row(params={"a": 2, "b": 1.0}), fewer) == first
    assert len(store.sae_table(first, "sae_hits")) == 1
    assert len(store.sae_table(first, "sae_latents")) == 2
    assert len(store.sae_indexes()) == 1
    assert store.drop_sae_index(first)
    assert not store.drop_sae_index(first)
    assert all(store.sae_table(first, name).empty for name in INDEX_TABLES)


def test_an_index_that_does_not_fit_writes_nothing(store: Store) -> None:
    wrong = tables()
    wrong["sae_latents"] = wrong["sae_latents"].assign(density=np.nan)
    with pytest.raises(ValueError, match="'density' of sae_latents has 2 missing"):
        store.put_sae_index(row(), wrong)
    with pytest.raises(ValueError, match="an index has the tables"):
        store.put_sae_index(row(), {"sae_hits": tables()["sae_hits"]})
    with pytest.raises(ValueError, match="lacks 'corpus'"):
        store.put_sae_index({name: value for name, value in row().items() if name != "corpus"}, tables())
    assert store.sae_indexes().empty
    with pytest.raises(ValueError, match="no table 'sessions'"):
        store.sae_table("x", "sessions")
    with pytest.raises(ValueError, match="not of a latent"):
        store.sae_table("x", "sae_sequences", 1)


def test_the_newest_label_wins_and_an_empty_one_removes(store: Store) -> None:
    store.put_sae_label("c1", 3, "rivers", "gradient", 0.9)
    store.put_sae_label("c1", 3, "  water ")
    store.put_sae_label("c1", 1, "dates", score=float("nan"))
    store.put_sae_label("c2", 1, "of another SAE")
    found = store.sae_label("c1")
    assert found[["latent", "label", "method"]].values.tolist() == [[1, "dates", "user"], [3, "water", "user"]]
    assert found["score"].isna().all()
    store.put_sae_label("c1", 3, "")
    assert store.sae_label("c1")["latent"].tolist() == [1]


@pytest.mark.parametrize(
    ("label", "latent", "said"),
    [("x" * 201, 0, "200 characters"), ("a\0b", 0, "no text"), ("\udc80", 0, "no text"), ("x", -1, "0 or more")],
)
def test_labels_that_do_not_fit_are_refused(store: Store, label: str, latent: int, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        store.put_sae_label("c1", latent, label)
    assert store.sae_label("c1").empty


def quality(**changes: Any) -> dict[str, Any]:
    return {
        "content": "c1", "sae": "tiny", "fingerprint": "w1", "model": "m", "corpus": "held out", "metric": "l0",
        "value": 32.0, "n_used": 100, "status": "ok", **changes,
    }  # fmt: skip


def test_quality_is_replaced_by_what_is_measured_anew(store: Store) -> None:
    store.put_sae_quality([quality(), quality(metric="ev", pos=1, value=0.5), quality(metric="ev", value=np.nan)])
    store.put_sae_quality([quality(value=31.0)])
    store.put_sae_quality([])
    found = store.sae_quality("c1")
    assert found["metric"].tolist() == ["ev", "ev", "l0"]
    assert found["pos"].isna().tolist() == [True, False, True]
    assert np.isnan(found["value"][0])
    assert found["value"].tolist()[1:] == [0.5, 31.0]
    with pytest.raises(ValueError, match="lacks the column 'content'"):
        store.put_sae_quality([{"sae": "tiny"}])
    assert store.sae_quality("c2").empty


def test_an_answer_takes_the_place_of_the_one_before(store: Store) -> None:
    store.put_answer("compare", "c1", "c2", "w1", {"r": 0.5})
    store.put_answer("compare", "c2", "c1", "w1", {"r": 0.25})
    store.put_answer("compare", "c1", "c2", "w2", {"r": 0.75})
    store.put_answer("absorption", "c1", "", "w1", {"says": "a\ud800\0"})
    store.put_answer("compare", "c1", "c2", "w1", {"r": None})
    assert store.answer("compare", "c1", "c2", "w1") == {"r": None}
    assert store.answer("compare", "c1", "c2", "w2") == {"r": 0.75}
    assert store.answer("absorption", "c1", "", "w1") == {"says": "a\ud800\0"}
    assert store.answer("absorption", "c2", "", "w1") is None
    found = store.answers("compare", "w1")
    assert list(zip(found["content"], found["about"], strict=True)) == [("c1", "c2"), ("c2", "c1")]
    assert store.answers("compare", "w3").empty
    with pytest.raises(ValueError, match="no JSON document"):
        store.put_answer("compare", "c1", "c2", "w1", {"r": np.nan})
    assert store.answer("compare", "c1", "c2", "w1") == {"r": None}


def test_people_may_query_the_tables_of_saes(store: Store) -> None:
    store.put_sae_index(row(), tables())
    asked = store.query("SELECT latent, len(activations) AS n FROM sae_hits ORDER BY kind", rows=10, seconds=5.0)
    assert asked.frame["n"].tolist() == [3, 3]
    asked = store.query("SELECT token_ids, histogram FROM sae_sequences, sae_latents", rows=10, seconds=5.0)
    assert len(asked.frame) == 4
