"""Layers of the bins that training looks at, unpacked once into memory-mapped files that all workers share."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from candi_cli.loci import Loci, merged
from candi_cli.model.candi.reading import Bases, Block, Lanes

_BINS_AT_ONCE = 1 << 18


class Spans:
    """Stretches of chromosomes laid end to end.

    Parameters
    ----------
    runs : for each chromosome, sorted half-open runs of bins, shape (K, 2)
    """

    def __init__(self, runs: Mapping[str, NDArray[np.int64]]) -> None:
        self.runs = {chrom: found for chrom, found in sorted(runs.items()) if len(found)}
        self._offsets: dict[str, NDArray[np.int64]] = {}
        self.n_bins = 0
        for chrom, found in self.runs.items():
            ends = self.n_bins + np.cumsum(found[:, 1] - found[:, 0])
            self._offsets[chrom] = ends - (found[:, 1] - found[:, 0])
            self.n_bins = int(ends[-1])

    def hold(self, chrom: str, start: int, end: int) -> bool:
        """Return whether all of some bins lie in one stretch."""
        if chrom not in self.runs:
            return False
        run = int(np.searchsorted(self.runs[chrom][:, 0], start, side="right")) - 1
        return run >= 0 and bool(end <= self.runs[chrom][run, 1])

    def locate(self, chrom: str, start: int) -> int:
        """Return the place of a bin that some stretch holds."""
        run = int(np.searchsorted(self.runs[chrom][:, 0], start, side="right")) - 1
        return int(self._offsets[chrom][run]) + start - int(self.runs[chrom][run, 0])

    def pieces(self) -> Iterator[tuple[str, int, int, int]]:
        """Yield all stretches in pieces of bounded length: chromosome, start, end, and the place of the start."""
        for chrom, found in self.runs.items():
            for (start, end), offset in zip(found.tolist(), self._offsets[chrom].tolist(), strict=True):
                for piece in range(start, end, _BINS_AT_ONCE):
                    yield chrom, piece, min(piece + _BINS_AT_ONCE, end), offset + piece - start

    def digest(self) -> str:
        """Return a hash of the stretches."""
        found = hashlib.sha256()
        for chrom, runs in self.runs.items():
            found.update(chrom.encode())
            found.update(np.ascontiguousarray(runs).tobytes())
        return found.hexdigest()


def union_of(loci: Sequence[Loci], context: int) -> Spans:
    """Return the bins that the windows of any loci hold."""
    runs: dict[str, list[NDArray[np.int64]]] = {}
    for each in loci:
        for chrom, found in each.spans(context).items():
            runs.setdefault(chrom, []).append(found)
    return Spans({chrom: merged(np.concatenate(found)) for chrom, found in runs.items()})


class Decoded:
    """Values of all bins of some stretches: shape (..., n_bins)."""

    def __init__(self, values: NDArray[Any], spans: Spans) -> None:
        self.values, self.spans = values, spans

    def block(self, chrom: str, start: int) -> Block:
        """Return where a window lies."""
        return Block(self.values, self.spans.locate(chrom, start))


class DecodedLanes(Lanes):
    """Lanes whose blocks come from files, for the bins that these hold; made of lanes that read their store.

    Parameters
    ----------
    lanes : to be unpacked
    spans : the bins that will be read
    folder : where the files go; one that is there already, of the same store and bins, is used as it is
    wanted : (lanes, layer) of each block that will be read, with at least one lane each
    """

    def __init__(self, lanes: Lanes, spans: Spans, folder: Path, wanted: Sequence[tuple[tuple[int, ...], str]]) -> None:
        self.store, self.biosample, self.experiments = lanes.store, lanes.biosample, lanes.experiments
        self._measured, self._alike, self._on_chrom, self._signals = {}, {}, {}, {}
        self._typical, self._without, self._matches = lanes._typical, lanes._without, lanes._matches
        self._spans = spans
        self._decoded = {key: Decoded(_unpacked(lanes, *key, spans, folder), spans) for key in wanted}

    def block(self, lanes: Sequence[int], layer: str, chrom: str, start: int, end: int) -> Block:
        """Return bins of a layer of several lanes, at least one."""
        found = self._decoded.get((tuple(lanes), layer))
        if found is None or not self._spans.hold(chrom, start, end):
            return super().block(lanes, layer, chrom, start, end)
        return found.block(chrom, start)


class DecodedBases:
    """DNA of the bins that training looks at."""

    def __init__(self, bases: Bases, spans: Spans, resolution: int, folder: Path, name: str) -> None:
        self._bases, self._spans, self._resolution = bases, spans, resolution

        def fill(into: NDArray) -> None:
            for chrom, start, end, at in spans.pieces():
                into[at * resolution : (at + end - start) * resolution] = bases.codes(
                    chrom, start * resolution, end * resolution
                )

        identity = [*_identity(getattr(bases, "path", None)), name, spans.digest()]
        self._codes = _file(folder, identity, (spans.n_bins * resolution,), np.uint8, fill)

    def codes(self, chrom: str, start: int, end: int) -> NDArray[np.uint8]:
        """Return base codes of [start, end)."""
        resolution = self._resolution
        if (
            start % resolution
            or end % resolution
            or not self._spans.hold(chrom, start // resolution, end // resolution)
        ):
            return self._bases.codes(chrom, start, end)
        at = self._spans.locate(chrom, start // resolution) * resolution
        return self._codes[at : at + end - start]


def n_bytes(lanes: Lanes, spans: Spans, wanted: Sequence[tuple[tuple[int, ...], str]]) -> int:
    """Return how large the files of some lanes will be."""
    return sum(spans.n_bins * dtype.itemsize * int(np.prod(rows)) for rows, dtype in _shapes(lanes, spans, wanted))


def _shapes(
    lanes: Lanes, spans: Spans, wanted: Sequence[tuple[tuple[int, ...], str]]
) -> Iterator[tuple[tuple[int, ...], np.dtype]]:
    for here, layer in wanted:
        empty = [lanes.read(lane, layer, chrom, 0, 0).T for lane in here for chrom in spans.runs]
        yield (len(here), *empty[0].shape[:-1]), np.result_type(*{each.dtype for each in empty})


def _unpacked(lanes: Lanes, here: tuple[int, ...], layer: str, spans: Spans, folder: Path) -> NDArray[Any]:
    (rows, dtype) = next(_shapes(lanes, spans, [(here, layer)]))

    def fill(into: NDArray) -> None:
        for chrom, start, end, at in spans.pieces():
            for row, lane in enumerate(here):
                into[row, ..., at : at + end - start] = lanes.read(lane, layer, chrom, start, end).T

    assays = [item.assay for lane in here if (item := lanes.experiments[lane])]
    identity = [*_identity(lanes.store.path), lanes.biosample, assays, layer, spans.digest(), *lanes.matched_by()]
    return _file(folder, identity, (*rows, spans.n_bins), dtype, fill)


def _identity(path: Path | None) -> list[Any]:
    """Return what tells a file from another, or from itself before it was changed; nothing is like what has no file."""
    if path is None:
        return [uuid4().hex]
    status = path.stat()
    return [str(path.resolve()), status.st_size, status.st_mtime_ns]


def _file(folder: Path, identity: Sequence[Any], shape: tuple[int, ...], dtype: Any, fill: Any) -> NDArray[Any]:
    """Return a memory-mapped array that `fill` made, now or in an earlier run."""
    path = folder / f"{hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:32]}.npy"
    if not path.exists():
        temporary = path.with_suffix(f".{uuid4().hex}.tmp")
        try:
            values = np.lib.format.open_memmap(temporary, mode="w+", dtype=dtype, shape=shape)
            fill(values)
            values.flush()
            del values
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    return np.asarray(np.load(path, mmap_mode="c"))  # "c": writeable for the compiled loop, the file never changes
