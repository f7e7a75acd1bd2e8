"""Counting aligned reads of a BAM or CRAM file in bins: one pass, memory bounded by one chromosome's bins."""

import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pysam
from numpy.typing import NDArray

from candi_cli.counting import FIVE_PRIME, FRAGMENT, UNKNOWN_MAPQ, CountingRule
from candi_cli.covariates import parse_platform
from candi_cli.errors import ReadsError
from candi_cli.genome import Chromsizes, bin_count, check_contigs
from candi_cli.io.sequence import with_index

BLOCK_BP = 100_000  # a block of the genome is covered when a read starts in it
_CHUNK = 500_000  # reads held as Python objects before they are binned
_LENGTHS_SAMPLED = 100_000
_READS_A_BLOCK = 10
_UNMAPPED, _PAIRED, _PROPER, _REVERSE = 0x4, 0x1, 0x2, 0x10
_SAME_KIND = 0x1 | 0x10 | 0x40 | 0x80  # reads that differ in these are no duplicates: paired, strand, first, second

pysam.set_verbosity(0)  # htslib's own lines on stderr would come before ours


class ChromCounts(NamedTuple):
    """The counts of one chromosome.

    counts : shape (n_bins,), uint32
    folds : shape (n_bins, K), uint32, summing to `counts`; K = 0 unless asked for
    blocks : shape (n_blocks,), uint32, reads starting in each block of `BLOCK_BP`
    """

    chrom: str
    counts: NDArray[np.uint32]
    folds: NDArray[np.uint32]
    blocks: NDArray[np.uint32]


@dataclass
class ReadsSummary:
    """What one pass over a file found.

    `depth` is the number of reads (or fragments) counted, `paired` the surplus of paired over single reads among the
    first of them, `covered_bp` the length of the blocks in which reads start, or
    of the whole chromosome where reads are too few to tell.
    """

    depth: int = 0
    seen: int = 0
    duplicates: int = 0
    mapq_unknown: int = 0
    paired: int = 0
    fold_depths: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    covered_bp: int = 0
    read_lengths: Counter[int] = field(default_factory=Counter)
    platform: str | None = None
    skipped_contigs: list[str] = field(default_factory=list)

    @property
    def read_length(self) -> float | None:
        """The most frequent read length in bp, None when the file does not tell."""
        return float(max(self.read_lengths, key=lambda n: (self.read_lengths[n], n))) if self.read_lengths else None

    @property
    def run_type(self) -> str | None:
        """The run type of most counted reads."""
        if not self.depth:
            return None
        return "paired-ended" if self.paired > 0 else "single-ended"


