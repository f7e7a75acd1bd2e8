"""Reading a signal track in bins, bigWig or bedGraph."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from candi_cli.contigs import Aliases, NameMatcher, match_contigs
from candi_cli.errors import GenomeError, TrackError
from candi_cli.io.bedgraph import read_bedgraph_means
from candi_cli.io.bigwig import read_chroms, read_means
from candi_cli.io.formats import Format, recognise


def read_signal(
    path: Path, chromsizes: Mapping[str, int], resolution: int, *, aliases: Aliases | None = None
) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Yield each chromosome that a track shares with the genome, and its values in bins.

    A value is the mean over the bases of a bin that the track covers, 0 where it covers none.

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
        for chrom, values in read_bedgraph_means(path, chromsizes, resolution, chrom_of=chrom_of):
            found = True
            yield chrom, values
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
        yield chrom, read_means(path, name, chromsizes[chrom], resolution)


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
