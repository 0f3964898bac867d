"""Progress and cancellation of long work, without knowing who watches."""

from collections.abc import Callable

__all__ = ["Cancelled", "Progress"]


class Cancelled(Exception):
    """The person who asked for the work no longer wants it; the message says what is left of it."""

    def __init__(self, says: str = "The run was cancelled; nothing of it was stored.") -> None:
        super().__init__(says)


class Progress:
    """Reports how far work is (a fraction from 0 to 1 and what is being done) and asks whether to go on.

    ``step`` raises :class:`Cancelled` when ``cancelled()`` is true, so work is cancelled between steps, never inside one.
    """

    def __init__(
        self,
        on_step: Callable[[float, str], None] | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> None:
        self._on_step = on_step
        self._cancelled = cancelled

    def step(self, fraction: float, what: str) -> None:
        if self._cancelled is not None and self._cancelled():
            raise Cancelled
        if self._on_step is not None:
            self._on_step(min(max(fraction, 0.0), 1.0), what)

    def part(self, start: float, end: float) -> "Progress":
        """The progress of one part of the work, mapped into ``start..end`` of the whole."""
        return Progress(lambda f, what: self.step(start + (end - start) * f, what), self._cancelled)
