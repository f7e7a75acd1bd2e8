"""Many experiments into one store: counted side by side, kept when the run is interrupted, put together in order.

Each experiment becomes a store of its own in the folder `.STORE.parts` beside the store. A run that finds there what
it would make, of the same files, does not make it again. The folder goes when the store is complete.
"""

import contextlib
import errno
import fcntl
import hashlib
import json
import multiprocessing
import os
import re
import shutil
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, BinaryIO

from candi_cli import __version__
from candi_cli.binning.experiments import Binning, Outcome, bin_experiment, source
from candi_cli.counting import CountingRule
from candi_cli.covariates import FILE_COLUMNS, Experiment
from candi_cli.errors import OutputError, ReadsError, StoreError
from candi_cli.store import FORMAT_VERSION, Store

_PART = re.compile(r"^[0-9a-f]{32}\.h5$")
_HEADER_BYTES = 100_000


class Parts:
    """The experiments of a store that is being made; use it as a context manager, which also locks the store.

    Parameters
    ----------
    output : the store that the parts are for
    rule, chromsizes, options : as every part is counted

    Raises
    ------
    OutputError
        Another process is making the same store, or the folder cannot be made.
    """

    def __init__(self, output: Path, rule: CountingRule, chromsizes: Mapping[str, int], options: Binning) -> None:
        self.output, self.rule, self.chromsizes, self.options = output, rule, dict(chromsizes), options
        self.folder = output.with_name(f".{output.name}.parts")
        self._lock: BinaryIO | None = None

    def __enter__(self) -> "Parts":
        try:
            self.folder.mkdir(exist_ok=True)
            self._lock = _locked(self.folder / "lock")
        except OSError as error:
            raise OutputError(f"{self.output}: cannot be written ({error.strerror}); choose another -o") from error
        if self._lock is None:
            raise OutputError(f"{self.output}: another candi is writing it; wait for that, or choose another -o")
        self._sweep()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._sweep()
        if kind is None or not self._own():
            for path in (*self._own(), self.folder / "lock"):
                path.unlink()
            with contextlib.suppress(OSError):  # something is in it that is not ours
                self.folder.rmdir()
        if self._lock is not None:
            self._lock.close()

    def _sweep(self) -> None:
        for path in self.folder.glob("*.tmp"):
            path.unlink(missing_ok=True)

    def kept(self, experiment: Experiment) -> Outcome | None:
        """Return an experiment that an earlier run has finished, None when it has not."""
        path = self._path(experiment)
        if not path.exists():
            return None
        try:
            with Store.open(path) as part:
                found = part.experiment(experiment.biosample, experiment.assay)
        except StoreError:  # damaged since: made anew
            path.unlink()
            return None
        return Outcome(experiment, None, found.covariates)

    def discard(self, experiment: Experiment) -> None:
        """Forget an experiment that is finished, if it is."""
        self._path(experiment).unlink(missing_ok=True)

    def count(self, experiments: Sequence[Experiment], *, threads: int) -> Iterator[Outcome]:
        """Count the experiments that are not there yet, several at a time, and yield each as it is finished.

        Raises
        ------
        CandiError
            A file cannot be used; what is finished is kept.
        """
        tasks = [
            _Task(item, self.rule, self.chromsizes, self.options, path=self._path(item), output=self.output)
            for item in experiments
        ]
        tasks = [task for task in tasks if not task.path.exists()]
        n_workers = min(threads, len(tasks))
        if n_workers > 1:
            yield from _run_in_processes(tasks, n_workers, threads // n_workers)
        else:
            for task in tasks:
                yield task.run(threads)

    def assemble(self, path: Path, experiments: Sequence[Experiment], *, command: str) -> None:
        """Write the store of all parts, in the order of the experiments."""
        self._check_room(path)
        with Store.create(
            path, rule=self.rule, chromsizes=self.chromsizes, command=command, shown_as=self.output
        ) as store:
            for experiment in experiments:
                found = self._path(experiment)
                if not found.exists():
                    files = [str(file) for name in FILE_COLUMNS if (file := getattr(experiment, name)) is not None]
                    raise ReadsError(f"{' or '.join(files)}: changed while the store was made; run the command again")
                with Store.open(found) as part:
                    store.adopt(part, experiment.biosample, experiment.assay)

    def _check_room(self, path: Path) -> None:
        """Raise OutputError unless the disk has room for the store: HDF5 does not survive it if there is none."""
        needed = sum(part.stat().st_size for part in self._own()) + _HEADER_BYTES
        try:
            if hasattr(os, "posix_fallocate"):
                with path.open("wb") as handle:
                    os.posix_fallocate(handle.fileno(), 0, needed)
            elif shutil.disk_usage(path.parent).free < needed:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            if error.errno in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):  # a file system that cannot reserve
                return
            raise OutputError(
                f"{self.output}: cannot be written ({error.strerror}); it needs {needed / 1e6:,.1f} MB"
            ) from error
        finally:
            path.unlink(missing_ok=True)

    def _own(self) -> list[Path]:
        return [path for path in self.folder.glob("*.h5") if _PART.match(path.name)]

    def _path(self, experiment: Experiment) -> Path:
        """Return where the part of an experiment is: a name that changes with anything that the part depends on."""
        files = [getattr(experiment, name) for name in FILE_COLUMNS] + [self.options.reference]
        made_of: dict[str, Any] = {
            "version": [__version__, FORMAT_VERSION],
            "rule": self.rule.to_json(),
            "chromsizes": list(self.chromsizes.items()),
            "n_folds": self.options.n_folds,
            "aliases": [sorted(names) for names in self.options.aliases],
            "experiment": {**asdict(experiment), "remark": None},
            "files": [_state(path) if path else None for path in files],
        }
        text = json.dumps(made_of, sort_keys=True, default=str)
        return self.folder / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.h5"


