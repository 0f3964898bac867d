"""Background work: one worker a model, progress, cancel. No streamlit: pages poll, and a closed browser stops nothing.

A :class:`Desk` lives as long as the server. The same key asked for twice while it is in flight is one job.
"""

import itertools
import logging
import threading
import time
from collections.abc import Callable, Hashable
from queue import SimpleQueue
from typing import Any, Literal

from cache import StoreError
from probes.errors import ModelRefused, NonFinite, PlanRefused
from probes.progress import Cancelled, Progress

__all__ = ["Desk", "Job", "sentence"]

log = logging.getLogger(__name__)

_EXPECTED = (ValueError, OSError, ModelRefused, NonFinite, PlanRefused, StoreError)

_numbers = itertools.count(1)

Key = tuple[Hashable, ...]
State = Literal["queued", "running", "done", "failed", "cancelled"]


class Job:
    """One piece of work and how far it is. All attributes may be read from any thread."""

    def __init__(self, key: Key, label: str) -> None:
        self.key = key
        self.number = next(_numbers)
        self.label = label
        self.state: State = "queued"
        self.fraction = 0.0
        self.what = "waiting for its turn"
        self.result: Any = None
        self.error: str | None = None
        self.seconds = 0.0
        self._started: float | None = None
        self._stop = threading.Event()
        self._over = threading.Event()

    @property
    def active(self) -> bool:
        """Whether it is still queued or running."""
        return not self._over.is_set()

    @property
    def eta(self) -> float | None:
        """Seconds it will still take at the pace so far; None while nothing can be said."""
        if self._started is None or not self.active or self.fraction < 0.05:
            return None
        spent = time.monotonic() - self._started
        return None if spent < 1.0 else spent / self.fraction * (1.0 - self.fraction)

    def cancel(self) -> None:
        """Ask the work to stop at its next step; a job that is still queued never starts."""
        self._stop.set()

    def wait(self, timeout: float | None = None) -> bool:
        """Block until it is over or ``timeout`` seconds have passed; whether it is over."""
        return self._over.wait(timeout)

    def run(self, work: Callable[[Progress], Any]) -> None:
        """Do the work in the calling thread (a worker of the desk) and record its end; raises nothing."""
        self._started = time.monotonic()
        try:
            progress = Progress(self._step, self._stop.is_set)
            progress.step(0.0, "starting")
            self.state = "running"
            self.result = work(progress)
            self.fraction, self.state = 1.0, "done"
        except Cancelled as stopped:
            self.error, self.state = str(stopped), "cancelled"
        except Exception as problem:
            self.error, self.state = sentence(problem), "failed"
            if not isinstance(problem, _EXPECTED):
                log.exception("job %r failed", self.label)
        finally:
            self.seconds = time.monotonic() - self._started
            self._over.set()

    def _step(self, fraction: float, what: str) -> None:
        self.fraction, self.what = fraction, what


Task = tuple[Job, Callable[[Progress], Any]]


def _serve(queue: "SimpleQueue[Task | None]") -> None:
    while (task := queue.get()) is not None:
        job, work = task
        job.run(work)


class Desk:
    """Takes work, runs it on one thread a model, and finds it again by its key, also after a rerun or a reload."""

    def __init__(self, keep: int = 64) -> None:
        self._keep = keep
        self._jobs: dict[Key, Job] = {}
        self._queues: dict[str, SimpleQueue[Task | None]] = {}
        self._workers: list[threading.Thread] = []
        self._lock = threading.Lock()

    def submit(self, model: str, key: Key, label: str, work: Callable[[Progress], Any]) -> Job:
        """The job under ``key``: the one in flight if there is one, else a new one in the queue of ``model``."""
        with self._lock:
            known = self._jobs.get(key)
            if known is not None and known.active:
                return known
            job = Job(key, label)
            self._jobs.pop(key, None)
            self._jobs[key] = job
            self._forget()
            self._queue(model).put((job, work))
            return job

    def get(self, key: Key) -> Job | None:
        """The latest job under ``key``, over or not."""
        with self._lock:
            return self._jobs.get(key)

    def active(self) -> tuple[Job, ...]:
        """Jobs not over yet, oldest first."""
        with self._lock:
            return tuple(job for job in self._jobs.values() if job.active)

    def done(self, kind: str) -> tuple[Job, ...]:
        """Jobs that ended well and whose key is a tuple that begins with ``kind``."""
        with self._lock:
            jobs = tuple(self._jobs.values())
        return tuple(job for job in jobs if job.state == "done" and job.key[0] == kind)

    def close(self, timeout: float = 3.0) -> None:
        """Cancel everything and wait up to ``timeout`` seconds in all for the workers; may be called twice."""
        with self._lock:
            workers, self._workers = self._workers, []
            queues, self._queues = self._queues, {}
            jobs = list(self._jobs.values())
        for job in jobs:
            job.cancel()
        for queue in queues.values():
            queue.put(None)
        until = time.monotonic() + timeout
        for worker in workers:
            worker.join(max(0.0, until - time.monotonic()))

    def _queue(self, model: str) -> "SimpleQueue[Task | None]":
        if model not in self._queues:
            queue = self._queues[model] = SimpleQueue()
            # A daemon: a forward pass that ignores its cancellation must not keep a stopped server alive.
            worker = threading.Thread(target=_serve, args=(queue,), name=f"work-{model}", daemon=True)
            self._workers.append(worker)
            worker.start()
        return self._queues[model]

    def _forget(self) -> None:
        over = [key for key, job in self._jobs.items() if not job.active]
        for key in over[: max(0, len(self._jobs) - self._keep)]:
            del self._jobs[key]


def sentence(problem: BaseException) -> str:
    """What went wrong, for a person: the message of an expected error; the kind of an unexpected one."""
    text = " ".join(str(problem).split())
    if isinstance(problem, MemoryError):
        return "There was not enough memory for this run; a shorter text or fewer views need less."
    if isinstance(problem, _EXPECTED) and text:
        return text if len(text) <= 600 else text[:599] + "…"
    return f"An unexpected {type(problem).__name__} stopped the work; the server's log has the details."
