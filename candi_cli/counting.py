"""The counting rule: which reads count, and in which bins. Every store and model card states its own."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

OVERLAP, FIVE_PRIME, FRAGMENT, MIDPOINT = "overlap", "five-prime", "fragment", "midpoint"
RULES = (OVERLAP, FIVE_PRIME, FRAGMENT, MIDPOINT)
SHIFTED = (FIVE_PRIME, MIDPOINT)  # rules by which a 5' end may be moved
FLAGS = {
    "PAIRED": 0x1, "PROPER_PAIR": 0x2, "UNMAP": 0x4, "MUNMAP": 0x8, "REVERSE": 0x10, "MREVERSE": 0x20,
    "READ1": 0x40, "READ2": 0x80, "SECONDARY": 0x100, "QCFAIL": 0x200, "DUP": 0x400, "SUPPLEMENTARY": 0x800,
}  # fmt: skip
UNKNOWN_MAPQ = 255
_LONGEST_SHIFT = 10_000


@dataclass(frozen=True)
class CountingRule:
    """How reads become counts.

    Attributes
    ----------
    rule : `overlap` adds 1 to each bin that a read overlaps by at least 1 bp; `five-prime` counts a read once, in the
        bin of its 5' end; `fragment` counts a proper pair once, over its span; `midpoint` counts a molecule once: a
        proper pair in the bin of the middle base of its fragment, a single-ended read in that of its 5' end
    resolution : bin width in bp
    min_mapq : reads below it are dropped; 255 means unknown and passes
    excl_flags : reads with any of these SAM flags are dropped (0xF04: unmapped, secondary, QC fail, duplicate,
        supplementary, as in ENCODE's filtered BAMs)
    shift : bp added to the 5' end of forward and of reverse reads (`five-prime`, and single-ended reads of `midpoint`)
    keep_duplicates : count every read; else, of reads that agree in position, strand and mate (`midpoint`: of fragments
        that agree in start, end and orientation), only the first
    """

    rule: str = OVERLAP
    resolution: int = 25
    min_mapq: int = 30
    excl_flags: int = 0xF04
    shift: tuple[int, int] = (0, 0)
    keep_duplicates: bool = True

    @property
    def counts_pairs_once(self) -> bool:
        """Whether one read stands for a proper pair, and reads of other pairs are dropped."""
        return self.rule in (FRAGMENT, MIDPOINT)

    def to_json(self) -> dict[str, Any]:
        """Return the rule as plain JSON values."""
        return {**asdict(self), "shift": list(self.shift)}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "CountingRule":
        """Rebuild a rule from `to_json`."""
        return cls(**{**values, "shift": tuple(values["shift"])})

    def options(self) -> str:
        """Return the options of `candi bin` that count by this rule."""
        shift = f" --shift={self.shift[0]},{self.shift[1]}" if any(self.shift) else ""
        duplicates = "" if self.keep_duplicates else " --keep-dup 1"
        filters = f"-q {self.min_mapq} -F 0x{self.excl_flags:X}"
        return f"--count {self.rule} --resolution {self.resolution} {filters}{shift}{duplicates}"

    def __str__(self) -> str:
        shift = f" shifted by {self.shift[0]:+d},{self.shift[1]:+d}" if any(self.shift) else ""
        filters = f"MAPQ >= {self.min_mapq}, without flags 0x{self.excl_flags:X}"
        duplicates = "" if self.keep_duplicates else ", one read a position"
        return f"{self.rule}{shift} at {self.resolution} bp, {filters}{duplicates}"


def narrowest(values: NDArray, *, copy: bool = True) -> NDArray:
    """Return unsigned integers in the smallest width that holds them all; none is ever clipped."""
    return values.astype(np.min_scalar_type(int(values.max(initial=0))), copy=copy)


def parse_flags(text: str) -> int:
    """Parse SAM flags as samtools does: a number (3844, 0xF04) or names (`UNMAP,DUP`); raise ValueError otherwise."""
    try:
        flags = int(text, 0)
    except ValueError:
        flags = 0
        for name in text.upper().split(","):
            if name not in FLAGS:
                raise ValueError(f"{name!r} is not a SAM flag; known are {', '.join(FLAGS)}") from None
            flags |= FLAGS[name]
    if not 0 <= flags <= 0xFFFF:
        raise ValueError(f"{text!r} is not a set of SAM flags")
    return flags


def parse_shift(text: str) -> tuple[int, int]:
    """Parse `PLUS,MINUS` in bp, such as `4,-5` for Tn5; raise ValueError otherwise."""
    parts = text.split(",")
    if len(parts) != 2:
        raise ValueError(f"{text!r} is not PLUS,MINUS")
    plus, minus = int(parts[0]), int(parts[1])
    if max(abs(plus), abs(minus)) > _LONGEST_SHIFT:
        raise ValueError(f"{text!r} shifts by more than {_LONGEST_SHIFT:,} bp")
    return plus, minus
