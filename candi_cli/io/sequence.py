"""Reading DNA from an indexed FASTA file as base codes."""

import tempfile
from pathlib import Path
from types import TracebackType

import numpy as np
import pysam
from numpy.typing import NDArray

from candi_cli.errors import SequenceError
from candi_cli.genome import Chromsizes

NOT_A_BASE = 4
_CODES = np.full(256, NOT_A_BASE, dtype=np.uint8)
for _code, _base in enumerate("ACGT"):
    _CODES[[ord(_base), ord(_base.lower())]] = _code


class Sequence:
    """A FASTA file, plain or bgzipped; an index that is not there is made in a temporary folder, never beside it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._scratch = tempfile.TemporaryDirectory(prefix="candi-")
        try:
            self._fasta = pysam.FastaFile(str(path), **self._indexes())
        except (OSError, ValueError, pysam.utils.SamtoolsError) as error:
            self._scratch.cleanup()
            fact = "no such file" if not path.exists() else "not a FASTA file (or gzip rather than bgzip)"
            raise SequenceError(f"{path}: {fact}; give a FASTA, plain or bgzipped, with -T") from error
        self.chromsizes: Chromsizes = dict(zip(self._fasta.references, self._fasta.lengths, strict=True))

    def _indexes(self) -> dict[str, str]:
        compressed = self.path.open("rb").read(2) == b"\x1f\x8b"
        beside = {"filepath_index": Path(f"{self.path}.fai")}
        if compressed:
            beside["filepath_index_compressed"] = Path(f"{self.path}.gzi")
        if all(index.exists() for index in beside.values()):
            return {name: str(index) for name, index in beside.items()}
        made = {name: f"{self._scratch.name}/{index.name}" for name, index in beside.items()}
        options = ["--fai-idx", made["filepath_index"]]
        if compressed:
            options += ["--gzi-idx", made["filepath_index_compressed"]]
        pysam.faidx(*options, str(self.path))
        return made

    def __enter__(self) -> "Sequence":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._fasta.close()
        self._scratch.cleanup()

    def codes(self, chrom: str, start: int, end: int) -> NDArray[np.uint8]:
        """Return the bases of [start, end) as A, C, G, T = 0..3; N, other letters and what lies outside are 4."""
        codes = np.full(end - start, NOT_A_BASE, dtype=np.uint8)
        inside_start, inside_end = max(start, 0), min(end, self.chromsizes[chrom])
        if inside_start < inside_end:
            bases = self._fasta.fetch(chrom, inside_start, inside_end)
            codes[inside_start - start : inside_end - start] = _CODES[np.frombuffer(bases.encode("latin-1"), np.uint8)]
        return codes
