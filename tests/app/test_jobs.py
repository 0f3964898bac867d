"""Background work: one worker a model, one job a key, progress, cancel, and an end that is always told."""

import threading
import time

import pytest

from app.jobs import Desk, Job, sentence
from probes.errors import BadRequest, ModelRefused
from probes.progress import Progress


@pytest.fixture
def desk():
    made = Desk(keep=4)
    yield made
    made.close()


def test_a_job_ends_with_its_result_and_full_progress(desk: Desk) -> None:
    job = desk.submit("m", ("k",), "adding", lambda progress: (progress.step(0.5, "half"), 41 + 1)[1])
    assert job.wait(5)
    assert (job.state, job.result, job.fraction, job.error, job.what) == ("done", 42, 1.0, None, "half")
    assert not job.active
    assert desk.get(("k",)) is job


def test_the_same_key_in_flight_is_one_job_and_afterwards_a_new_one(desk: Desk) -> None:
    gate, runs = threading.Event(), []

    def work(progress: Progress) -> None:
        runs.append(1)
        gate.wait(5)

    first = desk.submit("m", ("k",), "w", work)
    assert desk.submit("m", ("k",), "w", work) is first
    gate.set()
    first.wait(5)
    again = desk.submit("m", ("k",), "w", work)
    assert again is not first
    again.wait(5)
    assert len(runs) == 2


def test_one_model_works_in_order_and_another_does_not_wait(desk: Desk) -> None:
    gate = threading.Event()
    slow = desk.submit("a", (1,), "slow", lambda progress: gate.wait(5))
    queued = desk.submit("a", (2,), "queued", lambda progress: None)
    other = desk.submit("b", (3,), "other", lambda progress: None)
    assert other.wait(5)
    assert queued.state == "queued"
    assert set(desk.active()) == {slow, queued}
    gate.set()
    assert queued.wait(5)


def test_cancel_stops_at_the_next_step_and_a_queued_job_never_starts(desk: Desk) -> None:
    started, ran = threading.Event(), []

    def endless(progress: Progress) -> None:
        started.set()
        while True:
            progress.step(0.1, "on and on")
            time.sleep(0.001)

    running = desk.submit("m", (1,), "endless", endless)
    queued = desk.submit("m", (2,), "queued", lambda progress: ran.append(1))
    assert started.wait(5)
    queued.cancel()
    running.cancel()
    assert running.wait(5)
    assert queued.wait(5)
    assert (running.state, queued.state, ran) == ("cancelled", "cancelled", [])
    assert running.error == "The run was cancelled; nothing of it was stored."


@pytest.mark.parametrize(
    ("problem", "told"),
    [
        (BadRequest("The text is empty."), "The text is empty."),
        (ModelRefused("it failed\nits check"), "it failed its check"),
        (MemoryError(), "There was not enough memory for this run; a shorter text or fewer views need less."),
        (KeyError("secret"), "An unexpected KeyError stopped the work; the server's log has the details."),
        (ValueError(""), "An unexpected ValueError stopped the work; the server's log has the details."),
    ],
)
def test_a_failure_is_one_sentence(desk: Desk, problem: Exception, told: str) -> None:
    def fail(progress: Progress) -> None:
        raise problem

    job = desk.submit("m", ("k",), "failing", fail)
    assert job.wait(5)
    assert (job.state, job.error) == ("failed", told)
    assert desk.submit("m", ("next",), "after", lambda progress: 1).wait(5), "the worker must survive a failure"


def test_a_long_message_is_cut() -> None:
    assert len(sentence(ValueError("x" * 5000))) == 600


def test_eta_needs_a_second_and_a_twentieth(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("app.jobs.time.monotonic", lambda: now[0])
    job, seen = Job(("k",), "w"), []

    def work(progress: Progress) -> None:
        for at, fraction in ((0.5, 0.5), (2.0, 0.01), (2.0, 0.25)):
            now[0] = at
            progress.step(fraction, "x")
            seen.append(job.eta)

    job.run(work)
    assert seen == [None, None, 6.0]
    assert job.eta is None


def test_old_jobs_are_forgotten_but_never_active_ones(desk: Desk) -> None:
    gate = threading.Event()
    held = desk.submit("slow", ("held",), "w", lambda progress: gate.wait(5))
    for number in range(10):
        desk.submit("m", (number,), "w", lambda progress: None).wait(5)
    assert desk.get((0,)) is None
    assert desk.get((9,)) is not None
    assert desk.get(("held",)) is held
    gate.set()


def test_close_cancels_and_may_be_called_twice() -> None:
    desk = Desk()

    def endless(progress: Progress) -> None:
        while True:
            progress.step(0.0, "x")
            time.sleep(0.001)

    job = desk.submit("m", (1,), "endless", endless)
    desk.close()
    desk.close()
    assert job.state == "cancelled"


def test_close_does_not_wait_for_work_that_ignores_it() -> None:
    desk, started, gate = Desk(), threading.Event(), threading.Event()
    job = desk.submit("m", (1,), "deaf", lambda progress: (started.set(), gate.wait(10)))
    assert started.wait(5)
    desk.close(timeout=0.01)
    assert job.active
    gate.set()
    assert job.wait(5)
