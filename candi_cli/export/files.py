"""Files of tracks from predictions: bigWig, bedGraph, narrowPeak and HDF5, one at a time, in genome order."""

import errno
import gzip
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from candi_cli.errors import OutputError, TrackError
from candi_cli.export.peaks import narrowpeak_lines
from candi_cli.export.quantities import Quantity, levels_of
from candi_cli.export.source import Source
from candi_cli.genome import Region
from candi_cli.io.bedgraph import bedgraph_lines
from candi_cli.io.bigwig import TrackWriter
from candi_cli.store.predictions import PredictionWriter

BIGWIG, BEDGRAPH, NARROWPEAK, HDF5 = "bigwig", "bedgraph", "narrowpeak", "hdf5"
FORMATS = {BIGWIG: ".bw", BEDGRAPH: ".bedGraph.gz", NARROWPEAK: ".narrowPeak", HDF5: ".h5"}
PEAK_THRESHOLD = 0.5
_BY_SUFFIX = {
    ".bw": BIGWIG, ".bigwig": BIGWIG, ".bedgraph": BEDGRAPH, ".bg": BEDGRAPH, ".bdg": BEDGRAPH,
    ".narrowpeak": NARROWPEAK, ".h5": HDF5, ".hdf5": HDF5,
}  # fmt: skip


def format_of(path: Path) -> str | None:
    """Return the format that a file's name stands for, None when it stands for none."""
    name = path.name.lower().removesuffix(".gz")
    return BEDGRAPH if name == "-" else _BY_SUFFIX.get(Path(name).suffix)


@dataclass(frozen=True)
class TrackFile:
    """One file that is to be written, in any process.

    Attributes
    ----------
    path : a temporary name; `-` is stdout
    shown_as : what errors call it; whether text is packed, its suffix says
    biosample, assay, quantity : what it shows; None for HDF5, which holds everything
    digits : significant decimal digits that are kept
    threshold : least probability of a bin in a peak
    command : for HDF5, the provenance
    """

    path: Path
    shown_as: Path
    format: str
    biosample: str = ""
    assay: str = ""
    quantity: Quantity | None = None
    digits: int = 3
    threshold: float = PEAK_THRESHOLD
    command: str = ""

    def write(self, source: Source) -> None:
        """Write it from predictions.

        Raises
        ------
        OutputError, TrackError, StoreError
            The disk is full, a value is not finite, or a file of predictions is damaged.
        """
        with source:
            _WRITERS[self.format](self, source)


def _blocks(file: TrackFile, source: Source) -> Iterator[tuple[Region, NDArray[np.float32]]]:
    """Yield the values of a track, region by region."""
    assert file.quantity is not None
    levels = levels_of(source.described.tracks[file.biosample, file.assay], file.quantity.kind)
    for region, parameters in source.blocks(file.biosample, file.assay, file.quantity.parameters):
        values = file.quantity.of(parameters, levels).astype(np.float32)
        if not np.isfinite(values).all():
            where = f"{region.chrom}:{region.start + 1}-{region.end}"
            raise TrackError(f"{file.shown_as}: a value in {where} is not finite")
        yield region, values


def _write_bigwig(file: TrackFile, source: Source) -> None:
    sizes = source.described.chromsizes
    chroms = {region.chrom: sizes[region.chrom] for region in source.regions(file.biosample)}
    with TrackWriter(
        file.path, chroms, resolution=source.described.resolution, digits=file.digits, shown_as=file.shown_as
    ) as writer:
        for region, values in _blocks(file, source):
            writer.add(region, values)


def _write_bedgraph(file: TrackFile, source: Source) -> None:
    with _opened(file) as handle:
        for lines in bedgraph_lines(_blocks(file, source), resolution=source.described.resolution, digits=file.digits):
            handle.write(lines)


def _write_narrowpeak(file: TrackFile, source: Source) -> None:
    with _opened(file) as handle:
        for lines in narrowpeak_lines(source, file.biosample, file.assay, file.threshold):
            handle.write(lines)


def _write_hdf5(file: TrackFile, source: Source) -> None:
    described = source.described
    with PredictionWriter(file.path, described, command=file.command, shown_as=file.shown_as) as writer:
        for biosample in described.biosamples:
            by_assay = [
                source.blocks(biosample, assay, described.tracks[biosample, assay]["parameters"])
                for assay in described.assays(biosample)
            ]
            for blocks in zip(*by_assay, strict=True):
                writer.add(biosample, blocks[0][0], np.concatenate([values for _, values in blocks]).T)


@contextmanager
def _opened(file: TrackFile) -> Iterator[BinaryIO]:
    """Open a text file, packed where its name says so; or stdout. A disk that is full is an OutputError."""
    try:
        if file.path == Path("-"):
            yield sys.stdout.buffer
            sys.stdout.flush()
            return
        with file.path.open("wb") as raw:
            if file.shown_as.suffix != ".gz":
                yield raw
                return
            with gzip.GzipFile("", "wb", compresslevel=6, fileobj=raw, mtime=0) as packed:  # the same bytes each time
                yield packed  # type: ignore[misc]
    except OSError as error:
        if isinstance(error, BrokenPipeError):
            raise
        if error.errno == errno.EBADF and file.path == Path("-"):
            raise OutputError("-: stdout is closed; give a file name with -o") from error
        raise OutputError(f"{file.shown_as}: cannot be written ({error.strerror}); make room on the disk") from error


_WRITERS: dict[str, Callable[[TrackFile, Source], None]] = {
    BIGWIG: _write_bigwig, BEDGRAPH: _write_bedgraph, NARROWPEAK: _write_narrowpeak, HDF5: _write_hdf5,
}  # fmt: skip
