"""Reading a signal track in bins, bigWig or bedGraph."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from candi_cli.contigs import Aliases, NameMatcher, match_contigs
from candi_cli.errors import GenomeError, TrackError
from candi_cli.io.bedgraph import read_bedgraph_means
from candi_cli.io.bigwig import BinMeans, read_chroms, read_means
from candi_cli.io.formats import Format, recognise

WIDEST_GAP_BP = 100_000  # a track may leave out what is 0; a wider gap was not measured


class SignalBins(NamedTuple):
    """A track's chromosome in bins.

    values : shape (n_bins,), the mean over the covered bases of each bin, 0 where none is covered
    spans : shape (K, 2), where the signal was measured, in bp: from the first to the last covered bin of stretches with
        no gap of more than `WIDEST_GAP_BP`
    """

    chrom: str
    values: NDArray[np.float32]
    spans: NDArray[np.int64]


def read_signal(
    path: Path, chromsizes: Mapping[str, int], resolution: int, *, aliases: Aliases | None = None
) -> Iterator[SignalBins]:
    """Yield each chromosome that a track shares with the genome, its values in bins, and where it was measured.

    Parameters
    ----------
    path : bigWig, or bedGraph plain or gzip; what it is, its content tells
    aliases : other names of contigs, in addition to those that the package knows

    Raises
    ------
    TrackError
        The file is not a track, or damaged, or a chromosome has another length in it.
    GenomeError
        It shares no chromosome with the genome.
    """
    kind = _recognised(path)
    if kind is Format.BEDGRAPH:
        found = False
        chrom_of = NameMatcher(chromsizes, source=str(path), aliases=aliases)
        for chrom, means in read_bedgraph_means(path, chromsizes, resolution, chrom_of=chrom_of):
            found = True
            yield _with_spans(chrom, means, chromsizes[chrom], resolution)
        if not found:
            raise GenomeError(f"{path}: shares no chromosome with the genome; use the same genome build for both")
        return
    matched = match_contigs(
        read_chroms(path), chromsizes, source=str(path), against="the genome of this run", aliases=aliases
    )
    for name, length, expected in matched.conflicts:
        raise TrackError(
            f"{path}: {name} is {length:,} bp but {expected:,} bp in the genome of this run; "
            "use the same genome build for both"
        )
    for chrom, name in matched.names.items():
        means = read_means(path, name, chromsizes[chrom], resolution)
        yield _with_spans(chrom, means, chromsizes[chrom], resolution)


def _with_spans(chrom: str, means: BinMeans, length: int, resolution: int) -> SignalBins:
    covered = np.flatnonzero(means.covered).astype(np.int64)
    if not len(covered):
        return SignalBins(chrom, means.values, np.zeros((0, 2), dtype=np.int64))
    breaks = np.flatnonzero(np.diff(covered) - 1 > WIDEST_GAP_BP // resolution)
    first, last = np.append(covered[0], covered[breaks + 1]), np.append(covered[breaks], covered[-1])
    ends = np.minimum((last + 1) * resolution, length)
    return SignalBins(chrom, means.values, np.stack([first * resolution, ends], axis=1))


def holds_lengths(path: Path) -> bool:
    """Return whether a track says how long chromosomes are, as a bigWig does; raise TrackError when it is no track."""
    return _recognised(path) is Format.BIGWIG


def _recognised(path: Path) -> Format:
    try:
        kind = recognise(path)
    except FileNotFoundError as error:
        raise TrackError(f"{path}: no such file; check the path") from error
    except OSError as error:
        raise TrackError(f"{path}: {error.strerror}; give a bigWig or bedGraph track") from error
    if kind in (Format.BAM, Format.CRAM, Format.SAM):
        raise TrackError(f"{path}: {kind.value}, where a signal track is expected; name it in the file column")
    if kind not in (Format.BIGWIG, Format.BEDGRAPH):
        raise TrackError(f"{path}: {kind.value}, not a bigWig or bedGraph; give a signal track")
    return kind
