"""The tensor store: one HDF5 file of counts, signal and peaks in bins, with what is needed to know what they mean.

The layout is documented in `man/candi-store.5`. A store is written under a temporary name and renamed when complete.
"""

import json
import os
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
from candi_cli.errors import GenomeError
from candi_cli.genome import Chromsizes, bin_count
from candi_cli.store.chunks import ChunkedDataset, checked, checksum_of, naming_failure, write_chunks
from candi_cli.store.opening import naming_damage, open_hdf5

FORMAT = "candi-store"
FORMAT_VERSION = 2
LAYERS = ("counts", "folds", "signal", "peaks")
BLOCKS, SPANS = "blocks", "signal_spans"  # where reads start, and where a signal was measured
ATTRIBUTES = ("covariates", "fold_depths", "origin", "sources")  # of an experiment
_HEADER = ("candi_version", "command", "counting", "format", "format_version")
_REMEDY = "rebuild it with 'candi bin'"


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


class Store:
    """An open store; use it as a context manager.

    `Store.create` makes a new one (in memory when its path is None), `Store.open` reads one that exists.
    """

    def __init__(self, file: h5py.File, path: Path | None) -> None:
        self._file, self.path, self._process = file, path, os.getpid()
        self._shown_as = path
        self._image: Path | None = None  # where a file that is made in memory goes when it is closed
        self._chunked: dict[tuple[str, str, str, str], ChunkedDataset] = {}
        with self.naming_damage("its header"):
            header = checked(header_of(file), file)
            self.rule = CountingRule.from_json(json.loads(header["counting"]))
            self.chromsizes: Chromsizes = dict(zip(header["chroms"], header["lengths"].tolist(), strict=True))

    def __getstate__(self) -> dict[str, Any]:
        """Travel to another process as a path, to be opened there anew."""
        if self.path is None:
            raise TypeError("a store in memory cannot be sent to another process")
        return {"path": self.path.resolve()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        opened = Store.open(state["path"])
        self.__dict__.update(opened.__dict__)

    @contextmanager
    def naming_damage(self, what: str) -> Iterator[None]:
        """Raise StoreError where HDF5, or JSON in it, cannot be read."""
        with naming_damage(self.name, what, remedy=_REMEDY):
            yield

    def opened(self) -> h5py.File:
        """Return the file, opened anew in a process that was forked since: HDF5 must not be shared over a fork."""
        if self._process != os.getpid() and self.path is not None:
            self._file = h5py.File(self.path, "r")
            self._chunked, self._process = {}, os.getpid()
        return self._file

    def group(self, biosample: str, assay: str) -> h5py.Group:
        """Return the HDF5 group of an experiment."""
        return self.opened()["biosamples"][biosample][assay]

    @classmethod
    def create(
        cls,
        path: Path | None,
        *,
        rule: CountingRule,
        chromsizes: Mapping[str, int],
        command: str = "",
        shown_as: Path | None = None,
        whole: bool = False,
    ) -> "Store":
        """Make an empty store at `path`, or in memory.

        Parameters
        ----------
        whole : make it in memory and write it when it is closed, for one of few experiments: HDF5 itself does not
            survive a disk that fills up
        shown_as : what an error on writing calls the file, when `path` is a temporary name

        Raises
        ------
        OutputError
            It cannot be written; so do the methods that write, and `close`.
        GenomeError
            A chromosome's name cannot be that of a dataset.
        """
        for chrom in chromsizes:
            if "/" in chrom or chrom.startswith("."):
                raise GenomeError(
                    f"{shown_as or path or 'the genome'}: chromosome {chrom} holds a slash or starts with a dot, "
                    "which a store cannot name; leave it out with -g CHROM.SIZES"
                )
        with naming_failure(shown_as or path):
            if path is None or whole:
                file = h5py.File(f"in-memory-{uuid4()}", "w", driver="core", backing_store=False)
            else:
                file = h5py.File(path, "w")
            cls._write_header(file, rule, chromsizes, command)
        store = cls(file, path)
        store._shown_as, store._image = shown_as or path, path if whole else None
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
        file.attrs["crc32"] = checksum_of(header_of(file))

    @classmethod
    def open(cls, path: Path) -> "Store":
        """Open a store for reading.

        Raises
        ------
        StoreError
            It is missing, not a store, damaged, or of another format version.
        """
        file = open_hdf5(path, format_=FORMAT, version=FORMAT_VERSION, kind="a store", remedy=_REMEDY)
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
        with naming_failure(self._shown_as):
            if self._image is not None:
                self._file.flush()
                self._image.write_bytes(self._file.id.get_file_image())
            self._file.close()

    @property
    def name(self) -> str:
        """The store's path, for messages."""
        return str(self.path) if self.path else "the reads given"

    @property
    def biosamples(self) -> list[str]:
        """Names of the biosamples, sorted."""
        with self.naming_damage("its list of biosamples"):
            return sorted(self.opened()["biosamples"])

    def assays(self, biosample: str) -> list[str]:
        """Names of the assays of a biosample, sorted; the control is one of them."""
        with self.naming_damage(f"its list of assays of {biosample}"):
            return sorted(self.opened()["biosamples"][biosample])

    def n_bins(self, chrom: str) -> int:
        """Return the number of bins of a chromosome."""
        return bin_count(self.chromsizes[chrom], self.rule.resolution)

    def add_experiment(self, biosample: str, assay: str) -> None:
        """Open an experiment's place; its layers follow by `write`, its covariates by `describe`."""
        with naming_failure(self._shown_as):
            self.opened()["biosamples"].require_group(biosample).create_group(assay)

    def write(self, biosample: str, assay: str, layer: str, chrom: str, values: NDArray[Any]) -> None:
        """Store one layer of a chromosome: shape (n_bins,), for folds (n_bins, K); integers in the smallest width."""
        if len(values) != self.n_bins(chrom):
            raise ValueError(f"{layer} of {chrom} has {len(values)} bins, the grid {self.n_bins(chrom)}")
        stored = np.ascontiguousarray((narrowest(values, copy=False) if values.dtype.kind == "u" else values).T)
        stored = stored.astype(stored.dtype.newbyteorder("<"), copy=False)
        with naming_failure(self._shown_as):
            write_chunks(self.group(biosample, assay), f"{layer}/{chrom}", stored)

    def write_blocks(self, biosample: str, assay: str, chrom: str, blocks: NDArray[np.uint32], block_bp: int) -> None:
        """Store how many reads start in each block of a chromosome."""
        with naming_failure(self._shown_as):
            dataset = self.group(biosample, assay).create_dataset(f"{BLOCKS}/{chrom}", data=blocks)
            dataset.attrs["block_bp"] = block_bp
            dataset.attrs["crc32"] = np.uint32(isal_zlib.crc32(np.ascontiguousarray(blocks)))

    def write_spans(self, biosample: str, assay: str, chrom: str, spans: NDArray[np.int64]) -> None:
        """Store where on a chromosome an experiment's signal was measured: half-open intervals in bp, shape (K, 2)."""
        with naming_failure(self._shown_as):
            dataset = self.group(biosample, assay).create_dataset(f"{SPANS}/{chrom}", data=spans)
            dataset.attrs["crc32"] = np.uint32(isal_zlib.crc32(np.ascontiguousarray(spans)))

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
        with naming_failure(self._shown_as):
            self.group(biosample, assay).attrs.update(
                covariates=json.dumps(asdict(covariates), sort_keys=True),
                fold_depths=np.asarray(fold_depths, dtype=np.int64),
                sources=json.dumps(list(sources), sort_keys=True),
                origin=json.dumps(dict(origin or {}), sort_keys=True),
            )
            group = self.group(biosample, assay)
            group.attrs["crc32"] = checksum_of(attributes_of(group))

    def adopt(self, other: "Store", biosample: str, assay: str) -> None:
        """Take over an experiment of another store, its compressed data as they are."""
        with naming_failure(self._shown_as):
            place = self.opened()["biosamples"].require_group(biosample)
            other.opened().copy(f"biosamples/{biosample}/{assay}", place, name=assay)

    def experiment(self, biosample: str, assay: str) -> StoredExperiment:
        """Return what the store knows of an experiment."""
        with self.naming_damage(f"{biosample}/{assay}"):
            group = self.group(biosample, assay)
            attributes = checked(attributes_of(group), group)
            covariates = Covariates(**json.loads(attributes["covariates"]))
            layers = frozenset(layer for layer in LAYERS if layer in group)
            origin = json.loads(attributes["origin"])
            return StoredExperiment(biosample, assay, covariates, attributes["fold_depths"][:], layers, **origin)

    def sources(self, biosample: str, assay: str) -> list[dict[str, Any]]:
        """Return name, size and modification time of the files that an experiment was made from."""
        with self.naming_damage(f"{biosample}/{assay}"):
            group = self.group(biosample, assay)
            found: list[dict[str, Any]] = json.loads(checked(attributes_of(group), group)["sources"])
        return found

    def chroms_with_reads(self, biosample: str) -> list[str]:
        """Return the chromosomes on which any experiment of a biosample has reads, in genome order."""
        return self.chroms_with(biosample, "counts")

    def chroms_with(self, biosample: str, layer: str) -> list[str]:
        """Return the chromosomes on which any experiment of a biosample has a layer, in genome order."""
        assays = self.assays(biosample)
        return [chrom for chrom in self.chromsizes if any(self.has(biosample, assay, layer, chrom) for assay in assays)]

    def has(self, biosample: str, assay: str, layer: str, chrom: str) -> bool:
        """Return whether an experiment has a layer on a chromosome."""
        with self.naming_damage(f"{layer} of {biosample}/{assay}"):
            return f"{layer}/{chrom}" in self.group(biosample, assay)

    def read(self, biosample: str, assay: str, layer: str, chrom: str, start: int, end: int) -> NDArray[Any]:
        """Return the bins [start, end) of a layer; bins outside of the chromosome, and chromosomes without data, are 0.

        Raises
        ------
        StoreError
            They cannot be unpacked: the file is damaged.
        """
        with self.naming_damage(f"{layer} of {biosample}/{assay} on {chrom}"):
            self.opened()
            return self._layer(biosample, assay, layer, chrom).read(start, end).T

    def _layer(self, biosample: str, assay: str, layer: str, chrom: str) -> "ChunkedDataset":
        key = (biosample, assay, layer, chrom)
        if key not in self._chunked:
            group = self.group(biosample, assay)[layer]
            found = group.get(chrom)
            like = found if found is not None else next(iter(group.values()))
            self._chunked[key] = ChunkedDataset(like) if found is not None else ChunkedDataset(like, empty=True)
        return self._chunked[key]

    def facts(self) -> dict[str, Any]:
        """Return what the store says of itself and of each experiment, as plain JSON values."""
        with self.naming_damage("its header"):
            header = self.opened().attrs
            facts: dict[str, Any] = {
                "format_version": int(header["format_version"]),
                "candi_version": header["candi_version"],
                "command": header["command"],
                "counting": self.rule.to_json(),
                "chromsizes": self.chromsizes,
            }
        facts["experiments"] = [
            {
                **item._asdict(),
                "covariates": asdict(item.covariates),
                "layers": [layer for layer in LAYERS if layer in item.layers],
                "fold_depths": item.fold_depths.tolist(),
                "sources": self.sources(item.biosample, item.assay),
            }
            for biosample in self.biosamples
            for item in (self.experiment(biosample, assay) for assay in self.assays(biosample))
        ]
        return facts

    def covered_blocks(self, biosample: str, chrom: str) -> tuple[NDArray[np.bool_], int]:
        """Return which blocks of a chromosome hold a read of any experiment, and the block's width in bp.

        A chromosome without any read is one block that is not covered.
        """
        found = None
        block_bp = 0
        with self.naming_damage(f"blocks of {biosample} on {chrom}"):
            for group in self.opened()["biosamples"][biosample].values():
                dataset = group.get(f"{BLOCKS}/{chrom}")
                if dataset is not None:
                    covered = dataset[:] > 0
                    found = covered if found is None else found | covered
                    block_bp = int(dataset.attrs["block_bp"])
        if found is None:
            return np.zeros(1, dtype=np.bool_), self.chromsizes[chrom]
        return found, block_bp

    def signal_spans(self, biosample: str, assay: str, chrom: str) -> NDArray[np.int64]:
        """Return where on a chromosome an experiment's signal was measured: sorted intervals in bp, shape (K, 2).

        In a store that does not say so, it was measured on the whole of each chromosome that has one.
        """
        with self.naming_damage(f"{SPANS} of {biosample}/{assay} on {chrom}"):
            group = self.group(biosample, assay)
            if f"signal/{chrom}" not in group:
                return np.zeros((0, 2), dtype=np.int64)
            if SPANS not in group:
                return np.array([[0, self.chromsizes[chrom]]], dtype=np.int64)
            spans: NDArray[np.int64] = group[SPANS][chrom][:]
        return spans


def attributes_of(experiment: h5py.Group) -> dict[str, Any]:
    """Return the attributes of an experiment."""
    return {name: experiment.attrs[name] for name in ATTRIBUTES}


def header_of(file: h5py.File) -> dict[str, Any]:
    """Return what the header says: attributes of the file, and its genome."""
    header = {name: file.attrs[name] for name in _HEADER}
    return header | {"chroms": file["genome/chroms"].asstr()[:], "lengths": file["genome/lengths"][:]}
