"""How much memory a piece of work took at its peak, and handing back what it no longer uses."""

from __future__ import annotations

import ctypes
import sys
import threading
from types import TracebackType

import psutil
import torch

__all__ = ["PeakMemory", "release"]

_INTERVAL = 0.02
_trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None


def release() -> None:
    """Hand freed memory back to the system now.

    Tensors of a few megabytes come from the heap, and glibc keeps the gaps they leave: a long prompt would hold three
    times what it uses. Does nothing where the C library is another.
    """
    if _trim is not None:
        _trim(0)


class PeakMemory:
    """Samples the process while the block runs; ``bytes`` is the peak above the start, on the GPU if that is used."""

    def __init__(self, device: str) -> None:
        self._cuda = device == "cuda"
        self._process = psutil.Process()
        self._stop = threading.Event()
        self.bytes = 0

    def __enter__(self) -> PeakMemory:
        if self._cuda:
            torch.cuda.reset_peak_memory_stats()
            self._start = torch.cuda.memory_allocated()
        else:
            self._start = self._process.memory_info().rss
            self._thread = threading.Thread(target=self._sample, daemon=True)
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._cuda:
            self.bytes = torch.cuda.max_memory_allocated() - self._start
        else:
            self._stop.set()
            self._thread.join()

    def _sample(self) -> None:
        while True:
            self.bytes = max(self.bytes, self._process.memory_info().rss - self._start)
            if self._stop.wait(_INTERVAL):
                return
