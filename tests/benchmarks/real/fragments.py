"""Reads as fragments without duplicates, halves of them that share none, and their counts in bins.

Duplicates of one molecule would fall into both halves, so a fragment (start, end and orientation; of single reads, the
5' end and the strand) is kept once, over both halves.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pysam
from numpy.typing import NDArray

from candi_cli.counting import OVERLAP, CountingRule

RESOLUTION = 25
SHIFT = 75  # bp from the 5' end of a single read to the middle of its fragment
LEFT_OUT = 0x904  # flags: unmapped, secondary, supplementary
Array = NDArray[np.float64]
Whole = NDArray[np.int64]


class Fragments(NamedTuple):
    """Fragments of paired reads, or single reads, each of shape (F,).

    Attributes
    ----------
    start, end : 0-based, half-open, in bp
    reverse : the first mate, or the single read, is on the - strand
    read_length : of pairs, of the reads at both ends; 0 of single reads
    """

    start: Whole
    end: Whole
    reverse: NDArray[np.bool_]
    read_length: int

    def take(self, chosen: NDArray) -> "Fragments":
        """Return those that a mask, or numbers, choose."""
        return Fragments(self.start[chosen], self.end[chosen], self.reverse[chosen], self.read_length)

    def keys(self) -> NDArray[np.int64]:
        """Return what makes a fragment the same as another: shape (F, 3)."""
        if self.read_length:
            return np.stack([self.start, self.end, self.reverse], axis=1)
        five_prime = np.where(self.reverse, self.end - 1, self.start)
        return np.stack([five_prime, np.zeros_like(five_prime), self.reverse], axis=1)

    def unique(self) -> "Fragments":
        """Return each once, the first, in order."""
        _, first = np.unique(self.keys(), axis=0, return_index=True)
        return self.take(np.sort(first))

    def without(self, other: "Fragments") -> "Fragments":
        """Return those that are not in another set."""
        known = set(map(tuple, other.keys().tolist()))
        return self.take(np.array([tuple(key) not in known for key in self.keys().tolist()], dtype=np.bool_))

    def split(self, shares: tuple[float, ...], seed: int) -> "list[Fragments]":
        """Return parts that share no fragment, each with its share, drawn by a seed."""
        order = np.random.default_rng(seed).permutation(len(self.start))
        ends = np.rint(np.cumsum((0, *shares)) * len(order)).astype(np.int64)
        return [self.take(np.sort(order[ends[at] : ends[at + 1]])) for at in range(len(shares))]


def read_fragments(path: Path, chrom: str) -> Fragments:
    """Read a small BAM: a fragment for the first mate of each pair, by its template length, or for each single read."""
    rows, lengths, paired = [], [], False
    with pysam.AlignmentFile(str(path)) as bam:
        for read in bam:
            if read.flag & LEFT_OUT or read.reference_name != chrom:
                continue
            if not read.is_paired:
                rows.append((read.reference_start, read.reference_end, read.is_reverse))
            elif read.is_read1 and read.template_length:
                paired = True
                start = min(read.reference_start, read.next_reference_start)
                rows.append((start, start + abs(read.template_length), read.is_reverse))
                lengths.append(read.query_length or read.infer_query_length() or 0)
    start, end, reverse = (np.array(column) for column in zip(*rows, strict=True))
    return Fragments(start, end, reverse.astype(np.bool_), int(np.median(lengths)) if paired else 0)


def middles(fragments: Fragments) -> Whole:
    """Return the middle of each fragment, in bp; of a single read, its 5' end moved downstream."""
    if fragments.read_length:
        return (fragments.start + fragments.end) // 2
    return np.where(fragments.reverse, fragments.end - 1 - SHIFT, fragments.start + SHIFT)


def midpoint_counts(fragments: Fragments, span: tuple[int, int]) -> Array:
    """Return how many fragments have their middle in each bin of a span: shape (L,)."""
    place = middles(fragments) // RESOLUTION - span[0] // RESOLUTION
    n_bins = (span[1] - span[0]) // RESOLUTION
    return np.bincount(place[(place >= 0) & (place < n_bins)], minlength=n_bins).astype(np.float64)


def covering(start: Whole, end: Whole, span: tuple[int, int]) -> Array:
    """Return how many intervals overlap each bin of a span: shape (L,)."""
    n_bins = (span[1] - span[0]) // RESOLUTION
    steps = np.zeros(n_bins + 1)
    np.add.at(steps, np.clip(start // RESOLUTION - span[0] // RESOLUTION, 0, n_bins), 1)
    np.add.at(steps, np.clip((end - 1) // RESOLUTION + 1 - span[0] // RESOLUTION, 0, n_bins), -1)
    return np.cumsum(steps)[:-1]


def reads_of(fragments: Fragments) -> tuple[Whole, Whole]:
    """Return the spans of reads: those of both mates, or of single reads."""
    if not fragments.read_length:
        return fragments.start, fragments.end
    inner = np.minimum(fragments.start + fragments.read_length, fragments.end)
    outer = np.maximum(fragments.end - fragments.read_length, fragments.start)
    return np.concatenate([fragments.start, outer]), np.concatenate([inner, fragments.end])


def counts(fragments: Fragments, rule: CountingRule, span: tuple[int, int]) -> Array:
    """Return counts in bins by a model's rule: of middles, or of reads in all bins that they overlap."""
    if rule.rule == OVERLAP:
        return covering(*reads_of(fragments), span)
    if rule.rule != "midpoint":
        raise SystemExit(f"the model counts by {rule.rule}; this benchmark knows midpoint and overlap")
    return midpoint_counts(fragments, span)


def extended(fragments: Fragments, length: int, span: tuple[int, int]) -> Array:
    """Return coverage by single reads, or by both mates, extended to a length from their 5' ends."""
    left, right = fragments.start, fragments.end
    if fragments.read_length:
        return covering(left, left + length, span) + covering(right - length, right, span)
    start = np.where(fragments.reverse, right - length, left)
    return covering(start, start + length, span)


def write_reads(fragments: Fragments, chrom: str, path: Path) -> None:
    """Write BEDPE of pairs, BED6 of single reads."""
    lines = []
    if fragments.read_length:
        n = len(fragments.start)
        starts, ends = (each.reshape(2, n) for each in reads_of(fragments))
        for row in range(n):
            left, right = (f"{chrom}\t{starts[side, row]}\t{ends[side, row]}" for side in (0, 1))
            if fragments.reverse[row]:
                lines.append(f"{right}\t{left}\t.\t0\t-\t+")
            else:
                lines.append(f"{left}\t{right}\t.\t0\t+\t-")
    else:
        for start, end, reverse in zip(*fragments[:3], strict=True):
            lines.append(f"{chrom}\t{start}\t{end}\t.\t0\t{'-' if reverse else '+'}")
    path.write_text("\n".join(lines) + "\n")
