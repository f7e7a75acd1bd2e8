"""Predicted distributions of tracks in one HDF5 file: what every track, score and figure is made from.

The layout is documented in `man/candi-store.5`. Values are written as they come, in genome order, so that memory is
bounded by a few chunks of each dataset. Bins that were not predicted are NaN.
"""

import json
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from candi_cli import __version__
from candi_cli.genome import Chromsizes, Region, bin_count
from candi_cli.store.chunks import LEVEL, checked, checksum_of, compressed, ensure_room, naming_failure
from candi_cli.store.opening import naming_damage, open_hdf5, says_it_is

FORMAT = "candi-predictions"
FORMAT_VERSION = 1
PARAMETERS = {  # of the predicted distribution of each kind of track
    "counts": ("count_log_mean", "count_log_dispersion"),
    "signal": ("signal_mean", "signal_sd"),
    "peaks": ("peak_logit",),
}
CHUNK_BINS = 1 << 14
_CHUNKS_AHEAD = 4  # of each dataset, that are compressed meanwhile
_HEADER = ("candi_version", "command", "described", "format", "format_version")
_REMEDY = "make it again with 'candi impute -O hdf5'"
_DROPPED_BITS = 7  # of a float32's 23: what is kept is exact to 8e-6 of a value
Float = NDArray[np.float32]


