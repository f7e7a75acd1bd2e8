"""Many experiments into one store: counted side by side, kept when the run is interrupted, put together in order.

Each experiment becomes a store of its own in the folder `.STORE.parts` beside the store. A run that finds there what
it would make, of the same files, does not make it again. The folder goes when the store is complete.
"""

import contextlib
import errno
import multiprocessing
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from candi_cli import __version__
from candi_cli.binning.experiments import Binning, Outcome, bin_experiment, source
from candi_cli.counting import CountingRule
from candi_cli.covariates import FILE_COLUMNS, Experiment
from candi_cli.errors import OutputError, ReadsError
from candi_cli.parts import PartsFolder, is_whole, making
from candi_cli.processes import interrupts_held, serve
from candi_cli.store import FORMAT_VERSION, Store

_HEADER_BYTES = 100_000


class Parts(PartsFolder):
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
        super().__init__(output)
        self.rule, self.chromsizes, self.options = rule, dict(chromsizes), options

    def kept(self, experiment: Experiment) -> Outcome | None:
        """Return an experiment that an earlier run has finished, None when it has not."""
        path = self._path(experiment)
        if not is_whole(path):  # damaged since: made anew
            path.unlink(missing_ok=True)
            return None
        with Store.open(path) as part:
            found = part.experiment(experiment.biosample, experiment.assay)
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
        needed = sum(part.stat().st_size for part in self.own()) + _HEADER_BYTES
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
        return self.path(made_of)


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
        with making(self.path) as temporary:
            temporary.touch()
            with Store.create(
                temporary, rule=self.rule, chromsizes=self.chromsizes, shown_as=self.output, whole=True
            ) as store:
                return bin_experiment(self.experiment, store, self.options, threads=threads)


def _run_in_processes(tasks: Sequence[_Task], n_workers: int, threads: int) -> Iterator[Outcome]:
    """Run tasks in processes, one task each at a time; when one fails, stop the others."""
    context = multiprocessing.get_context("spawn")  # HDF5 and numba do not survive a fork
    workers: dict[Any, Any] = {}  # the end of its pipe -> process
    busy: dict[Any, _Task] = {}
    waiting = list(reversed(tasks))
    try:
        with interrupts_held():
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
    serve()
    with contextlib.suppress(EOFError, ConnectionError):  # the parent has ended, before this process heard of it
        while True:
            task: _Task = tasks.recv()
            result: Outcome | Exception
            try:
                result = task.run(threads)
            except Exception as error:
                result = error
            tasks.send(result)
