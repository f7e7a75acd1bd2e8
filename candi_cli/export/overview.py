"""A look at whole tracks, a block at a time: numbers that sum them up, and where they have most to show."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from candi_cli.export.quantities import Quantity
from candi_cli.export.source import Source
from candi_cli.genome import Region

Values = NDArray[np.float64]
WINDOW_BINS = 2_048  # blocks of a source hold a whole number of them
_TOP = 0.98  # of a window: what the 41 highest of its bins reach
_USUAL = 0.99  # of all windows: what is above it, such as a satellite's pile, counts no more than it
_DROPPED_BITS = 10  # of a float32: cells are as wide as 1e-4 of their values
_N_CELLS = 1 << (31 - _DROPPED_BITS)  # the sign is always positive


class Overview(NamedTuple):
    """What a whole track is like.

    Attributes
    ----------
    n_bins, mean, median, percentile_99, highest : of all bins; percentiles are exact to 6e-5 of themselves
    contrasts : shape (W,), of each of the `windows`, how far log(1 + value) rises from the middle to the top
    """

    n_bins: int
    mean: float
    median: float
    percentile_99: float
    highest: float
    contrasts: Values


def look_over(source: Source, biosample: str, assay: str, quantity: Quantity) -> Overview:
    """Return what a track is like everywhere; its values are at least 0. Memory does not grow with the genome."""
    cells, total, highest, contrasts = np.zeros(_N_CELLS, dtype=np.int64), 0.0, 0.0, [np.zeros(0)]
    for _, parameters in source.blocks(biosample, assay, quantity.parameters):
        values = quantity.of(parameters)
        cells += np.bincount(_cells(values), minlength=_N_CELLS)
        total += float(values.sum())
        highest = max(highest, float(values.max(initial=0)))
        contrasts.append(_contrasts(values))
    n_bins = int(cells.sum())
    median, percentile_99 = (_percentile(cells, level) for level in (0.5, 0.99))
    return Overview(n_bins, total / max(n_bins, 1), median, percentile_99, highest, np.concatenate(contrasts))


def windows(regions: Sequence[Region], resolution: int) -> Iterator[Region]:
    """Yield the windows of regions, in the order of their contrasts; the last one of a region may be shorter."""
    width = WINDOW_BINS * resolution
    for chrom, start, end in regions:
        for first in range(start, end, width):
            yield Region(chrom, first, min(first + width, end))


def most_to_show(contrasts: Sequence[Values]) -> int:
    """Return the window where several tracks together have the highest contrast, each in units of its own.

    A track's unit is the contrast that one of 100 windows exceeds, and those count as one unit, so that no single
    pile of reads decides.

    Parameters
    ----------
    contrasts : of each track, shape (W,); W is not 0
    """
    together = np.zeros(len(contrasts[0]))
    for each in contrasts:
        usual = float(np.quantile(each, _USUAL, method="inverted_cdf"))
        if usual > 0:
            together += np.minimum(each / usual, 1)
    return int(np.argmax(together))


def _cells(values: Values) -> NDArray[np.uint32]:
    """Return a number for each value that rises with it: the first bits of a positive float."""
    return np.asarray(values, dtype=np.float32).view(np.uint32) >> np.uint32(_DROPPED_BITS)


def _percentile(cells: NDArray[np.int64], level: float) -> float:
    """Return the middle of the cell that holds the smallest value with at least this share of all up to it."""
    upto = np.cumsum(cells)
    if upto[-1] == 0:
        return 0.0
    cell = int(np.searchsorted(upto, level * upto[-1]))
    if cell == 0:
        return 0.0
    ends = np.array([cell << _DROPPED_BITS, (cell + 1) << _DROPPED_BITS], dtype=np.uint32)
    return float(ends.view(np.float32).mean(dtype=np.float64))


def _contrasts(values: Values) -> Values:
    """Return the contrast of each window of a block, the last of which may be shorter."""
    n_whole = len(values) // WINDOW_BINS * WINDOW_BINS
    pieces = [values[:n_whole].reshape(-1, WINDOW_BINS), values[None, n_whole:]]
    return np.concatenate([_contrast(piece) for piece in pieces if piece.size])


def _contrast(values: Values) -> Values:
    """Return the contrast of windows (W, L) as wide as each other."""
    middle, top = ((values.shape[1] - 1) // 2, int(_TOP * (values.shape[1] - 1)))
    ordered = np.partition(values, (middle, top), axis=1)
    found: Values = np.log1p(ordered[:, top]) - np.log1p(ordered[:, middle])
    return found
