"""`--nproc`: the same command in several processes on this machine; when one fails, all end."""

import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from candi_cli.commands._console import console
from candi_cli.commands._signals import PARENT, STOPPING

GRACE_SECONDS = 10.0  # between asking the others to end and ending them
_LOOPBACK = {"linux": "lo", "darwin": "lo0"}


def joining() -> bool:
    """Return whether this process was started as one of several, by `launch`, torchrun or a scheduler."""
    return "RANK" in os.environ


def launch(arguments: Sequence[str], n_processes: int) -> int:
    """Run `candi ARGUMENTS` in several processes that find each other; return the exit code.

    The first process speaks. Signals to this process go to all of them. When one fails, the others are ended, and
    what that one said is shown.
    """
    with tempfile.TemporaryDirectory(prefix="candi-") as folder:
        group = _Group(arguments, n_processes, Path(folder))
        numbers = (*STOPPING, signal.SIGINT)
        before = {number: signal.signal(number, group.forward) for number in numbers}
        try:
            return group.wait()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            group.end(signal.SIGKILL)


class _Group:
    def __init__(self, arguments: Sequence[str], n_processes: int, folder: Path) -> None:
        shared = {
            "WORLD_SIZE": str(n_processes), "LOCAL_WORLD_SIZE": str(n_processes), PARENT: str(os.getpid()),
            "CANDI_RENDEZVOUS": str(folder / "rendezvous"),
        }  # fmt: skip
        if sys.platform in _LOOPBACK:
            shared["GLOO_SOCKET_IFNAME"] = _LOOPBACK[sys.platform]
        self.said = [folder / f"stderr.{rank}" for rank in range(n_processes)]
        self.ended: queue.Queue[int] = queue.Queue()
        self.asked: int | None = None
        self.processes = []
        for rank, said in enumerate(self.said):
            environment = {**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}
            with said.open("w") as file:
                process = subprocess.Popen(
                    [sys.executable, "-m", "candi_cli", *arguments],
                    env=environment, stderr=file if rank else None, process_group=0,
                )  # fmt: skip
            self.processes.append(process)
            threading.Thread(target=self._watch, args=(rank,), daemon=True).start()

    def _watch(self, rank: int) -> None:
        self.processes[rank].wait()
        self.ended.put(rank)

    def forward(self, number: int, _frame: FrameType | None) -> None:
        """Hand a signal on to all processes."""
        self.asked = number
        self.end(number)

    def end(self, number: int) -> None:
        """Send a signal to the processes that run."""
        for process in self.processes:
            if process.poll() is None:
                process.send_signal(number)

    def wait(self) -> int:
        """Return the exit code of the first that failed, once all have ended; 0 when none did."""
        failed, timeout = 0, None
        for _ in self.processes:
            while True:
                try:
                    rank = self.ended.get(timeout=timeout or 0.2)
                    break
                except queue.Empty:
                    if timeout is not None:
                        self.end(signal.SIGKILL)
            code = self.processes[rank].returncode
            if code and not failed:
                failed = code if code > 0 else 128 - code
                if self.asked is None:  # a failure: processes that were asked to stop take their time to save
                    self._tell(rank, code)
                    self.end(signal.SIGTERM)
                    timeout = GRACE_SECONDS
        return failed

    def _tell(self, rank: int, code: int) -> None:
        """Say what a process said; the first one was heard already."""
        if code < 0:
            console.error(f"process {rank + 1} of {len(self.processes)} was ended by {signal.Signals(-code).name}")
        elif rank:
            sys.stderr.write(self.said[rank].read_text(encoding="utf-8", errors="replace"))
