"""Reading intervals of BED, narrowPeak and broadPeak files."""

from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from candi_cli.errors import TrackError
from candi_cli.io.columns import LineError, name_runs, read_lines
from candi_cli.io.formats import Format, recognise

_LAST = 1 << 62


def read_intervals(path: Path) -> dict[str, NDArray[np.int64]]:
    """Return the intervals of each chromosome, sorted by start and end: shape (K, 2), 0-based, half-open.

    Plain or gzip/bgzip, whatever the file's name.

    Raises
    ------
    TrackError
        The file is missing, or a line is not an interval.
    """
    _refuse_binary(path)
    found: dict[str, list[NDArray[np.int64]]] = {}
    for lines in read_lines(path, TrackError, what="a BED file"):
        if not len(lines):
            continue
        try:
            spans = np.stack([lines.integers(1), lines.integers(2)], axis=1)
            wrong = np.flatnonzero((spans[:, 0] < 0) | (spans[:, 1] <= spans[:, 0]) | (spans[:, 1] >= _LAST))
            if len(wrong):
                start, end = spans[wrong[0]]
                raise LineError(int(wrong[0]), f"{start}-{end} is no interval")
            for chrom, chosen in name_runs(lines.texts(0)):
                found.setdefault(chrom, []).append(spans[chosen])
        except LineError as error:
            line = lines.numbers[error.line]
            raise TrackError(f"{path}:{line}: {error}; give BED (chrom, start, end with 0 <= start < end)") from error
    return {chrom: _sorted(np.concatenate(pieces)) for chrom, pieces in found.items()}


def _refuse_binary(path: Path) -> None:
    with suppress(OSError):  # told when it is read
        kind = recognise(path)
        if kind in (Format.BAM, Format.CRAM, Format.SAM, Format.BIGWIG, Format.BIGBED, Format.HDF5, Format.FASTQ):
            raise TrackError(f"{path}: {kind.value}, not a BED file; give BED, narrowPeak or broadPeak")


def _sorted(spans: NDArray[np.int64]) -> NDArray[np.int64]:
    return spans[np.lexsort((spans[:, 1], spans[:, 0]))]


def covered_bins(intervals: NDArray[np.int64], n_bins: int, resolution: int) -> NDArray[np.uint8]:
    """Return 1 for each bin that an interval overlaps by at least 1 bp, 0 for the others."""
    steps = np.zeros(n_bins + 1, dtype=np.int32)
    np.add.at(steps, np.minimum(intervals[:, 0] // resolution, n_bins), 1)
    np.add.at(steps, np.minimum((intervals[:, 1] - 1) // resolution + 1, n_bins), -1)
    return (np.cumsum(steps)[:-1] > 0).astype(np.uint8)
