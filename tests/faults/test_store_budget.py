"""Fault 8: the byte budget under inserts from 8 threads. 200 inserts here; the long form makes 10,000."""

import threading
from pathlib import Path

import torch

from cache import Store, TensorAbsent

THREADS = 8
EACH = 25
BUDGET = 2_000_000


def value_of(owner: str) -> torch.Tensor:
    generator = torch.Generator().manual_seed(int(owner.replace("-", "0")))
    return torch.randn(int(torch.randint(100, 40_000, (), generator=generator)), generator=generator)


def test_tensors_never_exceed_the_budget_and_are_never_wrong(tmp_path: Path) -> None:
    path = tmp_path / "store.duckdb"
    too_much: list[int] = []
    surprises: list[str] = []

    def work(store: Store, thread: int) -> None:
        wrong = 0
        try:
            for index in range(EACH):
                owner = f"{thread}-{index}"
                store.put_tensors({(owner, "x"): value_of(owner)})
                too_much.extend(held for held in (int(store.info()["tensor_bytes"]),) if held > BUDGET)
                earlier = f"{(thread + 1) % THREADS}-{index // 2}"
                try:
                    wrong += not torch.equal(store.tensor(earlier, "x"), value_of(earlier))
                except TensorAbsent as absent:
                    wrong += absent.reason != "missing"
        except BaseException as error:
            surprises.append(repr(error))
        if wrong:
            surprises.append(f"{wrong} tensors were wrong or damaged")

    with Store.open(path, byte_budget=BUDGET) as store:
        threads = [threading.Thread(target=work, args=(store, thread)) for thread in range(THREADS)]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
        assert surprises == []
        assert too_much == []
        info = store.info()
        assert BUDGET / 2 < int(info["tensor_bytes"]) <= BUDGET
        assert int(info["file_bytes"]) < 4 * BUDGET
        assert store.verify() == ()