class ReadCounter:
    """One pass over an alignment file: iterate for the counts by chromosome, then read `summary`.

    Parameters
    ----------
    path : BAM or CRAM, sorted by coordinate; no index is needed
    rule : which reads count, and where
    reference : FASTA that a CRAM was compressed against
    chromsizes : the genome the counts are for; default: the file's own header
    n_folds : also split the reads into that many folds, by a hash of the fragment's position: mates and duplicates
        share a fold, so that disjoint sets of folds are independent thinnings of the reads

    Raises
    ------
    ReadsError
        The file is missing, not an alignment file, truncated, unsorted, or holds no read that passes the filters.
    GenomeError
        Its contigs do not fit `chromsizes`.
    """

    def __init__(
        self,
        path: Path,
        rule: CountingRule,
        *,
        reference: Path | None = None,
        chromsizes: Mapping[str, int] | None = None,
        n_folds: int = 0,
    ) -> None:
        self.path, self.rule, self.n_folds = path, rule, n_folds
        self.reference = reference
        self._scratch = tempfile.TemporaryDirectory(prefix="candi-")
        self._reference = str(with_index(reference, Path(self._scratch.name))) if reference is not None else None
        self.summary = ReadsSummary(fold_depths=np.zeros(n_folds, dtype=np.int64))
        with self._open() as alignment:
            self.header_sizes: Chromsizes = dict(zip(alignment.references, alignment.lengths, strict=True))
            read_groups = alignment.header.to_dict().get("RG", [])
        self.summary.platform = _platform(read_groups)
        if not self.header_sizes:
            raise ReadsError(f"{path}: its header lists no contig (@SQ); give an aligned BAM or CRAM")
        self.chromsizes = dict(chromsizes) if chromsizes is not None else self.header_sizes
        self._shared = set(
            check_contigs(self.header_sizes, self.chromsizes, source=str(path), against="the genome of this run")
        )

    def _open(self) -> pysam.AlignmentFile:
        if not self.path.exists():
            raise ReadsError(f"{self.path}: no such file; check the path")
        try:
            alignment = pysam.AlignmentFile(str(self.path), check_sq=False, reference_filename=self._reference)
        except (OSError, ValueError) as error:
            raise ReadsError(f"{self.path}: {_why_not_open(self.path, error)}") from error
        if alignment.is_cram and self.reference is None:
            alignment.close()
            raise ReadsError(f"{self.path}: a CRAM needs its reference; give the FASTA with -T")
        return alignment

    def __iter__(self) -> Iterator[ChromCounts]:
        alignment = self._open()
        try:
            yield from self._count(alignment)
        except (OSError, ValueError) as error:
            remedy = f", or {self.reference} is not its reference" if alignment.is_cram else ""
            raise ReadsError(
                f"{self.path}: {error} after {self.summary.seen:,} records; the file is damaged{remedy}, fetch it again"
            ) from error
        finally:
            with suppress(OSError):  # closing a damaged file fails once more
                alignment.close()
        if self.summary.depth == 0:
            kept = f"no read of {self.summary.seen:,} passes the filters" if self.summary.seen else "holds no read"
            raise ReadsError(f"{self.path}: {kept} ({self.rule}); check the file, -q and -F")

    def _count(self, alignment: pysam.AlignmentFile) -> Iterator[ChromCounts]:
        summary, rule = self.summary, self.rule
        excluded, min_mapq, fragments = rule.excl_flags | _UNMAPPED, rule.min_mapq, rule.rule == FRAGMENT
        bins: _ChromBins | None = None
        chunk: list[tuple[int, int, int, int, int]] = []
        tid, last_start, lengths_seen = -1, -1, 0
        here, seen_here = -1, set[tuple[int, int, int, int]]()
        for read in alignment:
            summary.seen += 1
            read_tid = read.reference_id
            if read_tid < 0:
                continue
            start, flag = read.reference_start, read.flag
            if read_tid != tid:
                if read_tid < tid:
                    raise ReadsError(self._unsorted(read))
                if bins is not None:
                    bins.add(chunk)
                    chunk = []
                    yield self._finish(bins)
                here = -1
                tid, bins = read_tid, self._begin(alignment.get_reference_name(read_tid))
            elif start < last_start:
                raise ReadsError(self._unsorted(read))
            last_start = start
            mapq = read.mapping_quality
            if flag & excluded or mapq < min_mapq:
                continue
            if fragments and (not flag & _PROPER or read.template_length <= 0):
                continue
            if bins is None:  # a contig that the genome does not have
                continue
            end = read.reference_end or start + 1
            mate_start, template = read.next_reference_start, read.template_length
            if not rule.keep_duplicates:
                if start != here:
                    here, seen_here = start, set()
                kind = (end, flag & _SAME_KIND, mate_start, template)
                if kind in seen_here:
                    summary.duplicates += 1
                    continue
                seen_here.add(kind)
            if mapq == UNKNOWN_MAPQ:
                summary.mapq_unknown += 1
            if lengths_seen < _LENGTHS_SAMPLED:
                lengths_seen += 1
                summary.paired += 1 if flag & _PAIRED else -1
                length = read.query_length or read.infer_query_length()
                if length:
                    summary.read_lengths[length] += 1
            chunk.append((start, end, flag, mate_start, template))
            if len(chunk) == _CHUNK:
                bins.add(chunk)
                chunk = []
        if bins is not None:
            bins.add(chunk)
            yield self._finish(bins)

    def _begin(self, chrom: str) -> "_ChromBins | None":
        if chrom in self._shared:
            return _ChromBins(chrom, self.chromsizes[chrom], self.rule, self.n_folds)
        if chrom in self.chromsizes:
            raise ReadsError(
                f"{self.path}: has reads on {chrom} of {self.header_sizes[chrom]:,} bp, which is "
                f"{self.chromsizes[chrom]:,} bp in the genome of this run; use the same genome build for both"
            )
        self.summary.skipped_contigs.append(chrom)
        return None

    def _finish(self, bins: "_ChromBins") -> ChromCounts:
        finished = bins.finish()
        self.summary.depth += bins.depth
        self.summary.fold_depths += bins.fold_depths
        covered = np.flatnonzero(finished.blocks) * BLOCK_BP
        sparse = bins.depth < _READS_A_BLOCK * len(covered)  # blocks without a read may be so by chance
        by_block = int(np.minimum(covered + BLOCK_BP, bins.length).sum() - covered.sum())
        self.summary.covered_bp += bins.length if sparse else by_block
        return finished

    def _unsorted(self, read: pysam.AlignedSegment) -> str:
        return (
            f"{self.path}: not sorted by coordinate (record {self.summary.seen:,}, {read.reference_name}:"
            f"{read.reference_start + 1:,}, comes too late); run 'samtools sort'"
        )


