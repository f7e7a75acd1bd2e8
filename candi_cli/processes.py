"""Processes that work for this one, and end with it; files that one process alone may hold."""

import contextlib
import errno
import fcntl
import os
import signal
import sys
import threading
from collections.abc import Iterator
from multiprocessing import parent_process, resource_tracker
from multiprocessing.connection import wait
from pathlib import Path
from types import FrameType
from typing import BinaryIO

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_A_MOMENT = 0.05  # seconds, after which the callback is over that dropped an exception
_received: list[int] = []  # signals that ask this process to end, since `ending_on_signals`


@contextlib.contextmanager
def ending_on_signals() -> Iterator[None]:
    """End the block by KeyboardInterrupt on SIGINT, by SystemExit(128 + its number) on SIGTERM and SIGHUP.

    Each is raised at once, and again by `heed_signals`: Python drops what is raised while it runs the callback of a
    weak reference or a `__del__`, and a library may make another error of it.
    """
    _received.clear()
    for number in _ENDING:
        if signal.getsignal(number) is not signal.SIG_IGN:  # as in the background of a shell
            signal.signal(number, _end)
    try:
        yield
    except Exception:
        heed_signals()
        raise


def heed_signals() -> None:
    """Raise what a signal that has come asks for; call it between two pieces of work."""
    if _received:
        raise _exception(_received[0])


def _end(number: int, _frame: FrameType | None) -> None:
    _received.append(number)
    raise _exception(number)


def _exception(number: int) -> BaseException:
    return KeyboardInterrupt() if number == signal.SIGINT else SystemExit(128 + number)


@contextlib.contextmanager
def interrupts_held() -> Iterator[None]:
    """Start processes that heed no interrupt from their first moment; one that comes meanwhile is raised afterwards."""
    resource_tracker.ensure_running()  # which would let interrupts through again when it starts
    held: list[int] = []
    handler = signal.signal(signal.SIGINT, lambda number, _frame: held.append(number))  # other threads may get it
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # the processes inherit this
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        signal.signal(signal.SIGINT, handler)
    if held:
        raise KeyboardInterrupt


def serve() -> None:
    """Make this process one that works for its parent: deaf to interrupts, and ended with the parent."""
    sys.unraisablehook = _leave_again
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the parent hears it too and ends this process
    signal.signal(signal.SIGTERM, _leave)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os.kill(os.getpid(), signal.SIGTERM)


def _leave(_signal: int, _frame: FrameType | None) -> None:
    raise SystemExit(1)  # so that temporary files go


def _leave_again(dropped: "sys.UnraisableHookArgs") -> None:
    """Ask again to end where Python dropped what `_leave` raised, in the callback of a weak reference or of C code."""
    if isinstance(dropped.exc_value, SystemExit):
        again = threading.Timer(_A_MOMENT, os.kill, (os.getpid(), signal.SIGTERM))
        again.daemon = True
        again.start()
    else:
        sys.__unraisablehook__(dropped)


def locked(path: Path) -> BinaryIO | None:
    """Return an open file that this process alone has locked, None when another has."""
    while True:
        handle = path.open("ab")
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            handle.close()
            return None
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.EOPNOTSUPP):  # a file system without locks
                handle.close()
                raise
        with contextlib.suppress(FileNotFoundError):
            if os.fstat(handle.fileno()).st_ino == path.stat().st_ino:
                return handle
        handle.close()  # the one who held it has removed it: lock the new one
        path.parent.mkdir(exist_ok=True)
