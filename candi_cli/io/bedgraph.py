"""Reading bedGraph tracks in bins, and writing them: one pass, memory bounded by one chromosome's bins."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from candi_cli.errors import TrackError
from candi_cli.genome import Region, bin_count
from candi_cli.io.bigwig import BinMeans, equal_runs, round_significant
from candi_cli.io.columns import LineError, Lines, read_lines

_LONG_BINS = 1_000  # intervals of more bins are added bin by bin without a list of their bins


def read_bedgraph_means(
    path: Path, chromsizes: Mapping[str, int], resolution: int, *, chrom_of: Callable[[str], str | None]
) -> Iterator[tuple[str, BinMeans]]:
    """Yield each chromosome of a bedGraph, the mean over the covered bases of each bin, and which bins have any.

    Bases whose value is not finite are not covered. Values are -log10 p, or whatever the file holds.

    Parameters
    ----------
    path : plain or gzip, sorted by chromosome and start; intervals do not overlap
    chromsizes : the genome's chromosomes; intervals on others are left out
    chrom_of : the genome's name of a chromosome of the file, None when it has none

    Raises
    ------
    TrackError
        A line is no interval with a value, comes too late or ends past the chromosome.
    """
    done: set[str] = set()
    open_bins: _Means | None = None
    for lines in read_lines(path, TrackError, what="a bedGraph track"):
        if not len(lines):
            continue
        try:
            names, start, end, value = lines.texts(0), lines.integers(1), lines.integers(2), lines.reals(3)
        except LineError as error:
            raise TrackError(f"{path}:{lines.numbers[error.line]}: {error}; give chrom, start, end, value") from error
        changes = np.flatnonzero(names[1:] != names[:-1]) + 1
        for run in np.split(np.arange(len(lines)), changes):
            name = names[run[0]].decode(errors="replace")
            if open_bins is None or name != open_bins.name:
                if open_bins is not None:
                    yield from open_bins.finished()
                if name in done:
                    raise TrackError(f"{path}:{lines.numbers[run[0]]}: {name} comes twice; run 'sort -k1,1 -k2,2n'")
                done.add(name)
                open_bins = _Means(path, name, chrom_of(name), chromsizes, resolution)
            _check(path, lines, run, start, end, open_bins)
            open_bins.add(start[run], end[run], value[run])
    if open_bins is not None:
        yield from open_bins.finished()


def _check(path: Path, lines: Lines, run: NDArray, start: NDArray, end: NDArray, bins: "_Means") -> None:
    before = np.concatenate([[bins.last_end], end[run[:-1]]])
    for wrong, fact in (
        ((start[run] < 0) | (end[run] <= start[run]), "no interval; give 0 <= start < end"),
        (start[run] < before, "starts before the last one ends; run 'sort -k1,1 -k2,2n', and keep no overlaps"),
        (end[run] > bins.length, f"ends past {bins.name} ({bins.length:,} bp); use the same genome build for both"),
    ):
        if wrong.any():
            line = run[int(np.flatnonzero(wrong)[0])]
            raise TrackError(f"{path}:{lines.numbers[line]}: {start[line]}-{end[line]} {fact}")


class _Means:
    """Sums of values and of covered bases over the bins of one chromosome."""

    def __init__(
        self, path: Path, name: str, chrom: str | None, chromsizes: Mapping[str, int], resolution: int
    ) -> None:
        self.path, self.name, self.chrom, self.resolution = path, name, chrom, resolution
        self.length = chromsizes[chrom] if chrom is not None else 1 << 62
        self.last_end = 0
        n_bins = bin_count(self.length, resolution) if chrom is not None else 0
        self._total = np.zeros(n_bins)
        self._covered = np.zeros(n_bins, dtype=np.int64)

    def add(self, start: NDArray[np.int64], end: NDArray[np.int64], value: NDArray[np.float64]) -> None:
        self.last_end = int(end[-1])
        if self.chrom is None:
            return
        known = np.isfinite(value)
        start, end, value = start[known], end[known], value[known]
        long = end - start > _LONG_BINS * self.resolution
        for number in np.flatnonzero(long):
            inner_first, inner_last = -(-start[number] // self.resolution), end[number] // self.resolution
            self._total[inner_first:inner_last] += self.resolution * value[number]
            self._covered[inner_first:inner_last] += self.resolution
        ends_of_long = [
            (bounds, value[long])
            for bounds in (
                (start[long], -(-start[long] // self.resolution) * self.resolution),
                (end[long] // self.resolution * self.resolution, end[long]),
            )
        ]
        self._add_short(start[~long], end[~long], value[~long])
        for (first_bp, last_bp), values in ends_of_long:
            some = last_bp > first_bp
            self._add_short(first_bp[some], last_bp[some], values[some])

    def _add_short(self, start: NDArray[np.int64], end: NDArray[np.int64], value: NDArray[np.float64]) -> None:
        first = start // self.resolution
        n_bins = (end - 1) // self.resolution - first + 1
        which = np.repeat(np.arange(len(start)), n_bins)  # one element for each bin of each interval
        bins = first[which] + np.arange(len(which)) - np.repeat(np.cumsum(n_bins) - n_bins, n_bins)
        inside_start = np.maximum(start[which], bins * self.resolution)
        bases = np.minimum(end[which], (bins + 1) * self.resolution) - inside_start
        np.add.at(self._total, bins, bases * value[which])
        np.add.at(self._covered, bins, bases)

    def finished(self) -> Iterator[tuple[str, BinMeans]]:
        if self.chrom is not None:
            means = self._total / np.maximum(self._covered, 1)
            if np.abs(means).max(initial=0) > np.finfo(np.float32).max:
                raise TrackError(f"{self.path}: a value on {self.name} is beyond float32 (3.4e38); correct it")
            yield self.chrom, BinMeans(means.astype(np.float32), self._covered > 0)


def bedgraph_lines(
    blocks: Iterable[tuple[Region, NDArray[np.float32]]], *, resolution: int, digits: int
) -> Iterator[bytes]:
    """Yield the lines of blocks of bins, equal neighbours of a block as one interval.

    Parameters
    ----------
    blocks : regions that start on a bin, and the values of their bins (n_bins,)
    digits : significant decimal digits that are kept
    """
    for region, values in blocks:
        runs = equal_runs(round_significant(values, digits))
        starts = (region.start + runs.start * resolution).tolist()
        ends = np.minimum(region.start + runs.end * resolution, region.end).tolist()
        texts = [f"{value:.{max(digits, 6)}g}" for value in runs.values.tolist()]
        rows = zip(starts, ends, texts, strict=True)
        yield "".join(f"{region.chrom}\t{start}\t{end}\t{text}\n" for start, end, text in rows).encode()