@dataclass(frozen=True)
class Described:
    """What predictions are of; equal in all parts of one run, on whatever machine they were made.

    Attributes
    ----------
    resolution : bp of a bin
    model : family and sha256 of the model
    tracks : for each (biosample, assay): whether it was observed, the covariates of its input (None where there is
        none) and those that were asked for, and the parameters that are kept
    wanted : for each biosample, where a run over everything predicts
    inputs : for each biosample, the covariates of each assay that was read (the control is one), and the DNA's file
    """

    resolution: int
    chromsizes: Chromsizes
    model: dict[str, Any]
    tracks: dict[tuple[str, str], dict[str, Any]]
    wanted: dict[str, list[Region]] = field(default_factory=dict)
    inputs: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def biosamples(self) -> list[str]:
        """Names of the biosamples, sorted."""
        return sorted({biosample for biosample, _ in self.tracks})

    def assays(self, biosample: str) -> list[str]:
        """Names of a biosample's assays, in the order in which they are kept."""
        return [assay for name, assay in self.tracks if name == biosample]

    def n_bins(self, chrom: str) -> int:
        """Return the number of bins of a chromosome."""
        return bin_count(self.chromsizes[chrom], self.resolution)

    def parameters(self, biosample: str) -> list[tuple[str, str]]:
        """Return (assay, parameter) of each dataset of a biosample, in order."""
        return [
            (assay, name) for assay in self.assays(biosample) for name in self.tracks[biosample, assay]["parameters"]
        ]

    def only(self, tracks: Sequence[tuple[str, str]]) -> "Described":
        """Return what is described of some tracks."""
        kept = {key: value for key, value in self.tracks.items() if key in tracks}
        names = {biosample for biosample, _ in kept}
        wanted = {name: where for name, where in self.wanted.items() if name in names}
        return replace(self, tracks=kept, wanted=wanted)

    def on(self, chrom: str) -> "Described":
        """Return what a part of a run needs to say of itself: with thousands of contigs, no part names them all."""
        return replace(self, chromsizes={chrom: self.chromsizes[chrom]}, wanted={})

    def to_json(self) -> str:
        """Return everything as JSON text; equal texts are equal descriptions."""
        plain = asdict(self) | {
            "tracks": [[*key, value] for key, value in self.tracks.items()],
            "chromsizes": list(self.chromsizes.items()),
        }
        return json.dumps(plain, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> "Described":
        """Return what `to_json` wrote."""
        plain = json.loads(text)
        return cls(
            resolution=plain["resolution"],
            chromsizes=dict(plain["chromsizes"]),
            model=plain["model"],
            tracks={(biosample, assay): value for biosample, assay, value in plain["tracks"]},
            wanted={name: [Region(*each) for each in regions] for name, regions in plain["wanted"].items()},
            inputs=plain["inputs"],
        )


class PredictionWriter:
    """Write predictions of some regions; use it as a context manager.

    Parameters
    ----------
    path : a temporary name; renaming it when it is complete is the caller's part
    described : what the predictions are of
    command : for the provenance
    shown_as : what errors call the file
    threads : that compress

    Raises
    ------
    OutputError
        It cannot be written, or the disk is full.
    """

    def __init__(
        self, path: Path, described: Described, *, command: str = "", shown_as: Path | None = None, threads: int = 1
    ) -> None:
        self.described, self._shown_as = described, shown_as or path
        self._folder = path.resolve().parent
        self._regions: dict[tuple[str, str], list[tuple[int, int]]] = {}
        self._datasets: dict[tuple[str, str], list[h5py.Dataset]] = {}
        self._open: tuple[str, str] | None = None  # biosample and chromosome that are being written
        self._chunk_start, self._buffer = 0, np.empty((0, CHUNK_BINS), dtype=np.float32)
        self._pool = ThreadPoolExecutor(max_workers=threads)
        self._coming: deque[tuple[int, list[Future[bytes]]]] = deque()  # chunks that are being compressed
        with naming_failure(self._shown_as):
            self._file = h5py.File(path, "w")
            self._file.attrs.update(
                format=FORMAT, format_version=FORMAT_VERSION, candi_version=__version__, command=command,
                described=described.to_json(),
            )  # fmt: skip
            self._file.attrs["crc32"] = checksum_of({name: self._file.attrs[name] for name in _HEADER})

    def __enter__(self) -> "PredictionWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                with naming_failure(self._shown_as):
                    self._flush()
                    self._write(at_most=0)
                    for (biosample, chrom), spans in self._regions.items():
                        self._file.create_dataset(f"regions/{biosample}/{chrom}", data=np.array(spans, dtype=np.int64))
                    self._file.close()
        finally:
            self._pool.shutdown(cancel_futures=True)
            with suppress(OSError, RuntimeError):  # closing fails once more when the disk is full
                self._file.close()

    def add(self, biosample: str, region: Region, values: Float) -> None:
        """Append bins of a region that starts on a bin: values of shape (n_bins, datasets of the biosample).

        The regions of a chromosome come in order, and those of one chromosome together.
        """
        key, start = (biosample, region.chrom), region.start // self.described.resolution
        if key != self._open:
            self._flush()
            self._begin(key, start)
        spans = self._regions[key]
        if spans and spans[-1][1] == region.start:
            spans[-1] = (spans[-1][0], region.end)
        else:
            spans.append((region.start, region.end))
        rows = values.T
        for first, last in _pieces(start, start + len(values)):
            if first // CHUNK_BINS * CHUNK_BINS != self._chunk_start:
                self._flush()
                self._chunk_start = first // CHUNK_BINS * CHUNK_BINS
            self._buffer[:, first - self._chunk_start : last - self._chunk_start] = rows[
                :, first - start : last - start
            ]

    def _begin(self, key: tuple[str, str], start: int) -> None:
        biosample, chrom = key
        if key in self._regions:
            raise ValueError(f"{biosample} {chrom} comes twice")
        self._write(at_most=0)
        n_bins = self.described.n_bins(chrom)
        with naming_failure(self._shown_as):
            self._datasets[key] = [
                self._file.create_dataset(
                    f"biosamples/{biosample}/{assay}/{parameter}/{chrom}",
                    shape=(n_bins,), dtype="<f4", chunks=(CHUNK_BINS,), maxshape=(None,), fillvalue=np.float32(np.nan),
                    compression="gzip", compression_opts=LEVEL, shuffle=True,
                )
                for assay, parameter in self.described.parameters(biosample)
            ]  # fmt: skip
        self._open, self._regions[key] = key, []
        self._chunk_start = start // CHUNK_BINS * CHUNK_BINS
        self._buffer = np.full((len(self._datasets[key]), CHUNK_BINS), np.nan, dtype=np.float32)

    def _flush(self) -> None:
        if self._open is None:
            return
        self._coming.append((self._chunk_start, [self._pool.submit(_stored, row) for row in self._buffer]))
        self._buffer = np.full_like(self._buffer, np.nan)
        self._write(at_most=_CHUNKS_AHEAD)

    def _write(self, *, at_most: int) -> None:
        """Write chunks in order until so many are left to be written."""
        while self._open is not None and len(self._coming) > at_most:
            start, rows = self._coming.popleft()
            ensure_room(self._folder, self._buffer.nbytes, self._shown_as)
            with naming_failure(self._shown_as):
                for dataset, row in zip(self._datasets[self._open], rows, strict=True):
                    dataset.id.write_direct_chunk((start,), row.result())


def _stored(row: Float) -> bytes:
    return compressed(rounded(row), (CHUNK_BINS,))


def _pieces(start: int, end: int) -> Iterator[tuple[int, int]]:
    """Cut bins at the borders of chunks."""
    while start < end:
        last = min((start // CHUNK_BINS + 1) * CHUNK_BINS, end)
        yield start, last
        start = last


def rounded(values: Float) -> Float:
    """Return values with 16 bits after the leading one, rounded to even: they compress, and lose 8e-6 of themselves.

    NaN and infinities stay what they are.
    """
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    half, kept = np.uint32((1 << (_DROPPED_BITS - 1)) - 1), np.uint32(~((1 << _DROPPED_BITS) - 1) & 0xFFFFFFFF)
    nearest = ((bits + (half + ((bits >> np.uint32(_DROPPED_BITS)) & np.uint32(1)))) & kept).view(np.float32)
    return np.where(np.isfinite(values), nearest, values)


class Predictions:
    """An open file of predictions; use it as a context manager.

    Raises
    ------
    StoreError
        It is missing, not a file of predictions, damaged, or of another format version.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = open_hdf5(
            path, format_=FORMAT, version=FORMAT_VERSION, kind="a file of predictions", remedy=_REMEDY
        )
        with self._naming_damage("its header"):
            header = checked({name: self._file.attrs[name] for name in _HEADER}, self._file)
            self.command = str(header["command"])
            self.described = Described.from_json(header["described"])

    @contextmanager
    def _naming_damage(self, what: str) -> Iterator[None]:
        with naming_damage(self.path, what, remedy=_REMEDY):
            yield

    def __enter__(self) -> "Predictions":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def regions(self, biosample: str) -> list[Region]:
        """Return what was predicted of a biosample, in genome order."""
        with self._naming_damage(f"regions of {biosample}"):
            group = self._file.get(f"regions/{biosample}", {})
            return [
                Region(chrom, start, end)
                for chrom in self.described.chromsizes
                if chrom in group
                for start, end in group[chrom][:].tolist()
            ]

    def read(self, biosample: str, assay: str, parameters: Sequence[str], chrom: str, start: int, end: int) -> Float:
        """Return the bins [start, end) of some parameters: shape (P, end - start), NaN where not predicted."""
        with self._naming_damage(f"{assay} of {biosample} on {chrom}"):
            group = self._file[f"biosamples/{biosample}/{assay}"]
            return np.stack([group[f"{name}/{chrom}"][start:end] for name in parameters])


def parameters_of(kinds: Sequence[str]) -> list[str]:
    """Return the parameters that tracks of some kinds are made from, in order."""
    return [name for kind, names in PARAMETERS.items() if kind in kinds for name in names]


def kinds_of(parameters: Sequence[str]) -> list[str]:
    """Return the kinds of tracks that can be made from some parameters."""
    return [kind for kind, names in PARAMETERS.items() if set(names) <= set(parameters)]


def is_predictions(path: Path) -> bool:
    """Return whether an HDF5 file says that it holds predictions."""
    return says_it_is(path, FORMAT)


def bytes_of(described: Described, regions: Mapping[str, Sequence[Region]]) -> int:
    """Return about how many bytes predictions take on disk."""
    kept = 3.0  # bytes of a rounded float32 after compression, as measured
    return int(
        sum(
            kept * len(described.parameters(biosample)) * bin_count(region.end - region.start, described.resolution)
            for biosample, found in regions.items()
            for region in found
        )
    )
