"""Reading DNA from an indexed FASTA file as base codes."""

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pysam
from numpy.typing import NDArray

from candi_cli.contigs import Aliases, match_contigs
from candi_cli.errors import SequenceError
from candi_cli.genome import Chromsizes
from candi_cli.io.formats import is_compressed

NOT_A_BASE = 4
_CODES = np.full(256, NOT_A_BASE, dtype=np.uint8)
for _code, _base in enumerate("ACGT"):
    _CODES[[ord(_base), ord(_base.lower())]] = _code


def with_index(path: Path, scratch: Path) -> Path:
    """Return the path of a FASTA that has an index: itself, else a link to it in `scratch` that is indexed there.

    Raises
    ------
    SequenceError
        It is missing or not a FASTA, plain or bgzipped.
    """
    fact = "not a FASTA file (or gzip rather than bgzip)"
    try:
        compressed = is_compressed(path)
        indexes = [Path(f"{path}.fai"), *([Path(f"{path}.gzi")] if compressed else [])]
        if all(index.exists() for index in indexes):
            return path
        link = scratch / path.name
        if not link.is_symlink():
            link.symlink_to(path.resolve())
            pysam.faidx(str(link))
    except FileNotFoundError as error:
        raise SequenceError(f"{path}: no such file; give a FASTA with -T") from error
    except PermissionError as error:
        raise SequenceError(f"{path}: may not be read; check its permissions") from error
    except (OSError, ValueError, pysam.utils.SamtoolsError) as error:
        raise SequenceError(f"{path}: {fact}; give a FASTA, plain or bgzipped, with -T") from error
    return link


class Sequence:
    """A FASTA file, plain or bgzipped; an index that is not there is made in a temporary folder, never beside it.

    It may be used in processes that are forked, which open it anew, and be sent to others.
    """

    def __init__(self, path: Path) -> None:
        self.path, self._process = path, os.getpid()
        self._scratch = tempfile.TemporaryDirectory(prefix="candi-")
        try:
            self._fasta = pysam.FastaFile(str(with_index(path, Path(self._scratch.name))))
        except (OSError, ValueError) as error:
            self._scratch.cleanup()
            raise SequenceError(f"{path}: its index does not fit it; index it again with 'samtools faidx'") from error
        except SequenceError:
            self._scratch.cleanup()
            raise
        self._sizes: Chromsizes = dict(zip(self._fasta.references, self._fasta.lengths, strict=True))
        self._names = {name: name for name in self._sizes}
        self.chromsizes = self._sizes

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path.resolve(), "names": self._names, "chromsizes": self.chromsizes}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["path"])  # type: ignore[misc]
        self._names, self.chromsizes = state["names"], state["chromsizes"]

    def __enter__(self) -> "Sequence":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._fasta.close()
        self._scratch.cleanup()

    def name_as(self, chromsizes: Mapping[str, int], *, source: str, aliases: Aliases | None = None) -> None:
        """Call chromosomes what another source calls them; those of another length there are left out.

        Raises
        ------
        GenomeError
            They share no chromosome.
        """
        matched = match_contigs(chromsizes, self._sizes, source=source, against=str(self.path), aliases=aliases)
        self._names = {other: name for name, other in matched.names.items()}
        conflicts = {name: length for name, _, length in matched.conflicts}
        self.chromsizes = {other: self._sizes[name] for other, name in self._names.items()} | conflicts

    def codes(self, chrom: str, start: int, end: int) -> NDArray[np.uint8]:
        """Return the bases of [start, end) as A, C, G, T = 0..3; N, other letters and what the file lacks are 4."""
        codes = np.full(end - start, NOT_A_BASE, dtype=np.uint8)
        inside_start, inside_end = max(start, 0), min(end, self.chromsizes[chrom] if chrom in self._names else 0)
        if inside_start < inside_end:
            if self._process != os.getpid():  # a file that is open in two processes has one position in both
                self._fasta = pysam.FastaFile(str(with_index(self.path, Path(self._scratch.name))))
                self._process = os.getpid()
            try:
                bases = self._fasta.fetch(self._names[chrom], inside_start, inside_end)
            except ValueError as error:
                raise SequenceError(f"{self.path}: damaged, or not the file of its index; fetch it again") from error
            codes[inside_start - start : inside_end - start] = _CODES[np.frombuffer(bases.encode("latin-1"), np.uint8)]
        return codes
