"""Fault 9: threads that put and get the same keys. 8 threads and 60 turns here; the long form takes 16 and 1,000."""

import random
import threading
from pathlib import Path

import pandas as pd
import torch

from cache import Store, TensorAbsent
from tests.cache.rows import capture, run, tables

THREADS = 8
TURNS = 60
KEYS = 50


def value_of(key: int) -> torch.Tensor:
    return torch.full((1000 + key,), float(key))


def test_eight_threads_on_fifty_keys_always_read_what_was_put(tmp_path: Path) -> None:
    surprises: list[str] = []
    read = [0] * THREADS

    def work(store: Store, thread: int) -> None:
        dice = random.Random(thread)
        try:
            for _ in range(TURNS):
                key = dice.randrange(KEYS)
                try:
                    assert torch.equal(store.tensor(f"c{key}", "x"), value_of(key))
                    read[thread] += 1
                except TensorAbsent:
                    store.put_tensors({(f"c{key}", "x"): value_of(key)})
        except BaseException as error:
            surprises.append(repr(error))

    with Store.open(tmp_path / "store.duckdb") as store:
        threads = [threading.Thread(target=work, args=(store, thread)) for thread in range(THREADS)]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
        assert surprises == []
        assert sum(read) > THREADS * TURNS / 2
        assert store.info()["tensors"] <= KEYS


def test_one_run_written_by_eight_threads_at_once_is_there_once(tmp_path: Path) -> None:
    new: list[bool] = []

    def work(store: Store) -> None:
        new.append(store.write_run(run(), tables(), {}, capture()))

    with Store.open(tmp_path / "store.duckdb") as store:
        threads = [threading.Thread(target=work, args=(store,)) for _ in range(THREADS)]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
        assert sorted(new) == [False] * (THREADS - 1) + [True]
        assert store.runs()["run_id"].tolist() == ["r0"]
        pd.testing.assert_frame_equal(store.table("r0", "spectra"), tables()["spectra"], check_exact=True)