class _ChromBins:
    """Difference arrays over the bins of one chromosome, filled chunk by chunk."""

    def __init__(self, chrom: str, length: int, rule: CountingRule, n_folds: int) -> None:
        self.chrom, self.length, self.rule, self.n_folds = chrom, length, rule, n_folds
        self.n_bins = bin_count(length, rule.resolution)
        self.steps = np.zeros((self.n_bins + 1) * max(1, n_folds), dtype=np.int32)
        self.blocks = np.zeros(bin_count(length, BLOCK_BP), dtype=np.uint32)
        self.depth = 0
        self.fold_depths = np.zeros(n_folds, dtype=np.int64)

    def add(self, chunk: list[tuple[int, int, int, int, int]]) -> None:
        if not chunk:
            return
        start, end, flag, mate_start, template = np.array(chunk, dtype=np.int64).T
        self.depth += len(start)
        np.add.at(self.blocks, np.minimum(start // BLOCK_BP, len(self.blocks) - 1), 1)
        first_bp, last_bp = self._span(start, end, flag, template)
        first, last = (np.clip(bp, 0, self.length - 1) // self.rule.resolution for bp in (first_bp, last_bp))
        if self.n_folds:
            fold = _fold(start, end, flag, mate_start, template, self.n_folds)
            self.fold_depths += np.bincount(fold, minlength=self.n_folds)
            first, last = first * self.n_folds + fold, last * self.n_folds + fold
        np.add.at(self.steps, first, 1)
        np.add.at(self.steps, last + max(1, self.n_folds), -1)

    def _span(self, start: NDArray, end: NDArray, flag: NDArray, template: NDArray) -> tuple[NDArray, NDArray]:
        """Return the first and the last bp (inclusive) that a read counts for."""
        if self.rule.rule == FRAGMENT:
            return start, start + template - 1
        if self.rule.rule == FIVE_PRIME:
            plus, minus = self.rule.shift
            five_prime = np.where(flag & _REVERSE, end - 1 + minus, start + plus)
            return five_prime, five_prime
        return start, end - 1

    def finish(self) -> ChromCounts:
        steps = self.steps.reshape(self.n_bins + 1, -1)
        folds = np.cumsum(steps, axis=0, out=steps)[:-1].astype(np.uint32)
        counts = folds.sum(axis=1, dtype=np.uint32)
        return ChromCounts(self.chrom, counts, folds if self.n_folds else folds[:, :0], self.blocks)


def _fold(
    start: NDArray, end: NDArray, flag: NDArray, mate_start: NDArray, template: NDArray, n_folds: int
) -> NDArray[np.int64]:
    """Assign reads to folds by a hash (splitmix64) of where their fragment lies; read names play no part."""
    paired = (flag & _PAIRED).astype(bool) & (template != 0)
    reverse = (flag & _REVERSE).astype(bool)
    anchor = np.where(paired, np.minimum(start, mate_start), np.where(reverse, end - 1, start))
    shape = np.where(paired, np.abs(template) + 2, reverse)
    mixed = anchor.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + shape.astype(np.uint64)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    return ((mixed ^ (mixed >> np.uint64(31))) % np.uint64(n_folds)).astype(np.int64)


def _platform(read_groups: list[dict[str, str]]) -> str | None:
    """Return the platform that all read groups agree on (PM, else PL), None when they do not tell."""
    found = {parse_platform(group.get("PM") or group.get("PL") or "") for group in read_groups}
    return found.pop() if len(found) == 1 else None


def _why_not_open(path: Path, error: Exception) -> str:
    text = str(error)
    if path.is_dir():
        return "is a folder; give a BAM or CRAM file"
    if isinstance(error, PermissionError):
        return "may not be read; check its permissions"
    if path.stat().st_size == 0:
        return "is empty (0 bytes); fetch it again"
    if "EOF marker" in text or "truncated" in text:
        return "is truncated (no BGZF end marker); fetch it again"
    if isinstance(error, ValueError) or "Exec format" in text or "not contain alignment" in text:
        return "is not a BAM or CRAM file; give aligned reads"
    return f"cannot be opened ({text}); check the file"
