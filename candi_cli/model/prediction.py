"""Prediction of whole regions: tile, forward, crop to the core, and hand on in genome order. It knows no family.

While one batch is computed, the next is read and the one before is handed on.
"""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any, NamedTuple, Protocol

from candi_cli.genome import Region, Window
from candi_cli.model.forward import Finish, Forward, Values


class Windows(Protocol):
    """What a family's dataset for prediction offers."""

    def batch(self, windows: Sequence[Window]) -> Any:
        """Return the windows as one batch."""

    def signatures(self, windows: Sequence[Window]) -> list[object | None]:
        """Return for each window a value that windows with equal input share, or None."""


def predict(
    forward: Forward,
    dataset: Windows,
    windows: Iterable[Window],
    *,
    chromsizes: dict[str, int],
    resolution: int,
    batch_size: int,
    position_bins: int = 1,
) -> Iterator[tuple[Region, Values]]:
    """Yield the predicted tracks of each window's core, in the order of the windows: values of shape (n, K).

    Windows whose input is the same (see `signatures`) are computed once.

    Parameters
    ----------
    batch_size : windows that are read and handed on together
    position_bins : bins of one position of the model's output; windows and cores begin on whole positions

    Raises
    ------
    DeviceError
        The device's memory does not hold a single window.
    """
    known: dict[object, Values] = {}
    seen: set[object] = set()
    pending = iter(windows)

    def computed(read: _Read, finish: Finish) -> Iterator[tuple[Region, Values]]:
        by_row = dict(zip(read.rows, finish(), strict=True))
        for row in read.rows:
            if read.signatures[row] is not None:
                known[read.signatures[row]] = by_row[row].copy()  # the others of its batch need not stay
        for row, window in enumerate(read.windows):
            values = by_row[row] if row in by_row else known[read.signatures[row]]
            first = (window.core_start - window.context_start) // position_bins
            n_positions = -(-(window.core_end - window.core_start) // position_bins)
            end = min(window.core_end * resolution, chromsizes[window.chrom])
            region = Region(window.chrom, window.core_start * resolution, end)
            yield region, values[first : first + n_positions]

    def read_next() -> _Read:
        read = _read(dataset, list(islice(pending, batch_size)), seen)
        return read._replace(batch=forward.stage(read.batch)) if read.rows else read

    with ThreadPoolExecutor(max_workers=1) as reader:
        coming = reader.submit(read_next)
        before: tuple[_Read, Finish] | None = None
        while (read := coming.result()).windows:
            coming = reader.submit(read_next)
            started = forward.start(read.batch, len(read.rows)) if read.rows else list
            if before is not None:
                yield from computed(*before)
            before = read, started
        if before is not None:
            yield from computed(*before)


class _Read(NamedTuple):
    """Windows that were read: of those in `rows` the batch, the others are like one of them or one before."""

    windows: list[Window]
    signatures: list[object | None]
    rows: list[int]
    batch: Any


def _read(dataset: Windows, windows: list[Window], seen: set[object]) -> _Read:
    signatures = dataset.signatures(windows)
    rows = []
    for row, signature in enumerate(signatures):
        if signature is None or signature not in seen:
            rows.append(row)
            seen.add(signature)
    return _Read(windows, signatures, rows, dataset.batch([windows[row] for row in rows]) if rows else None)
