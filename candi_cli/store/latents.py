"""Latents of the encoder in one HDF5 file: for each biosample and chromosome the values, and where they are.

`biosamples/<biosample>/<chrom>/latent` has shape (positions, width), `start` and `end` (positions,) are in bp, 0-based
and half-open.
"""

from contextlib import suppress
from pathlib import Path
from types import TracebackType

import h5py
import numpy as np
from numpy.typing import NDArray

from candi_cli import __version__
from candi_cli.genome import Region
from candi_cli.store.chunks import ensure_room, naming_failure
from candi_cli.store.predictions import Described, rounded

FORMAT, FORMAT_VERSION = "candi-latents", 1
_CHUNK_POSITIONS = 1 << 10


class LatentWriter:
    """Write latents piece by piece in genome order; use it as a context manager.

    Parameters
    ----------
    path : a temporary name; renaming it when it is complete is the caller's part
    position_bins : bins of one position
    width : of the latent

    Raises
    ------
    OutputError
        It cannot be written, or the disk is full.
    """

    def __init__(
        self, path: Path, described: Described, *, position_bins: int, width: int, command: str, shown_as: Path
    ) -> None:
        self.position_bp, self.width, self._shown_as = position_bins * described.resolution, width, shown_as
        self._folder = path.resolve().parent
        with naming_failure(shown_as):
            self._file = h5py.File(path, "w")
            self._file.attrs.update(
                format=FORMAT, format_version=FORMAT_VERSION, candi_version=__version__, command=command,
                described=described.to_json(), position_bp=self.position_bp,
            )  # fmt: skip

    def __enter__(self) -> "LatentWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            with suppress(OSError, RuntimeError):
                self._file.close()
            return
        with naming_failure(self._shown_as):
            self._file.close()

    def add(self, biosample: str, region: Region, values: NDArray[np.float32]) -> None:
        """Append the positions of a region: values (positions, width); the last one may end with the region."""
        start = region.start + self.position_bp * np.arange(len(values), dtype=np.int64)
        end = np.minimum(start + self.position_bp, region.end)
        ensure_room(self._folder, values.nbytes, self._shown_as)
        with naming_failure(self._shown_as):
            group = self._file.require_group(f"biosamples/{biosample}/{region.chrom}")
            for name, rows in (("latent", rounded(values)), ("start", start), ("end", end)):
                if name not in group:
                    group.create_dataset(
                        name, data=rows, chunks=(_CHUNK_POSITIONS, *rows.shape[1:]), maxshape=(None, *rows.shape[1:]),
                        compression="gzip", compression_opts=1, shuffle=True,
                    )  # fmt: skip
                    continue
                dataset = group[name]
                dataset.resize(len(dataset) + len(rows), axis=0)
                dataset[-len(rows) :] = rows
