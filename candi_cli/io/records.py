"""Aligned reads as columns: what every reader of reads yields and the counting takes."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

PAIRED, PROPER, UNMAPPED, REVERSE, MATE_REVERSE, FIRST, SECOND = 0x1, 0x2, 0x4, 0x10, 0x20, 0x40, 0x80


class Records(NamedTuple):
    """Reads of one contig that pass the filters, in the order of their file: one array element a read.

    contig : name in the file
    start, end : int32, first aligned bp and one past the last, 0-based
    flag : int32, SAM flags
    mate_start, template : int32, start of the mate and signed length of the fragment, as in SAM (0 when single)
    length : int32, bp of the read itself; 0 when the file does not tell
    mapq : uint8
    seen : records of the file read so far, those that did not pass among them
    """

    contig: str
    start: NDArray[np.int32]
    end: NDArray[np.int32]
    flag: NDArray[np.int32]
    mate_start: NDArray[np.int32]
    template: NDArray[np.int32]
    length: NDArray[np.int32]
    mapq: NDArray[np.uint8]
    seen: int

    @classmethod
    def none(cls, seen: int) -> "Records":
        """Return the end of a file: no reads, and how many records there were."""
        empty = np.zeros(0, dtype=np.int32)
        return cls("", empty, empty, empty, empty, empty, empty, empty.astype(np.uint8), seen)

    def take(self, chosen: NDArray) -> "Records":
        """Return the reads that a mask or an index array chooses."""
        return self._with([getattr(self, name)[chosen] for name in COLUMNS])

    def joined(self, later: "Records") -> "Records":
        """Return these reads followed by later ones of the same contig."""
        columns = [np.concatenate([getattr(self, name), getattr(later, name)]) for name in COLUMNS]
        return later._with(columns)

    def _with(self, columns: list[NDArray]) -> "Records":
        start, end, flag, mate_start, template, length, mapq = columns
        return Records(self.contig, start, end, flag, mate_start, template, length, mapq, self.seen)


COLUMNS = ("start", "end", "flag", "mate_start", "template", "length", "mapq")
