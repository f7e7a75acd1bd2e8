"""The tensor store: one HDF5 file of counts, signal and peaks in bins, with what is needed to know what they mean.

The layout is documented in `man/candi-store.5`. A store is written under a temporary name and renamed when complete.
"""

import json
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple
from uuid import uuid4

import h5py
import numpy as np
from isal import isal_zlib
from numpy.typing import NDArray

from candi_cli import __version__
from candi_cli.counting import CountingRule, narrowest
from candi_cli.covariates import Covariates
from candi_cli.errors import OutputError, StoreError
from candi_cli.genome import Chromsizes, bin_count

FORMAT = "candi-store"
FORMAT_VERSION = 2
LAYERS = ("counts", "folds", "signal", "peaks")
CHUNK_BINS = 2048
_DAMAGE: tuple[Any, ...] = (OSError, RuntimeError, KeyError, ValueError, TypeError, isal_zlib.error)
_LEVEL = 1  # of igzip: near zlib's level 4 in size, five times as fast


class StoredExperiment(NamedTuple):
    """An experiment of a store: its covariates and which layers it has."""

    biosample: str
    assay: str
    covariates: Covariates
    fold_depths: NDArray[np.int64]
    layers: frozenset[str]
    donor: str | None = None
    tissue: str | None = None
    split: str | None = None


class Finding(NamedTuple):
    """One dataset that `Store.verify` looked at: its path in the file and what is wrong with it, if anything."""

    dataset: str
    fault: str | None


