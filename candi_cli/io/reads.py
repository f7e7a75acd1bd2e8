"""Counting aligned reads in bins: one pass over a file, memory bounded by one chromosome's bins."""

import hashlib
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pysam
from numpy.typing import NDArray

from candi_cli.contigs import Aliases, NameMatcher, match_contigs, shorten
from candi_cli.counting import MIDPOINT, UNKNOWN_MAPQ, CountingRule
from candi_cli.covariates import Covariates
from candi_cli.errors import GenomeError, ReadsError
from candi_cli.genome import Chromsizes
from candi_cli.io import bam
from candi_cli.io.alignment import md5_of_contigs, open_alignment, platform_of, read_alignment
from candi_cli.io.duplicates import Duplicates
from candi_cli.io.formats import DAMAGE, Format, columns_of, recognise
from candi_cli.io.intervals import read_intervals_as_reads
from candi_cli.io.records import PAIRED, Records
from candi_cli.io.sequence import with_index
from candi_cli.io.tally import BLOCK_BP, ChromCounts, Tally

_LENGTHS_SAMPLED = 100_000
_READS_A_BLOCK = 10
_TEXT = (Format.BED, Format.BEDPE, Format.FRAGMENTS)

_GENOME = "the genome of this run (-g CHROM.SIZES names all of it)"


