import threading
import time
from collections.abc import Iterator

import pytest
import torch

from probes.parallel import in_parallel, n_workers


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_results_come_in_order_from_single_threaded_workers() -> None:
    def work(i: int) -> tuple[int, int, str]:
        return i, torch.get_num_threads(), threading.current_thread().name

    done = list(in_parallel(work, range(20)))
    assert [i for i, _, _ in done] == list(range(20))
    assert {threads for _, threads, _ in done} == {1}
    assert threading.current_thread().name not in {name for _, _, name in done}


def test_at_most_four_at_a_time() -> None:
    assert n_workers() == 2
    torch.set_num_threads(64)
    assert n_workers() == 4


def test_torch_keeps_its_threads_here_and_in_threads_that_start_later() -> None:
    list(in_parallel(abs, [1, 2]))
    later: list[int] = []
    thread = threading.Thread(target=lambda: later.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert (torch.get_num_threads(), later) == (2, [2])


def test_an_exception_cancels_what_has_not_begun() -> None:
    begun = []

    def work(i: int) -> int:
        begun.append(i)
        if i == 1:
            raise ArithmeticError("no")
        time.sleep(0.01)  # 1,000 of these take seconds
        return i

    with pytest.raises(ArithmeticError, match="no"):
        list(in_parallel(work, range(1000)))
    assert len(begun) < 1000


def test_whoever_takes_results_may_stop() -> None:
    begun = []

    def work(i: int) -> None:
        begun.append(i)
        time.sleep(0.01)

    results = in_parallel(work, range(1000))
    next(results)
    results.close()
    assert len(begun) < 1000
    assert torch.get_num_threads() == 2
