"""Windows through a network on a device: the values of a window do not depend on those that are computed with it.

On the CPU each window is computed on its own, by one thread, and windows are shared out between threads. On a GPU the
libraries choose their kernels by the number of windows, and kernels differ in the order in which they add: there it is
always the same number at once, filled up where there are fewer. Their kernels are recorded (a CUDA graph) and replayed,
so that Python starts one thing for hundreds of them, and so that no memory is asked for after the first windows. What
is recorded is computed whatever the values are: a network must not look at them to decide what to do.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from candi_cli.errors import DeviceError

AT_ONCE = 64  # windows on a GPU; some 1.2 GB for 35 assays, and 10 % slower than four times as many
Select = Callable[[Any], Tensor]  # the family's output -> (N, L, K) values of K tracks
Values = NDArray[np.float32]
Finish = Callable[[], Sequence[Values]]
Compute = Callable[[Any], Tensor]
Warn = Callable[[str], None]


class Forward(Protocol):
    """A way to compute batches of windows on a device."""

    def stage(self, batch: Any) -> Any:
        """Return a batch where the device reads it fastest; any thread may call it."""

    def start(self, batch: Any, n: int) -> Finish:
        """Begin to compute the n windows of a batch; what is returned waits for their values, (L, K) each."""


@contextmanager
def forwarding(
    model: nn.Module, select: Select, *, device: torch.device, threads: int, warn: Warn = lambda _: None
) -> Iterator[Forward]:
    """Provide the forward pass of a network on a device.

    Parameters
    ----------
    threads : of the CPU
    warn : is told when a GPU has little memory
    """
    try:
        model.eval().to(device)
    except torch.cuda.OutOfMemoryError as error:
        raise DeviceError("--device: its memory does not hold the model; use --device cpu") from error

    @torch.inference_mode()
    def compute(batch: Any) -> Tensor:
        return select(model(batch)).float()

    before = torch.get_num_threads()
    torch.set_num_threads(1)  # windows are shared out instead; beside a GPU, threads that wait would take cores
    pool = ThreadPoolExecutor(max_workers=threads)
    try:
        if device.type == "cpu":
            yield OnCpu(compute, pool)
        else:
            yield OnGpu(lambda like, n: Recorded(compute, like, n, _aside(device)), device, warn)
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(before)


@cache
def _aside(device: torch.device) -> torch.cuda.Stream:
    """Return the stream of all that is recorded; each stream has libraries take memory for itself."""
    return torch.cuda.Stream(device)


class OnCpu:
    """Each window by one thread of a pool."""

    def __init__(self, compute: Compute, pool: ThreadPoolExecutor) -> None:
        self._compute, self._pool = compute, pool

    def stage(self, batch: Any) -> Any:
        """Return the batch as it is."""
        return batch

    def start(self, batch: Any, n: int) -> Finish:
        """Begin to compute n windows."""
        coming = [self._pool.submit(self._one, _rows(batch, row, row + 1)) for row in range(n)]
        return lambda: [each.result() for each in coming]

    def _one(self, window: Any) -> Values:
        values: Values = self._compute(window)[0].numpy()
        return values


class OnGpu:
    """A fixed number of windows at once; it is halved, once and for all, where the memory does not hold that many.

    Parameters
    ----------
    record : of a batch and a number of windows, returns what computes that many, or fewer in their place
    warn : is told when that number is halved
    """

    def __init__(self, record: Callable[[Any, int], Compute], device: torch.device, warn: Warn) -> None:
        self._record, self._device, self._warn = record, device, warn
        self._compute: Compute | None = None
        self.at_once = AT_ONCE

    def stage(self, batch: Any) -> Any:
        """Return the batch in memory that the device reads while others are computed."""
        if self._device.type != "cuda":
            return batch
        return type(batch)(*(None if part is None else part.contiguous().pin_memory() for part in batch))

    @torch.inference_mode()
    def start(self, batch: Any, n: int) -> Finish:
        """Begin to compute n windows, at least one.

        Raises
        ------
        DeviceError
            The device's memory does not hold a single window.
        """
        compute = self._compute or self._recorded(batch)
        on_cuda = self._device.type == "cuda"
        found = torch.empty(0)
        for first in range(0, n, self.at_once):
            last = min(first + self.at_once, n)
            values = compute(_rows(batch, first, last))
            if first == 0:
                found = torch.empty((n, *values.shape[1:]), pin_memory=on_cuda)
            found[first:last].copy_(values[: last - first], non_blocking=True)
        arrived = torch.cuda.Event(blocking=True) if on_cuda else None  # which leaves the core to others
        if arrived is not None:
            arrived.record()

        def finish() -> Sequence[Values]:
            if arrived is not None:
                arrived.synchronize()
            return list(found.numpy())

        return finish

    def _recorded(self, like: Any) -> Compute:
        """Return the forward pass for as many windows as the memory holds."""
        while self._compute is None:
            try:
                self._compute = self._record(like, self.at_once)
            except RuntimeError as error:
                if not _is_short_of_memory(error):
                    raise
                if self.at_once == 1:
                    raise DeviceError("--device: its memory does not hold a single window; use --device cpu") from error
                self.at_once //= 2
            if self._compute is None and self._device.type == "cuda":
                torch.cuda.empty_cache()  # now that the error is gone, and with it what it held
        if self.at_once < AT_ONCE:
            self._warn(
                f"the GPU's memory holds {self.at_once} windows at once, not {AT_ONCE}; the last digits that are "
                "kept may differ from those of a run that has more"
            )
        return self._compute


def _is_short_of_memory(error: RuntimeError) -> bool:
    return isinstance(error, torch.cuda.OutOfMemoryError) or "ALLOC_FAILED" in str(error)  # the latter by libraries


class Recorded:
    """The forward pass of a fixed number of windows on a CUDA device, recorded once and replayed.

    Parameters
    ----------
    like : a batch whose windows are shaped like all that follow
    n : windows
    aside : the stream that it is recorded on
    """

    def __init__(self, compute: Compute, like: Any, n: int, aside: torch.cuda.Stream) -> None:
        device = aside.device
        self._inputs = type(like)(
            *(
                None if each is None else torch.zeros((n, *each.shape[1:]), dtype=each.dtype, device=device)
                for each in like
            )
        )
        aside.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(aside):
            compute(self._inputs)  # what libraries set up at their first call cannot be recorded
        torch.cuda.current_stream(device).wait_stream(aside)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph, stream=aside, capture_error_mode="thread_local"):  # others stage batches
            self._outputs = compute(self._inputs)

    def __call__(self, batch: Any) -> Tensor:
        """Return the values of at most n windows at the head of an array for n; the next call overwrites it."""
        for place, part in zip(self._inputs, batch, strict=True):
            if part is not None:
                place[: len(part)].copy_(part, non_blocking=True)
        self._graph.replay()
        return self._outputs


def _rows(batch: Any, start: int, end: int) -> Any:
    return type(batch)(*(None if part is None else part[start:end] for part in batch))
