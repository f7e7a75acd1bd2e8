"""Prediction of whole regions: tile, forward, crop to the core, and hand on in genome order. It knows no family.

On the CPU each window is computed on its own, by one thread, and windows are shared out between threads: the result
is the same to the bit for any batch size and any number of threads.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from candi_cli.genome import Region, Window
from candi_cli.model.device import move

Select = Callable[[Any], Tensor]  # the family's output -> (N, L, K) values of K tracks


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
) -> Iterator[tuple[Region, NDArray[np.float32]]]:
    """Yield the predicted tracks of each window's core, in the order of the windows: values of shape (n_bins, K).

    Windows whose input is the same (see `signature`) are computed once.
    """
    pending = iter(windows)
    known: dict[object, NDArray[np.float32]] = {}
    with _forwarding(model, device, threads) as forward:
        while chunk := list(islice(pending, batch_size)):
            signatures = [dataset.signature(window) for window in chunk]
            rows = [
                row
                for row, signature in enumerate(signatures)
                if signature is None or (signature not in known and signature not in signatures[:row])
            ]
            outputs: dict[int, NDArray[np.float32]] = {}
            if rows:
                batch = dataset.batch([chunk[row] for row in rows])
                outputs = dict(zip(rows, forward(batch, len(rows), select), strict=True))
                known.update({signatures[row]: outputs[row] for row in rows if signatures[row] is not None})
            for row, window in enumerate(chunk):
                values = outputs[row] if row in outputs else known[signatures[row]]
                offset = window.core_start - window.context_start
                core = values[offset : offset + window.core_end - window.core_start]
                end = min(window.core_end * resolution, chromsizes[window.chrom])
                yield Region(window.chrom, window.core_start * resolution, end), core


Forward = Callable[[Any, int, Select], list[NDArray[np.float32]]]


@contextmanager
def _forwarding(model: nn.Module, device: torch.device, threads: int) -> Iterator[Forward]:
    """Provide a function from a batch to the selected tracks (L, K) of each of its windows."""
    model.eval().to(device)

    @torch.inference_mode()
    def together(batch: Any, n: int, select: Select) -> list[NDArray[np.float32]]:
        values = select(model(move(batch, device))).float().cpu().numpy()
        return list(values[:n])

    if device.type != "cpu":
        yield together
        return

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(max_workers=threads) as pool:

            def one_by_one(batch: Any, n: int, select: Select) -> list[NDArray[np.float32]]:
                single = [type(batch)(*(None if part is None else part[i : i + 1] for part in batch)) for i in range(n)]
                return list(pool.map(lambda one: together(one, 1, select)[0], single))

            yield one_by_one
    finally:
        torch.set_num_threads(before)
