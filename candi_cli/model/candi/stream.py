"""Batches of a dataset, one step after the other, made ahead by worker processes."""

import signal
import sys
from collections.abc import Iterator
from itertools import count
from typing import Any, TypeVar

from torch.utils.data import DataLoader, Dataset, Sampler

Batch = TypeVar("Batch")


def stream(dataset: Dataset[Batch], first_step: int, *, workers: int, pin: bool) -> Iterator[Batch]:
    """Yield `dataset[step]` from the first step on, in order and without end.

    Parameters
    ----------
    workers : processes, two batches ahead each; 0 for none. They are forked where that is safe, so that what is open
        or unpacked is shared; each batch comes in shared memory
    pin : into memory from which a GPU copies without waiting
    """
    loader = DataLoader(
        dataset, batch_size=None, sampler=_Steps(first_step), num_workers=workers, pin_memory=pin,
        collate_fn=_as_it_is, worker_init_fn=_start_worker if workers else None,
        prefetch_factor=2 if workers else None,
        multiprocessing_context="fork" if workers and sys.platform == "linux" else None,
    )  # fmt: skip
    yield from loader


class _Steps(Sampler[int]):
    """The numbers of the steps, from the first on."""

    def __init__(self, first_step: int) -> None:
        self.first_step = first_step

    def __iter__(self) -> Iterator[int]:
        return count(self.first_step)


def _as_it_is(batch: Any) -> Any:
    return batch


def _start_worker(_number: int) -> None:
    for number in (signal.SIGINT, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)  # the parent hears them too, and decides
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