@dataclass
class ReadsSummary:
    """What one pass over a file found.

    `depth` is the number of reads (or fragments, or molecules) counted, `paired` the surplus of paired over single ones
    among the first of them (`sampled`), `covered_bp` the length of the blocks in which reads start, or of the whole
    chromosome where reads are too few to tell.
    """

    depth: int = 0
    seen: int = 0
    duplicates: int = 0
    mapq_unknown: int = 0
    paired: int = 0
    sampled: int = 0
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
    """One pass over a file of reads: iterate once for the counts by chromosome, then read `summary`.

    Parameters
    ----------
    path : BAM, CRAM or SAM, sorted by coordinate (no index is needed), or BED, tagAlign, BEDPE or fragments, sorted or
        not, plain or gzip; what it is, its content tells
    rule : which reads count, and where
    reference : FASTA that a CRAM was compressed against
    chromsizes : the genome the counts are for; default: the file's own header
    n_folds : also split the reads into that many folds, by a hash of the fragment's position: mates and duplicates
        share a fold, so that disjoint sets of folds are independent thinnings of the reads
    threads : with two or more, a BAM is decompressed in a thread of its own
    aliases : other names of contigs, in addition to those that the package knows
    stated : what is known of the reads; intervals of three fields are fragments when these are paired-ended, and
        `overlap` on fragments needs the read length

    Raises
    ------
    ReadsError
        The file is missing, not one of reads, truncated, unsorted, or holds no read that passes the filters.
    GenomeError
        Its contigs do not fit `chromsizes`, or it has no header and no `chromsizes` are given.
    """

    def __init__(
        self,
        path: Path,
        rule: CountingRule,
        *,
        reference: Path | None = None,
        chromsizes: Mapping[str, int] | None = None,
        n_folds: int = 0,
        threads: int = 1,
        aliases: Aliases | None = None,
        stated: Covariates | None = None,
    ) -> None:
        self.path, self.rule, self.n_folds = path, rule, n_folds
        self.reference, self._threads, self._aliases = reference, threads, aliases
        self._stated = stated or Covariates()
        self.summary = ReadsSummary(fold_depths=np.zeros(n_folds, dtype=np.int64))
        self.kind = self._recognised()
        self.header_sizes: Chromsizes = {}
        self._reference: Path | None = None
        self._tally: Tally | None = None
        self._md5sums: dict[str, str] = {}
        if self.kind not in _TEXT:
            self._read_header()
        if chromsizes is None and not self.header_sizes:
            raise GenomeError(
                f"{path}: {self.kind.value}, which does not say how long chromosomes are; give them with -g CHROM.SIZES"
            )
        self.chromsizes = dict(chromsizes) if chromsizes is not None else self.header_sizes
        self._name_matcher = NameMatcher(self.chromsizes, source=str(path), aliases=aliases)
        self._chrom_of: dict[str, str] = {}
        self._conflicts: dict[str, tuple[int, int]] = {}
        if self.header_sizes:
            self._match(self.header_sizes)

    def _recognised(self) -> Format:
        if not self.path.exists():
            raise ReadsError(f"{self.path}: no such file; check the path")
        try:
            found = recognise(self.path)
        except OSError:
            return Format.OTHER  # told when it is opened
        if found is Format.DAMAGED:
            raise ReadsError(f"{self.path}: {found.value}; fetch it again")
        if found in (Format.BIGWIG, Format.BIGBED, Format.BEDGRAPH, Format.HDF5, Format.FASTA, Format.FASTQ):
            remedy = (
                "name it in the signal column" if found in (Format.BIGWIG, Format.BEDGRAPH) else "give aligned reads"
            )
            raise ReadsError(f"{self.path}: {found.value}, where reads are expected; {remedy}")
        if found is Format.BED and self._stated.run_type == "paired-ended" and columns_of(self.path) == 3:
            return Format.FRAGMENTS
        return found

    def _read_header(self) -> None:
        if self.reference is not None and self.kind is Format.CRAM:
            self._scratch = tempfile.TemporaryDirectory(prefix="candi-")
            self._reference = with_index(self.reference, Path(self._scratch.name))
        with open_alignment(self.path, self._reference) as alignment:
            self.header_sizes = dict(zip(alignment.references, alignment.lengths, strict=True))
            if len(self.header_sizes) < len(alignment.references):
                raise ReadsError(f"{self.path}: its header lists a contig twice; mend it with 'samtools reheader'")
            self.summary.platform = platform_of(alignment)
            if alignment.is_cram:
                self._md5sums = md5_of_contigs(alignment)
        if not self.header_sizes:
            raise ReadsError(f"{self.path}: its header lists no contig (@SQ); give an aligned BAM or CRAM")

    def _match(self, found: Mapping[str, int]) -> None:
        matched = match_contigs(found, self.chromsizes, source=str(self.path), against=_GENOME, aliases=self._aliases)
        self._chrom_of = {name: chrom for chrom, name in matched.names.items()}
        self._conflicts = {name: (length, expected) for name, length, expected in matched.conflicts}

    def __iter__(self) -> Iterator[ChromCounts]:
        if self.kind in _TEXT:
            stated_length = self._stated.read_length
            yield from self._count(
                read_intervals_as_reads(
                    self.path, self.kind, self.rule, read_length=int(stated_length) if stated_length else None
                )
            )
        else:
            yield from self._count_alignment()
        summary = self.summary
        if summary.depth == 0 and summary.skipped_contigs:
            raise GenomeError(
                f"{self.path}: has reads on {shorten(summary.skipped_contigs)} only, but the genome of this run has "
                f"{shorten(self.chromsizes)}; use the same genome build and chromosome names for both"
            )
        if summary.depth == 0:
            kept = f"no read of {summary.seen:,} passes the filters" if summary.seen else "holds no read"
            raise ReadsError(f"{self.path}: {kept} ({self.rule}); check the file, -q and -F")

    def _count_alignment(self) -> Iterator[ChromCounts]:
        alignment = open_alignment(self.path, self._reference)
        try:
            if self.kind is Format.BAM and bam.FAST:
                names = list(self.header_sizes)
                yield from self._count(bam.read_bam(self.path, self.rule, names, threads=self._threads))
            else:
                yield from self._count(read_alignment(alignment, self.path, self.rule))
        except (*DAMAGE, ValueError) as error:
            if alignment.is_cram:
                for (
                    contig,
                    expected,
                ) in self._md5sums.items():  # htslib says of a wrong reference that the file is damaged
                    self._check_sequence(contig, expected)
            remedy = f", or {self.reference} is not its reference" if alignment.is_cram else ""
            raise ReadsError(
                f"{self.path}: {error} after {self.summary.seen:,} records; the file is damaged{remedy}, fetch it again"
            ) from error
        finally:
            with suppress(OSError):  # closing a damaged file fails once more
                alignment.close()

    def _count(self, source: Iterator[Records]) -> Iterator[ChromCounts]:
        bins: Tally | None = None
        of_fragments = self.rule.rule == MIDPOINT
        duplicates = Duplicates(of_fragments=of_fragments) if not self.rule.keep_duplicates else None
        contig: str | None = None
        for records in source:
            self.summary.seen = records.seen
            if records.contig != contig:
                if bins is not None:
                    if duplicates is not None:
                        self._add(bins, duplicates.rest())
                    yield self._finish(bins)
                contig, bins = records.contig, None
                if len(records.start):
                    bins = self._begin(contig)
            if bins is not None:
                self._add(bins, duplicates.first_of_each(records) if duplicates is not None else records)
        if bins is not None:
            if duplicates is not None:
                self._add(bins, duplicates.rest())
            yield self._finish(bins)
        if duplicates is not None:
            self.summary.duplicates = duplicates.found

    def _add(self, bins: Tally, records: Records) -> None:
        summary = self.summary
        ends = (records.end, records.start + records.template) if self.kind in _TEXT else ()
        last = max((end.max(initial=0) for end in ends), default=0)
        if last > bins.length:
            raise GenomeError(
                f"{self.path}: a read ends at {records.contig}:{last:,} but {bins.chrom} has "
                f"{bins.length:,} bp; use the same genome build for both"
            )
        summary.mapq_unknown += int(np.count_nonzero(records.mapq == UNKNOWN_MAPQ))
        n_sampled = min(_LENGTHS_SAMPLED - summary.sampled, len(records.start))
        if n_sampled > 0:
            summary.sampled += n_sampled
            summary.paired += 2 * int(np.count_nonzero(records.flag[:n_sampled] & PAIRED)) - n_sampled
            lengths, times = np.unique(records.length[:n_sampled], return_counts=True)
            summary.read_lengths.update(
                {length: n for length, n in zip(lengths.tolist(), times.tolist(), strict=True) if length > 0}
            )
        bins.add(records)

    def _begin(self, contig: str) -> Tally | None:
        chrom = self._name_matcher(contig) if self.kind in _TEXT else self._chrom_of.get(contig)
        if contig in self._conflicts:
            length, expected = self._conflicts[contig]
            raise ReadsError(
                f"{self.path}: has reads on {contig} of {length:,} bp, which is {expected:,} bp in the genome of this "
                "run; use the same genome build for both"
            )
        if chrom is None:
            self.summary.skipped_contigs.append(contig)
            return None
        if contig in self._md5sums and self._reference is not None:
            self._check_sequence(contig, self._md5sums[contig])
        self._tally = Tally(chrom, self.chromsizes[chrom], self.rule, self.n_folds, scratch=self._tally)
        return self._tally

    def _finish(self, bins: Tally) -> ChromCounts:
        finished = bins.finish()
        self.summary.depth += bins.depth
        self.summary.fold_depths += bins.fold_depths
        covered = np.flatnonzero(finished.blocks) * BLOCK_BP
        sparse = bins.depth < _READS_A_BLOCK * len(covered)  # blocks without a read may be so by chance
        by_block = int(np.minimum(covered + BLOCK_BP, bins.length).sum() - covered.sum())
        self.summary.covered_bp += bins.length if sparse else by_block
        return finished

    def _check_sequence(self, contig: str, expected: str) -> None:
        """Raise ReadsError when the reference's sequence of a contig is not the one of the header."""
        with pysam.FastaFile(str(self._reference)) as fasta:
            if contig not in fasta.references:
                if contig not in self._chrom_of:
                    return
                raise ReadsError(
                    f"{self.path}: has reads on {contig}, which {self.reference} lacks; give its reference"
                )
            found = hashlib.md5(fasta.fetch(contig).upper().encode(), usedforsecurity=False).hexdigest()
        if found != expected:
            raise ReadsError(
                f"{self.path}: {contig} has the MD5 sum {expected} in its header but {found} in {self.reference}; "
                "give the reference that it was compressed against"
            )
