"""Reading and writing bigWig tracks behind the guards that pyBigWig needs.

pyBigWig ends the process when it opens a file for writing in a folder that does not exist, accepts NaN and entries past
the end of a chromosome, and writes files that cannot be read again; none of that may happen here.
"""

import errno
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np
import pyBigWig
from numpy.typing import NDArray

from candi_cli.errors import OutputError, TrackError
from candi_cli.genome import Region, bin_count
from candi_cli.io.formats import Format, recognise

_BINS_AT_ONCE = 1 << 18
_CLOSING_BYTES = 1 << 20
_BINS_OF_AN_INTERVAL = 4  # from so many bins a run on, files with intervals are smaller, by their zoom levels


class BinMeans(NamedTuple):
    """A track in bins: shape (n_bins,) each.

    values : the mean over the covered bases of a bin, 0 where no base is covered
    covered : whether any base of a bin is covered
    """

    values: NDArray[np.float32]
    covered: NDArray[np.bool_]


def read_means(path: Path, chrom: str, length: int, resolution: int) -> BinMeans:
    """Return the mean over the covered bases of each bin, and which bins have any.

    Parameters
    ----------
    length : bp of the chromosome; the bins are those of `genome.bin_count`

    Raises
    ------
    TrackError
        The file is not a bigWig, or the chromosome has another length in it.
    """
    with _Reading(path) as track:
        found = track.chroms().get(chrom)
        if found is None:
            n_bins = bin_count(length, resolution)
            return BinMeans(np.zeros(n_bins, dtype=np.float32), np.zeros(n_bins, dtype=np.bool_))
        if found != length:
            raise TrackError(
                f"{path}: {chrom} is {found:,} bp but {length:,} bp in the reads; use the same genome build for both"
            )
        pieces = []
        for start in range(0, length, _BINS_AT_ONCE * resolution):
            end = min(start + _BINS_AT_ONCE * resolution, length)
            try:
                with _no_library_messages():
                    values = np.asarray(track.values(chrom, start, end, numpy=True), dtype=np.float32)
            except RuntimeError as error:
                raise TrackError(f"{path}: damaged at {chrom}:{start + 1:,}-{end:,}; fetch it again") from error
            if not len(values):  # of a track without any entry, pyBigWig returns nothing rather than NaN
                values = np.full(end - start, np.nan, dtype=np.float32)
            pieces.append(_bin_means(values, resolution))
    return BinMeans(np.concatenate([piece.values for piece in pieces]), np.concatenate([p.covered for p in pieces]))


def read_chroms(path: Path) -> dict[str, int]:
    """Return the chromosomes of a bigWig and their lengths."""
    with _Reading(path) as track:
        return dict(track.chroms())


def _bin_means(values: NDArray[np.float32], resolution: int) -> BinMeans:
    padded = np.full(bin_count(len(values), resolution) * resolution, np.nan, dtype=np.float32)
    padded[: len(values)] = values
    rows = padded.reshape(-1, resolution)
    covered = np.isfinite(rows)
    if not covered.any():  # most of the genome, where a track is of some regions
        return BinMeans(np.zeros(len(rows), dtype=np.float32), np.zeros(len(rows), dtype=np.bool_))
    total = np.where(covered, rows, 0).sum(axis=1, dtype=np.float64)
    n_covered = covered.sum(axis=1)
    return BinMeans((total / np.maximum(n_covered, 1)).astype(np.float32), n_covered > 0)