def _state(path: Path) -> dict[str, Any]:
    return {"path": str(path.resolve()), **source(path), "mtime": path.stat().st_mtime_ns}


class _Task:
    """One experiment that is to become one part."""

    def __init__(
        self,
        experiment: Experiment,
        rule: CountingRule,
        chromsizes: dict[str, int],
        options: Binning,
        *,
        path: Path,
        output: Path,
    ) -> None:
        self.experiment, self.rule, self.chromsizes, self.options = experiment, rule, chromsizes, options
        self.path, self.output = path, output

    def run(self, threads: int) -> Outcome:
        temporary = self.path.with_name(f"{self.path.stem}.{os.getpid()}.tmp")
        try:
            temporary.touch()
            with Store.create(
                temporary, rule=self.rule, chromsizes=self.chromsizes, shown_as=self.output, whole=True
            ) as store:
                outcome = bin_experiment(self.experiment, store, self.options, threads=threads)
            temporary.replace(self.path)
        finally:
            temporary.unlink(missing_ok=True)
        return outcome


def _run_in_processes(tasks: Sequence[_Task], n_workers: int, threads: int) -> Iterator[Outcome]:
    """Run tasks in processes, one task each at a time; when one fails, stop the others."""
    context = multiprocessing.get_context("spawn")  # HDF5 and numba do not survive a fork
    workers: dict[Any, Any] = {}  # the end of its pipe -> process
    busy: dict[Any, _Task] = {}
    waiting = list(reversed(tasks))
    try:
        with _interrupts_held():
            for _ in range(n_workers):
                ours, theirs = context.Pipe()
                process = context.Process(target=_work, args=(theirs, threads), daemon=True)
                process.start()
                theirs.close()
                workers[ours] = process
        idle = list(workers)
        while waiting or busy:
            while waiting and idle:
                worker, task = idle.pop(), waiting.pop()
                with contextlib.suppress(ConnectionError):  # it has ended: told when it is waited for
                    worker.send(task)
                busy[worker] = task
            for worker in wait(list(busy)):
                yield _received(worker, busy.pop(worker), workers[worker])
                idle.append(worker)
    finally:
        for process in workers.values():
            process.terminate()
        for process in workers.values():
            process.join()


@contextlib.contextmanager
def _interrupts_held() -> Iterator[None]:
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


def _received(worker: Any, task: _Task, process: Any) -> Outcome:
    try:
        result = worker.recv()
    except (EOFError, ConnectionError):
        process.join()
        raise ReadsError(
            f"{task.experiment.name}: its process ended with {process.exitcode}; was memory short? "
            "give fewer threads (-@)"
        ) from None
    if isinstance(result, BaseException):
        raise result
    return result


def _work(tasks: Connection, threads: int) -> None:
    """Run the tasks that come through a pipe, and send back what came of each; end with the parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears it too and ends this process
    signal.signal(signal.SIGTERM, _leave)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    while True:
        task: _Task = tasks.recv()
        try:
            tasks.send(task.run(threads))
        except Exception as error:
            tasks.send(error)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os.kill(os.getpid(), signal.SIGTERM)


def _leave(_signal: int, _frame: FrameType | None) -> None:
    raise SystemExit(1)  # so that temporary files go


def _locked(path: Path) -> BinaryIO | None:
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
