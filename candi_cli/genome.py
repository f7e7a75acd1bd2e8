"""Chromosomes, regions, bins and windows: 0-based, half-open coordinates throughout."""

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from candi_cli.contigs import shorten
from candi_cli.errors import GenomeError

Chromsizes = dict[str, int]

_SPAN = re.compile(r"^(?P<chrom>.+):(?P<start>[0-9][0-9,]*)(?:-(?P<end>[0-9][0-9,]*))?$")
_LENGTH = re.compile(r"^0*[1-9][0-9]{0,17}$")


class Region(NamedTuple):
    """A stretch of a chromosome: 0-based, half-open, in bp."""

    chrom: str
    start: int
    end: int


class Window(NamedTuple):
    """What the network sees (`context`) and the part of it that is kept (`core`), in bins of one chromosome.

    A context overhangs its chromosome when that is shorter, or by a few bins at its end; a core never does. The cores
    of consecutive windows abut.
    """

    chrom: str
    context_start: int
    context_end: int
    core_start: int
    core_end: int


def bin_count(length: int, resolution: int) -> int:
    """Return the number of bins of a chromosome; the last one may be shorter than the others."""
    return -(-length // resolution)


def read_chromsizes(path: Path) -> Chromsizes:
    """Read a two-column chrom.sizes file (a .fai index serves too).

    Raises
    ------
    GenomeError
        The file is missing, or a line is not a name and a positive length.
    """
    sizes: Chromsizes = {}
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise GenomeError(f"{path}: {error.strerror}; give a chrom.sizes file") from error
    except UnicodeDecodeError as error:
        raise GenomeError(f"{path}: not a text file; give a chrom.sizes file of names and lengths") from error
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.startswith("#"):
            continue
        fields = line.split("\t") if "\t" in line else line.split()
        if len(fields) < 2 or not _LENGTH.match(fields[1]):
            raise GenomeError(f"{path}:{number}: not a name and a length; write 'chr1<TAB>248956422'")
        if fields[0] in sizes:
            raise GenomeError(f"{path}:{number}: {fields[0]} is listed twice; keep one line")
        sizes[fields[0]] = int(fields[1])
    if not sizes:
        raise GenomeError(f"{path}: lists no chromosome; give a chrom.sizes file of names and lengths")
    return sizes


def parse_region(text: str, chromsizes: Mapping[str, int]) -> Region:
    """Parse `chr` or `chr:start-end` (1-based, inclusive, as samtools does) into a Region.

    A chromosome whose own name holds a colon is matched whole before it is split.

    Raises
    ------
    GenomeError
        The chromosome is unknown, or the span is empty or outside of it.
    """
    if text in chromsizes:
        return Region(text, 0, chromsizes[text])
    match = _SPAN.match(text)
    if match is None or match["chrom"] not in chromsizes:
        name = match["chrom"] if match else text
        raise GenomeError(f"region {text}: no chromosome {name} here; known are {shorten(chromsizes)}")
    chrom = match["chrom"]
    start = int(match["start"].replace(",", "")) - 1
    end = int(match["end"].replace(",", "")) if match["end"] else chromsizes[chrom]
    if not 0 <= start < end or start >= chromsizes[chrom]:
        raise GenomeError(f"region {text}: not inside {chrom}:1-{chromsizes[chrom]}; give START <= END within it")
    return Region(chrom, start, min(end, chromsizes[chrom]))


def regions_within(texts: Sequence[str], chromsizes: Mapping[str, int]) -> list[str]:
    """Return the regions, as text, whose chromosome is one of some, whatever their span."""
    return [text for text in texts if text in chromsizes or text.rpartition(":")[0] in chromsizes]


def parse_regions(texts: Sequence[str], chromsizes: Mapping[str, int], resolution: int) -> list[Region]:
    """Parse regions, widen each to whole bins and return them in genome order.

    Raises
    ------
    GenomeError
        One is not valid, or two overlap.
    """
    order = list(chromsizes)
    parsed = sorted((parse_region(text, chromsizes) for text in texts), key=lambda r: (order.index(r.chrom), r.start))
    for one, other in pairwise(parsed):
        if one.chrom == other.chrom and other.start < one.end:
            raise GenomeError(f"region {one.chrom}:{one.start + 1}-{one.end}: overlaps the next one; join them")
    regions: list[Region] = []
    for chrom, start, end in parsed:
        first, last = start // resolution * resolution, min(-(-end // resolution) * resolution, chromsizes[chrom])
        if regions and regions[-1].chrom == chrom and first < regions[-1].end:  # they share a bin
            regions[-1] = Region(chrom, regions[-1].start, last)
        else:
            regions.append(Region(chrom, first, last))
    return regions


def tile(
    chrom: str, start: int, end: int, *, n_bins: int, context: int, flank: int, align: int = 1
) -> Iterator[Window]:
    """Cut the bins [start, end) of a chromosome into windows whose cores abut in order.

    Cores lie on one grid for the whole chromosome, so that a bin is seen in the same context whatever region it is
    asked for in. At the ends of a chromosome the context is moved inside; it overhangs a shorter chromosome, and the
    end of any by less than `align` bins.

    Parameters
    ----------
    start, end : bins
    n_bins : of the chromosome
    context : bins the network sees at once
    flank : bins at each side of a context that are predicted but not kept
    align : contexts start at multiples of so many bins, where core and flank are multiples too
    """
    core = context - 2 * flank
    if core <= 0:
        raise ValueError(f"a flank of {flank} bins leaves nothing of a context of {context}")
    last_start = -(-(n_bins - context) // align) * align
    for grid_start in range(start // core * core, end, core):
        context_start = max(0, min(grid_start - flank, last_start))
        core_start, core_end = max(grid_start, start), min(grid_start + core, end)
        yield Window(chrom, context_start, context_start + context, core_start, core_end)
