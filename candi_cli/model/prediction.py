"""Prediction of whole regions: tile, forward, crop to the core, and hand on in genome order. It knows no family.

On the CPU each window is computed on its own, by one thread, and windows are shared out between threads: the result
is the same to the bit for any batch size and any number of threads. The next batch is read while one is computed.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from candi_cli.errors import DeviceError
from candi_cli.genome import Region, Window
from candi_cli.model.device import move

Select = Callable[[Any], Tensor]  # the family's output -> (N, L, K) values of K tracks
Values = NDArray[np.float32]


class Windows(Protocol):
    """What a family's dataset for prediction offers."""

    def batch(self, windows: Sequence[Window]) -> Any:
        """Return the windows as one batch."""

    def signature(self, window: Window) -> object | None:
        """Return a value that windows with equal input share, or None."""


def predict(
    model: nn.Module,
    dataset: Windows,
    windows: Iterable[Window],
    select: Select,
    *,
    chromsizes: dict[str, int],
    resolution: int,
    device: torch.device,
    batch_size: int,
    threads: int,
    position_bins: int = 1,
) -> Iterator[tuple[Region, Values]]:
    """Yield the predicted tracks of each window's core, in the order of the windows: values of shape (n, K).

    Windows whose input is the same (see `signature`) are computed once.

    Parameters
    ----------
    batch_size : windows at a time; on a GPU whose memory it does not fit, half of it, and so on
    position_bins : bins of one position of the model's output; windows and cores begin on whole positions

    Raises
    ------
    DeviceError
        The device's memory does not hold a single window.
    """
    known: dict[object, Values] = {}
    with _forwarding(model, device, threads) as forward, ThreadPoolExecutor(max_workers=1) as reader:
        seen: set[object] = set()
        pending = iter(windows)
        coming = reader.submit(_read, dataset, list(islice(pending, batch_size)), seen)
        while (read := coming.result()).windows:
            coming = reader.submit(_read, dataset, list(islice(pending, batch_size)), seen)
            outputs = forward(read.batch, len(read.rows), select) if read.rows else []
            by_row = dict(zip(read.rows, outputs, strict=True))
            known.update({read.signatures[row]: by_row[row] for row in read.rows if read.signatures[row] is not None})
            for row, window in enumerate(read.windows):
                values = by_row[row] if row in by_row else known[read.signatures[row]]
                first = (window.core_start - window.context_start) // position_bins
                n_positions = -(-(window.core_end - window.core_start) // position_bins)
                end = min(window.core_end * resolution, chromsizes[window.chrom])
                region = Region(window.chrom, window.core_start * resolution, end)
                yield region, values[first : first + n_positions]


class _Read(NamedTuple):
    """Windows that were read: of those in `rows` the batch, the others are like one of them or one before."""

    windows: list[Window]
    signatures: list[object | None]
    rows: list[int]
    batch: Any


def _read(dataset: Windows, windows: list[Window], seen: set[object]) -> _Read:
    signatures = [dataset.signature(window) for window in windows]
    rows = []
    for row, signature in enumerate(signatures):
        if signature is None or signature not in seen:
            rows.append(row)
            seen.add(signature)
    return _Read(windows, signatures, rows, dataset.batch([windows[row] for row in rows]) if rows else None)


Forward = Callable[[Any, int, Select], list[Values]]


@contextmanager
def _forwarding(model: nn.Module, device: torch.device, threads: int) -> Iterator[Forward]:
    """Provide a function from a batch to the selected tracks (L, K) of each of its windows."""
    model.eval().to(device)

    @torch.inference_mode()
    def together(batch: Any, n: int, select: Select) -> list[Values]:
        values = select(model(move(batch, device))).float().cpu().numpy()
        return list(values[:n])

    if device.type != "cpu":
        yield Halving(together)
        return

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(max_workers=threads) as pool:

            def one_by_one(batch: Any, n: int, select: Select) -> list[Values]:
                single = [_rows(batch, i, i + 1) for i in range(n)]
                return list(pool.map(lambda one: together(one, 1, select)[0], single))

            yield one_by_one
    finally:
        torch.set_num_threads(before)


class Halving:
    """Compute batches by smaller ones from where the device's memory was too small on."""

    def __init__(self, forward: Forward) -> None:
        self._forward = forward
        self.most: int | None = None  # windows at a time

    def __call__(self, batch: Any, n: int, select: Select) -> list[Values]:
        """Return the selected tracks of each of the n windows of a batch."""
        found: list[Values] = []
        while len(found) < n:
            size = min(n - len(found), self.most or n)
            try:
                found += self._forward(_rows(batch, len(found), len(found) + size), size, select)
            except torch.cuda.OutOfMemoryError as error:
                if size == 1:
                    raise DeviceError("--device: its memory does not hold a single window; use --device cpu") from error
                self.most = size // 2
                torch.cuda.empty_cache()
        return found


def _rows(batch: Any, start: int, end: int) -> Any:
    return type(batch)(*(None if part is None else part[start:end] for part in batch))