class Store:
    """An open store; use it as a context manager.

    `Store.create` makes a new one (in memory when its path is None), `Store.open` reads one that exists.
    """

    def __init__(self, file: h5py.File, path: Path | None) -> None:
        self._file, self.path, self._process = file, path, os.getpid()
        self._shown_as = path
        self._chunked: dict[tuple[str, str, str, str], _Chunked] = {}
        with self._naming_damage("its header"):
            self.rule = CountingRule.from_json(json.loads(file.attrs["counting"]))
            names = file["genome/chroms"].asstr()[:]
            self.chromsizes: Chromsizes = dict(zip(names, file["genome/lengths"][:].tolist(), strict=True))

    def __getstate__(self) -> dict[str, Any]:
        """Travel to another process as a path, to be opened there anew."""
        if self.path is None:
            raise TypeError("a store in memory cannot be sent to another process")
        return {"path": self.path.resolve()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        opened = Store.open(state["path"])
        self.__dict__.update(opened.__dict__)

    @contextmanager
    def _naming_damage(self, what: str) -> Iterator[None]:
        """Raise StoreError where HDF5, or JSON in it, cannot be read."""
        try:
            yield
        except _DAMAGE as error:
            raise self._damaged(what) from error

    def _damaged(self, what: str) -> StoreError:
        return StoreError(f"{self.name}: {what} cannot be read; it is damaged, rebuild it with 'candi bin'")

    def _opened(self) -> h5py.File:
        """Return the file, opened anew in a process that was forked since: HDF5 must not be shared over a fork."""
        if self._process != os.getpid() and self.path is not None:
            self._file = h5py.File(self.path, "r")
            self._chunked, self._process = {}, os.getpid()
        return self._file

    def _group(self, biosample: str, assay: str) -> h5py.Group:
        return self._opened()["biosamples"][biosample][assay]

    @classmethod
    def create(
        cls,
        path: Path | None,
        *,
        rule: CountingRule,
        chromsizes: Mapping[str, int],
        command: str = "",
        shown_as: Path | None = None,
    ) -> "Store":
        """Make an empty store at `path`, or in memory.

        Parameters
        ----------
        shown_as : what an error on writing calls the file, when `path` is a temporary name

        Raises
        ------
        OutputError
            It cannot be written; so do the methods that write, and `close`.
        """
        with _naming_failure(shown_as or path):
            if path is None:
                file = h5py.File(f"in-memory-{uuid4()}", "w", driver="core", backing_store=False)
            else:
                file = h5py.File(path, "w")
            cls._write_header(file, rule, chromsizes, command)
        store = cls(file, path)
        store._shown_as = shown_as or path
        return store

    @staticmethod
    def _write_header(file: h5py.File, rule: CountingRule, chromsizes: Mapping[str, int], command: str) -> None:
        file.attrs.update(
            format=FORMAT,
            format_version=FORMAT_VERSION,
            candi_version=__version__,
            command=command,
            counting=json.dumps(rule.to_json(), sort_keys=True),
        )
        genome = file.create_group("genome")
        genome.create_dataset("chroms", data=list(chromsizes), dtype=h5py.string_dtype())
        genome.create_dataset("lengths", data=np.array(list(chromsizes.values()), dtype=np.int64))
        file.create_group("biosamples")

    @classmethod
    def open(cls, path: Path) -> "Store":
        """Open a store for reading.

        Raises
        ------
        StoreError
            It is missing, not a store, damaged, or of another format version.
        """
        if not path.exists():
            raise StoreError(f"{path}: no such file; check the path")
        try:
            file = h5py.File(path, "r")
        except (PermissionError, BlockingIOError) as error:
            raise StoreError(f"{path}: cannot be opened ({error.strerror}); is another program writing it?") from error
        except OSError as error:
            raise StoreError(f"{path}: not a store, or damaged; rebuild it with 'candi bin'") from error
        if file.attrs.get("format") != FORMAT:
            raise StoreError(f"{path}: an HDF5 file but not a store; make one with 'candi bin'")
        found = file.attrs.get("format_version")
        if found != FORMAT_VERSION:
            raise StoreError(f"{path}: format version {found}, expected {FORMAT_VERSION}; rebuild it with 'candi bin'")
        return cls(file, path)

    def __enter__(self) -> "Store":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
        else:
            with suppress(OSError, RuntimeError):  # closing fails once more when the disk is full
                self._file.close()

    def close(self) -> None:
        """Close the file; a store in memory is gone."""
        with _naming_failure(self._shown_as):
            self._file.close()

    @property
    def name(self) -> str:
        """The store's path, for messages."""
        return str(self.path) if self.path else "the reads given"

    @property
    def biosamples(self) -> list[str]:
        """Names of the biosamples, sorted."""
        return sorted(self._opened()["biosamples"])

    def assays(self, biosample: str) -> list[str]:
        """Names of the assays of a biosample, sorted; the control is one of them."""
        return sorted(self._opened()["biosamples"][biosample])

    def n_bins(self, chrom: str) -> int:
        """Return the number of bins of a chromosome."""
        return bin_count(self.chromsizes[chrom], self.rule.resolution)

    def add_experiment(self, biosample: str, assay: str) -> None:
        """Open an experiment's place; its layers follow by `write`, its covariates by `describe`."""
        with _naming_failure(self._shown_as):
            self._opened()["biosamples"].require_group(biosample).create_group(assay)

    def write(self, biosample: str, assay: str, layer: str, chrom: str, values: NDArray[Any]) -> None:
        """Store one layer of a chromosome: shape (n_bins,), for folds (n_bins, K); integers in the smallest width."""
        if len(values) != self.n_bins(chrom):
            raise ValueError(f"{layer} of {chrom} has {len(values)} bins, the grid {self.n_bins(chrom)}")
        stored = np.ascontiguousarray((narrowest(values) if values.dtype.kind == "u" else values).T)
        stored = stored.astype(stored.dtype.newbyteorder("<"), copy=False)
        with _naming_failure(self._shown_as):
            self._write_chunks(self._group(biosample, assay), f"{layer}/{chrom}", stored)

    @staticmethod
    def _write_chunks(group: h5py.Group, name: str, stored: NDArray[Any]) -> None:
        chunks = (*stored.shape[:-1], min(CHUNK_BINS, stored.shape[-1]))
        origin = tuple(0 for _ in stored.shape[:-1])
        dataset = group.create_dataset(
            name,
            shape=stored.shape,
            dtype=stored.dtype,
            chunks=chunks,
            compression="gzip",
            compression_opts=_LEVEL,
            shuffle=stored.itemsize > 1,
        )
        for start in range(0, stored.shape[-1], chunks[-1]):
            chunk = _compressed(stored[..., start : start + chunks[-1]], chunks)
            dataset.id.write_direct_chunk((*origin, start), chunk)
        dataset.attrs["crc32"] = np.uint32(isal_zlib.crc32(stored))

    def write_blocks(self, biosample: str, assay: str, chrom: str, blocks: NDArray[np.uint32], block_bp: int) -> None:
        """Store how many reads start in each block of a chromosome."""
        with _naming_failure(self._shown_as):
            dataset = self._group(biosample, assay).create_dataset(f"blocks/{chrom}", data=blocks)
            dataset.attrs["block_bp"] = block_bp
            dataset.attrs["crc32"] = np.uint32(isal_zlib.crc32(np.ascontiguousarray(blocks)))

    def describe(
        self,
        biosample: str,
        assay: str,
        covariates: Covariates,
        *,
        fold_depths: Sequence[int] = (),
        sources: Sequence[Mapping[str, Any]] = (),
        origin: Mapping[str, str | None] | None = None,
    ) -> None:
        """Store an experiment's covariates, the reads in each fold, the files it was made from and its origin.

        Parameters
        ----------
        origin : donor, tissue and split, as the sample sheet says
        """
        with _naming_failure(self._shown_as):
            self._group(biosample, assay).attrs.update(
                covariates=json.dumps(asdict(covariates), sort_keys=True),
                fold_depths=np.asarray(fold_depths, dtype=np.int64),
                sources=json.dumps(list(sources), sort_keys=True),
                origin=json.dumps(dict(origin or {}), sort_keys=True),
            )

    def adopt(self, other: "Store", biosample: str, assay: str) -> None:
        """Take over an experiment of another store, its compressed data as they are."""
        with _naming_failure(self._shown_as):
            place = self._opened()["biosamples"].require_group(biosample)
            other._opened().copy(f"biosamples/{biosample}/{assay}", place, name=assay)

    def experiment(self, biosample: str, assay: str) -> StoredExperiment:
        """Return what the store knows of an experiment."""
        with self._naming_damage(f"{biosample}/{assay}"):
            group = self._group(biosample, assay)
            covariates = Covariates(**json.loads(group.attrs["covariates"]))
            layers = frozenset(layer for layer in LAYERS if layer in group)
            origin = json.loads(group.attrs["origin"])
            return StoredExperiment(biosample, assay, covariates, group.attrs["fold_depths"][:], layers, **origin)

    def sources(self, biosample: str, assay: str) -> list[dict[str, Any]]:
        """Return name, size and modification time of the files that an experiment was made from."""
        with self._naming_damage(f"{biosample}/{assay}"):
            found: list[dict[str, Any]] = json.loads(self._group(biosample, assay).attrs["sources"])
        return found

    def chroms_with_reads(self, biosample: str) -> list[str]:
        """Return the chromosomes on which any experiment of a biosample has reads, in genome order."""
        assays = self.assays(biosample)
        return [
            chrom for chrom in self.chromsizes if any(self.has(biosample, assay, "counts", chrom) for assay in assays)
        ]

    def has(self, biosample: str, assay: str, layer: str, chrom: str) -> bool:
        """Return whether an experiment has a layer on a chromosome."""
        return f"{layer}/{chrom}" in self._group(biosample, assay)

    def read(self, biosample: str, assay: str, layer: str, chrom: str, start: int, end: int) -> NDArray[Any]:
        """Return the bins [start, end) of a layer; bins outside of the chromosome, and chromosomes without data, are 0.

        Raises
        ------
        StoreError
            The data do not match their checksum.
        """
        try:
            self._opened()
            return self._layer(biosample, assay, layer, chrom).read(start, end).T
        except _DAMAGE as error:
            raise self._damaged(f"{layer} of {biosample}/{assay} on {chrom}") from error

    def _layer(self, biosample: str, assay: str, layer: str, chrom: str) -> "_Chunked":
        key = (biosample, assay, layer, chrom)
        if key not in self._chunked:
            group = self._group(biosample, assay)[layer]
            found = group.get(chrom)
            like = found if found is not None else next(iter(group.values()))
            self._chunked[key] = _Chunked(like) if found is not None else _Chunked(like, empty=True)
        return self._chunked[key]

    def facts(self) -> dict[str, Any]:
        """Return what the store says of itself and of each experiment, as plain JSON values."""
        with self._naming_damage("its header"):
            header = self._opened().attrs
            facts: dict[str, Any] = {
                "format_version": int(header["format_version"]),
                "candi_version": header["candi_version"],
                "command": header["command"],
                "counting": self.rule.to_json(),
                "chromsizes": self.chromsizes,
            }
        facts["experiments"] = [
            {
                **self.experiment(biosample, assay)._asdict(),
                "covariates": asdict(self.experiment(biosample, assay).covariates),
                "layers": [layer for layer in LAYERS if layer in self.experiment(biosample, assay).layers],
                "fold_depths": self.experiment(biosample, assay).fold_depths.tolist(),
                "sources": self.sources(biosample, assay),
            }
            for biosample in self.biosamples
            for assay in self.assays(biosample)
        ]
        return facts

    def verify(self) -> Iterator[Finding]:
        """Read every dataset and compare it with its checksum, and its shape with the grid.

        Yields
        ------
        Finding
            One for each dataset, in the order of the file.
        """
        for biosample in self.biosamples:
            for assay in self.assays(biosample):
                group = self._group(biosample, assay)
                for layer in sorted(group):
                    for chrom in sorted(group[layer], key=list(self.chromsizes).index):
                        yield Finding(f"{biosample}/{assay}/{layer}/{chrom}", self._fault(group[layer], layer, chrom))

    def _fault(self, group: h5py.Group, layer: str, chrom: str) -> str | None:
        try:
            dataset = group[chrom]
            n_bins = (
                self.n_bins(chrom) if layer in LAYERS else bin_count(self.chromsizes[chrom], dataset.attrs["block_bp"])
            )
            if dataset.shape[-1] != n_bins:
                return f"has {dataset.shape[-1]:,} bins, the grid {n_bins:,}"
            found = isal_zlib.crc32(np.ascontiguousarray(dataset[:]))
            return None if found == int(dataset.attrs["crc32"]) else "does not match its checksum"
        except (OSError, RuntimeError, KeyError, ValueError) as error:
            return f"cannot be read ({str(error).splitlines()[0]})"

    def covered_blocks(self, biosample: str, chrom: str) -> tuple[NDArray[np.bool_], int]:
        """Return which blocks of a chromosome hold a read of any experiment, and the block's width in bp.

        A chromosome without any read is one block that is not covered.
        """
        found = None
        block_bp = 0
        with self._naming_damage(f"blocks of {biosample} on {chrom}"):
            for group in self._opened()["biosamples"][biosample].values():
                dataset = group.get(f"blocks/{chrom}")
                if dataset is not None:
                    covered = dataset[:] > 0
                    found = covered if found is None else found | covered
                    block_bp = int(dataset.attrs["block_bp"])
        if found is None:
            return np.zeros(1, dtype=np.bool_), self.chromsizes[chrom]
        return found, block_bp


class _Chunked:
    """A dataset that is read chunk by chunk, without the filters and the chunk cache of HDF5, which are slower."""

    def __init__(self, dataset: h5py.Dataset, *, empty: bool = False) -> None:
        self._dataset, self._dtype, self._shape = dataset.id, dataset.dtype, dataset.chunks
        self._n_bins = 0 if empty else dataset.shape[-1]
        self._n_values = math.prod(self._shape)
        self._origin = tuple(0 for _ in self._shape[:-1])

    def read(self, start: int, end: int) -> NDArray[Any]:
        """Return the bins [start, end): shape (..., end - start), 0 where there are none."""
        n_chunk = self._shape[-1]
        values = np.zeros((*self._shape[:-1], end - start), dtype=self._dtype)
        for chunk_start in range(max(start, 0) // n_chunk * n_chunk, min(end, self._n_bins), n_chunk):
            first, last = max(start, chunk_start), min(end, chunk_start + n_chunk, self._n_bins)
            chunk = self._chunk(chunk_start)
            values[..., first - start : last - start] = chunk[..., first - chunk_start : last - chunk_start]
        return values

    def _chunk(self, chunk_start: int) -> NDArray[Any]:
        stored = self._dataset.read_direct_chunk((*self._origin, chunk_start))[1]
        planes = isal_zlib.decompress(stored, 15, self._n_values * self._dtype.itemsize)
        if self._dtype.itemsize == 1:
            return np.frombuffer(planes, self._dtype).reshape(self._shape)
        rows = np.frombuffer(planes, np.uint8).reshape(self._dtype.itemsize, self._n_values).T
        return np.ascontiguousarray(rows).view(self._dtype).reshape(self._shape)


@contextmanager
def _naming_failure(path: Path | None) -> Iterator[None]:
    """Raise OutputError where HDF5 cannot write."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        number = re.search(r"errno = (\d+)", str(error))
        reason = os.strerror(int(number[1])) if number else str(error).splitlines()[0]
        raise OutputError(
            f"{path}: cannot be written ({reason}); make room on the disk, or choose another -o"
        ) from error


def is_hdf5(path: Path) -> bool:
    """Return whether a file is HDF5, as a store is."""
    try:
        with path.open("rb") as handle:
            return handle.read(8) == b"\x89HDF\r\n\x1a\n"
    except OSError:
        return False


def _compressed(values: NDArray[Any], shape: tuple[int, ...]) -> bytes:
    """Return a chunk as HDF5's filters shuffle and gzip write it; the last one of a dataset is filled up with zeros."""
    if values.shape[-1] < shape[-1]:
        values = np.pad(values, [*((0, 0) for _ in shape[:-1]), (0, shape[-1] - values.shape[-1])])
    planes = np.ascontiguousarray(values).reshape(-1).view(np.uint8).reshape(-1, values.itemsize).T
    return isal_zlib.compress(np.ascontiguousarray(planes), _LEVEL, 15)
