"""Datasets of a store, written and read chunk by chunk without HDF5's own filters, which are slower.

What is written is what HDF5's filters shuffle and gzip would write, so that any HDF5 library reads it.
"""

import math
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from isal import isal_zlib
from numpy.typing import NDArray
from zlib_ng import zlib_ng

from candi_cli.errors import OutputError

CHUNK_BINS = 2048
LEVEL = 2  # of zlib-ng: in size between zlib's 3 and 4; the same bytes on any processor, which igzip's are not
_ROOM_BYTES = 64 << 20  # for what HDF5 has not written yet


def write_chunks(group: h5py.Group, name: str, stored: NDArray[Any]) -> None:
    """Write an array of shape (..., n_bins) and its checksum."""
    chunks = (*stored.shape[:-1], min(CHUNK_BINS, stored.shape[-1]))
    origin = tuple(0 for _ in stored.shape[:-1])
    dataset = group.create_dataset(
        name,
        shape=stored.shape,
        dtype=stored.dtype,
        chunks=chunks,
        compression="gzip",
        compression_opts=LEVEL,
        shuffle=stored.itemsize > 1,
    )
    for start in range(0, stored.shape[-1], chunks[-1]):
        chunk = compressed(stored[..., start : start + chunks[-1]], chunks)
        dataset.id.write_direct_chunk((*origin, start), chunk)
    dataset.attrs["crc32"] = np.uint32(isal_zlib.crc32(stored))


class ChunkedDataset:
    """A dataset of shape (..., n_bins) that is there to be read; an empty one is all 0."""

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


def ensure_room(folder: Path, n_bytes: int, shown_as: Path) -> None:
    """Raise OutputError unless the disk of a folder has room: HDF5 does not survive one that fills up."""
    if shutil.disk_usage(folder).free < n_bytes + _ROOM_BYTES:
        raise OutputError(f"{shown_as}: the disk is full; make room on that disk, and run the command again")


@contextmanager
def naming_failure(path: Path | None) -> Iterator[None]:
    """Raise OutputError where HDF5 cannot write."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        number = re.search(r"errno = (\d+)", str(error))
        reason = os.strerror(int(number[1])) if number else str(error).splitlines()[0]
        raise OutputError(
            f"{path}: cannot be written ({reason}); make room on the disk, or choose another -o"
        ) from error


def compressed(values: NDArray[Any], shape: tuple[int, ...]) -> bytes:
    """Return a chunk as HDF5's filters shuffle and gzip write it; the last one of a dataset is filled up with zeros."""
    if values.shape[-1] < shape[-1]:
        values = np.pad(values, [*((0, 0) for _ in shape[:-1]), (0, shape[-1] - values.shape[-1])])
    planes = np.ascontiguousarray(values).reshape(-1).view(np.uint8).reshape(-1, values.itemsize).T
    return zlib_ng.compress(np.ascontiguousarray(planes), LEVEL)


def checksum_of(attributes: Mapping[str, Any]) -> np.uint32:
    """Return the CRC-32 over `name=value;` of strings, numbers and small arrays, sorted by name."""
    texts = (f"{name}={np.asarray(value).tolist()};" for name, value in sorted(attributes.items()))
    return np.uint32(isal_zlib.crc32("".join(texts).encode()))


def checked(attributes: Mapping[str, Any], holder: h5py.Group) -> Mapping[str, Any]:
    """Return what was read of a group; raise ValueError unless it matches the checksum that the group holds."""
    if int(holder.attrs["crc32"]) != int(checksum_of(attributes)):
        raise ValueError("its attributes do not match their checksum")
    return attributes