class TrackWriter:
    """Write a bigWig of equal bins, piece by piece in genome order; use it as a context manager.

    Equal neighbours are written as one interval where that is smaller.

    On leaving the context without an error the file is closed and read back. Renaming it is the caller's part.

    Parameters
    ----------
    path : a file in an existing, writable folder
    chromsizes : the chromosomes of the track, in the order of the pieces
    digits : significant digits that are kept; fewer make a smaller file
    shown_as : what errors call the file, when `path` is a temporary name

    Raises
    ------
    TrackError
        A value is not finite, or the finished file does not read back.
    """

    def __init__(
        self,
        path: Path,
        chromsizes: Mapping[str, int],
        *,
        resolution: int,
        digits: int = 3,
        shown_as: Path | None = None,
    ) -> None:
        with path.open("wb"):  # pyBigWig kills the process where this would fail
            pass
        self.path, self.resolution, self.digits = path, resolution, digits
        self._shown_as = shown_as or path
        self._last_end: dict[str, int] = {}
        self._pending: list[tuple[Region, NDArray[np.float32]]] = []
        self._pending_bins = 0
        self._track = pyBigWig.open(str(path), "w")
        self._track.addHeader(list(chromsizes.items()))

    def __enter__(self) -> "TrackWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._flush()
        finally:
            self._track.close()
        if kind is None:
            self._verify()

    def add(self, region: Region, values: NDArray[np.float32]) -> None:
        """Append the bins of a region that starts on a bin: values of shape (n_bins,)."""
        if not np.isfinite(values).all():
            raise TrackError(
                f"{self._shown_as}: a value in {region.chrom}:{region.start + 1}-{region.end} is not finite"
            )
        if self._pending:
            last = self._pending[-1][0]
            if (last.chrom, last.end) != (region.chrom, region.start) or self._pending_bins >= _BINS_AT_ONCE:
                self._flush()
        self._pending.append((region, values))
        self._pending_bins += len(values)

    def _ensure_room(self) -> None:
        """Raise OutputError unless the disk has room for what is pending and for closing the file.

        libBigWig does not survive a disk that fills up: it ends the process.
        """
        if not hasattr(os, "posix_fallocate"):
            return
        with self.path.open("r+b") as handle:
            size = os.fstat(handle.fileno()).st_size
            try:
                os.posix_fallocate(handle.fileno(), size, 8 * self._pending_bins + size + _CLOSING_BYTES)
            except OSError as error:
                if error.errno in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):  # a file system that cannot reserve
                    return
                handle.truncate(0)  # makes room for what closing still writes
                raise OutputError(
                    f"{self._shown_as}: cannot be written ({error.strerror}); make room on the disk"
                ) from error
            handle.truncate(size)

    def _flush(self) -> None:
        if not self._pending:
            return
        self._ensure_room()
        chrom, start, end = self._pending[0][0].chrom, self._pending[0][0].start, self._pending[-1][0].end
        values = round_significant(np.concatenate([piece for _, piece in self._pending]), self.digits)
        whole = (end - start) // self.resolution
        runs = equal_runs(values)
        if len(runs.values) * _BINS_OF_AN_INTERVAL < len(values):
            starts, ends = start + runs.start * self.resolution, np.minimum(start + runs.end * self.resolution, end)
            self._track.addEntries(
                [chrom] * len(starts), starts.tolist(), ends=ends.tolist(), values=runs.values.tolist()
            )
        else:
            if whole:
                self._track.addEntries(chrom, start, values=values[:whole], span=self.resolution, step=self.resolution)
            if whole < len(values):  # the last bin of a chromosome ends with it
                last = start + whole * self.resolution
                self._track.addEntries([chrom], [last], ends=[end], values=values[whole:].astype(np.float64))
        self._last_end[chrom] = end
        self._pending, self._pending_bins = [], 0

    def _verify(self) -> None:
        with _Reading(self.path) as track:
            for chrom, end in self._last_end.items():
                if not np.isfinite(track.values(chrom, end - 1, end)[0]):
                    raise TrackError(f"{self._shown_as}: {chrom} does not read back to its end; is the disk full?")


class Runs(NamedTuple):
    """Equal neighbours as one: bins start and end (K,), half-open, and their value (K,)."""

    start: NDArray[np.int64]
    end: NDArray[np.int64]
    values: NDArray[np.float32]


def equal_runs(values: NDArray[np.float32]) -> Runs:
    """Return runs of equal neighbours of values (n_bins,)."""
    changes = np.flatnonzero(values[1:] != values[:-1]) + 1
    bounds = np.concatenate([[0], changes, [len(values)]]) if len(values) else np.zeros(1, dtype=np.int64)
    return Runs(bounds[:-1], bounds[1:], values[bounds[:-1]])


def round_significant(values: NDArray[np.float32], digits: int) -> NDArray[np.float32]:
    """Round to so many significant decimal digits; 0 stays 0."""
    exact = np.asarray(values, dtype=np.float64)
    magnitude = np.zeros_like(exact)
    np.log10(np.abs(exact), out=magnitude, where=exact != 0)
    scale = 10.0 ** (digits - 1 - np.floor(magnitude))
    return (np.round(exact * scale) / scale).astype(np.float32)


@contextmanager
def _no_library_messages() -> Iterator[None]:
    """Keep libBigWig, which writes to the process's stderr, from adding lines to ours."""
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


class _Reading:
    """Open a bigWig for reading, with errors that name the file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> Any:
        if not self.path.exists():
            raise TrackError(f"{self.path}: no such file; check the path")
        try:
            kind = recognise(self.path)
        except OSError as error:
            raise TrackError(f"{self.path}: {error.strerror}; give a bigWig track") from error
        if kind is not Format.BIGWIG:
            raise TrackError(f"{self.path}: not a bigWig; give a bigWig track")
        try:
            with _no_library_messages():
                self._track = pyBigWig.open(str(self.path))
        except RuntimeError as error:
            raise TrackError(f"{self.path}: a damaged or truncated bigWig; fetch it again") from error
        return self._track

    def __exit__(self, *exception: object) -> None:
        self._track.close()
