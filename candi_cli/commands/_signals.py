"""Signals that ask a training to stop: noted, so that the step and the checkpoint are finished first."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

PARENT = "CANDI_PARENT"  # the process that started this one, and without which it has no purpose
STOPPING = (signal.SIGTERM, signal.SIGUSR1)


class Stop:
    """Whether the process was asked to stop, and the exit code that says by what."""

    def __init__(self) -> None:
        self._signal: int | None = None
        self._parent = os.environ.get(PARENT)

    def note(self, number: int, _frame: FrameType | None = None) -> None:
        """Remember a signal."""
        self._signal = number

    def __call__(self) -> bool:
        """Return whether to stop: a signal came, or the process that started this one is gone."""
        return self._signal is not None or (self._parent is not None and int(self._parent) != os.getppid())

    @property
    def exit_code(self) -> int:
        """128 and the signal's number, as shells report it; another process's signal counts as SIGTERM."""
        return 128 + (self._signal or signal.SIGTERM)


@contextmanager
def noted(*, until_exit: bool = False) -> Iterator[Stop]:
    """Note SIGTERM and SIGUSR1 instead of ending at once.

    Parameters
    ----------
    until_exit : do so for good, as the process ends with the block: what ends it may send them when it is about to
    """
    stop = Stop()
    before = {number: signal.signal(number, stop.note) for number in STOPPING}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, stop.note if until_exit else handler)
