"""The tensor store: one HDF5 file of counts, signal and peaks in bins, with what is needed to know what they mean.

The layout is documented in `man/candi-store.5`. A store is written under a temporary name and renamed when complete.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple
from uuid import uuid4

import h5py
import numpy as np
from numpy.typing import NDArray

from candi_cli import __version__
from candi_cli.counting import CountingRule
from candi_cli.covariates import Covariates
from candi_cli.errors import StoreError
from candi_cli.genome import Chromsizes, bin_count

FORMAT = "candi-store"
FORMAT_VERSION = 1
LAYERS = ("counts", "folds", "signal", "peaks")
_CHUNK_BINS = 4096


class StoredExperiment(NamedTuple):
    """An experiment of a store: its covariates and which layers it has."""

    biosample: str
    assay: str
    covariates: Covariates
    fold_depths: NDArray[np.int64]
    layers: frozenset[str]


class Store:
    """An open store; use it as a context manager.

    `Store.create` makes a new one (in memory when its path is None), `Store.open` reads one that exists.
    """

    def __init__(self, file: h5py.File, path: Path | None) -> None:
        self._file, self.path = file, path
        self.rule = CountingRule.from_json(json.loads(file.attrs["counting"]))
        names = file["genome/chroms"].asstr()[:]
        self.chromsizes: Chromsizes = dict(zip(names, file["genome/lengths"][:].tolist(), strict=True))

    @classmethod
    def create(
        cls, path: Path | None, *, rule: CountingRule, chromsizes: Mapping[str, int], command: str = ""
    ) -> "Store":
        """Make an empty store at `path`, or in memory."""
        if path is None:
            file = h5py.File(f"in-memory-{uuid4()}", "w", driver="core", backing_store=False)
        else:
            file = h5py.File(path, "w")
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
        return cls(file, path)

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
        self.close()

    def close(self) -> None:
        """Close the file; a store in memory is gone."""
        self._file.close()

    @property
    def name(self) -> str:
        """The store's path, for messages."""
        return str(self.path) if self.path else "the reads given"

    @property
    def biosamples(self) -> list[str]:
        """Names of the biosamples, sorted."""
        return sorted(self._file["biosamples"])

    def assays(self, biosample: str) -> list[str]:
        """Names of the assays of a biosample, sorted; the control is one of them."""
        return sorted(self._file["biosamples"][biosample])

    def n_bins(self, chrom: str) -> int:
        """Return the number of bins of a chromosome."""
        return bin_count(self.chromsizes[chrom], self.rule.resolution)

    def add_experiment(self, biosample: str, assay: str) -> None:
        """Open an experiment's place; its layers follow by `write`, its covariates by `describe`."""
        self._file["biosamples"].require_group(biosample).create_group(assay)

    def write(self, biosample: str, assay: str, layer: str, chrom: str, values: NDArray[Any]) -> None:
        """Store one layer of a chromosome: shape (n_bins,), for folds (n_bins, K); integers in the smallest width."""
        if len(values) != self.n_bins(chrom):
            raise ValueError(f"{layer} of {chrom} has {len(values)} bins, the grid {self.n_bins(chrom)}")
        self._file["biosamples"][biosample][assay].create_dataset(
            f"{layer}/{chrom}",
            data=_narrowest(values) if values.dtype.kind == "u" else values,
            chunks=(min(_CHUNK_BINS, len(values)), *values.shape[1:]),
            compression="gzip",
            compression_opts=4,
            shuffle=True,
            fletcher32=True,
        )

    def write_blocks(self, biosample: str, assay: str, chrom: str, blocks: NDArray[np.uint32], block_bp: int) -> None:
        """Store how many reads start in each block of a chromosome."""
        dataset = self._file["biosamples"][biosample][assay].create_dataset(f"blocks/{chrom}", data=blocks)
        dataset.attrs["block_bp"] = block_bp

    def describe(
        self,
        biosample: str,
        assay: str,
        covariates: Covariates,
        *,
        fold_depths: Sequence[int] = (),
        sources: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        """Store an experiment's covariates, the reads in each fold, and the files it was made from."""
        self._file["biosamples"][biosample][assay].attrs.update(
            covariates=json.dumps(asdict(covariates), sort_keys=True),
            fold_depths=np.asarray(fold_depths, dtype=np.int64),
            sources=json.dumps(list(sources), sort_keys=True),
        )

    def experiment(self, biosample: str, assay: str) -> StoredExperiment:
        """Return what the store knows of an experiment."""
        group = self._file["biosamples"][biosample][assay]
        covariates = Covariates(**json.loads(group.attrs["covariates"]))
        layers = frozenset(layer for layer in LAYERS if layer in group)
        return StoredExperiment(biosample, assay, covariates, group.attrs["fold_depths"][:], layers)

    def sources(self, biosample: str, assay: str) -> list[dict[str, Any]]:
        """Return name, size and modification time of the files that an experiment was made from."""
        found: list[dict[str, Any]] = json.loads(self._file["biosamples"][biosample][assay].attrs["sources"])
        return found

    def chroms_with_reads(self, biosample: str) -> list[str]:
        """Return the chromosomes on which any experiment of a biosample has reads, in genome order."""
        assays = self.assays(biosample)
        return [
            chrom for chrom in self.chromsizes if any(self.has(biosample, assay, "counts", chrom) for assay in assays)
        ]

    def has(self, biosample: str, assay: str, layer: str, chrom: str) -> bool:
        """Return whether an experiment has a layer on a chromosome."""
        return f"{layer}/{chrom}" in self._file["biosamples"][biosample][assay]

    def read(self, biosample: str, assay: str, layer: str, chrom: str, start: int, end: int) -> NDArray[Any]:
        """Return the bins [start, end) of a layer; bins outside of the chromosome, and chromosomes without data, are 0.

        Raises
        ------
        StoreError
            The data do not match their checksum.
        """
        group = self._file["biosamples"][biosample][assay][layer]
        n_bins = self.n_bins(chrom)
        inside_start, inside_end = min(max(start, 0), n_bins), max(min(end, n_bins), 0)
        dataset = group.get(chrom)
        like = dataset if dataset is not None else next(iter(group.values()))
        values = np.zeros((end - start, *like.shape[1:]), dtype=like.dtype)
        if dataset is not None and inside_start < inside_end:
            try:
                values[inside_start - start : inside_end - start] = dataset[inside_start:inside_end]
            except OSError as error:
                raise StoreError(
                    f"{self.name}: {layer} of {biosample}/{assay} on {chrom} are damaged; rebuild it with 'candi bin'"
                ) from error
        return values

    def covered_blocks(self, biosample: str, chrom: str) -> tuple[NDArray[np.bool_], int]:
        """Return which blocks of a chromosome hold a read of any experiment, and the block's width in bp.

        A chromosome without any read is one block that is not covered.
        """
        found = None
        block_bp = 0
        for group in self._file["biosamples"][biosample].values():
            dataset = group.get(f"blocks/{chrom}")
            if dataset is not None:
                covered = dataset[:] > 0
                found = covered if found is None else found | covered
                block_bp = int(dataset.attrs["block_bp"])
        if found is None:
            return np.zeros(1, dtype=np.bool_), self.chromsizes[chrom]
        return found, block_bp


def _narrowest(values: NDArray[Any]) -> NDArray[Any]:
    return values.astype(np.min_scalar_type(int(values.max(initial=0))))
