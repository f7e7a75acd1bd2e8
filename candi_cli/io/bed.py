"""Reading intervals of BED, narrowPeak and broadPeak files."""

import gzip
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from candi_cli.errors import TrackError

_SKIPPED = ("#", "track", "browser")


def read_intervals(path: Path) -> dict[str, NDArray[np.int64]]:
    """Return the intervals of each chromosome, sorted by start: shape (K, 2), 0-based, half-open.

    Plain or gzip/bgzip, whatever the file's name.

    Raises
    ------
    TrackError
        The file is missing, or a line is not an interval.
    """
    found: dict[str, list[tuple[int, int]]] = {}
    try:
        compressed = path.open("rb").read(2) == b"\x1f\x8b"
        with gzip.open(path, "rt") if compressed else path.open() as handle:
            for number, line in enumerate(handle, start=1):
                if not line.strip() or line.startswith(_SKIPPED):
                    continue
                fields = line.rstrip("\n").split("\t") if "\t" in line else line.split()
                try:
                    start, end = int(fields[1]), int(fields[2])
                except (IndexError, ValueError):
                    raise TrackError(f"{path}:{number}: not an interval; give BED (chrom, start, end)") from None
                if not 0 <= start < end < 1 << 62:
                    raise TrackError(f"{path}:{number}: {start}-{end} is no interval; give 0 <= start < end")
                found.setdefault(fields[0], []).append((start, end))
    except OSError as error:
        raise TrackError(f"{path}: {error.strerror or error}; give a BED file") from error
    except (UnicodeDecodeError, EOFError, zlib.error) as error:
        raise TrackError(f"{path}: not a BED file or damaged; fetch it again") from error
    return {chrom: np.array(sorted(intervals), dtype=np.int64) for chrom, intervals in found.items()}


def covered_bins(intervals: NDArray[np.int64], n_bins: int, resolution: int) -> NDArray[np.uint8]:
    """Return 1 for each bin that an interval overlaps by at least 1 bp, 0 for the others."""
    steps = np.zeros(n_bins + 1, dtype=np.int32)
    np.add.at(steps, np.minimum(intervals[:, 0] // resolution, n_bins), 1)
    np.add.at(steps, np.minimum((intervals[:, 1] - 1) // resolution + 1, n_bins), -1)
    return (np.cumsum(steps)[:-1] > 0).astype(np.uint8)
