"""Files of tracks, several at a time, written while the predictions that they show are still being made."""

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager

from candi_cli.errors import OutputError
from candi_cli.export.files import TrackFile
from candi_cli.export.source import Source
from candi_cli.processes import interrupts_held, serve

Finish = Callable[[], Iterator[TrackFile]]


@contextmanager
def writing(files: Sequence[TrackFile], source: Source, *, processes: int) -> Iterator[Finish]:
    """Write files, from now on in processes of their own, or without any when they are asked for.

    Yields a function that yields each file when it is complete; call it when all predictions are made.

    Parameters
    ----------
    processes : how many; 0 for none. They wait for the parts of the source that are not there yet, and leave when its
        `abandoned` file appears

    Raises
    ------
    CandiError
        A file cannot be written.
    """
    if not processes:
        yield lambda: _one_by_one(files, source)
        return
    context = multiprocessing.get_context("spawn")  # HDF5 and numba do not survive a fork
    executor = ProcessPoolExecutor(min(processes, len(files)), mp_context=context, initializer=serve)
    try:
        with interrupts_held():
            futures = {executor.submit(file.write, source): file for file in files}
        yield lambda: _finished(futures)
    except BaseException:
        source.abandon()
        raise
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


def _one_by_one(files: Sequence[TrackFile], source: Source) -> Iterator[TrackFile]:
    for file in files:
        file.write(source)
        yield file


def _finished(futures: dict[Future[None], TrackFile]) -> Iterator[TrackFile]:
    for future in as_completed(futures):
        try:
            future.result()
        except BrokenProcessPool as error:
            raise OutputError(
                f"{futures[future].shown_as}: its process was ended; was memory short? give fewer threads (-@)"
            ) from error
        yield futures[future]
