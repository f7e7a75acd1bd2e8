"""Downsampling the reads of a BAM or CRAM file: seeded, mates together, each level a subset of the one before.

A downsampling factor (dsf) of 2 keeps half of the templates. A template is what was sequenced: a fragment with both of
its ends, or a single read. Whether it is kept depends on a hash of what identifies it and of the seed, and on nothing
else, so that mates share a fate and a larger dsf keeps a subset of what a smaller one keeps.

What identifies a template is its read name, or, for files whose reads lack distinct names, where it lies. By position,
duplicates (templates with equal ends) share a fate too, and a secondary or supplementary alignment has one of its own.
"""

import json
import struct
import tempfile
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pysam
from pysam.utils import SamtoolsError

from candi_cli.errors import OutputError, ReadsError, RequestError
from candi_cli.io.alignment import open_alignment
from candi_cli.io.programs import NAME, earlier_downsamplings, with_program
from candi_cli.io.sequence import with_index

POSITION = "position"
METHODS = (NAME, POSITION)
BAM, CRAM = "bam", "cram"
FORMATS = (BAM, CRAM)
MAX_SEED = 2**31 - 1  # samtools reads the seed as a C int

_HASHES = 1 << 64
_NAMES_SAMPLED = 100_000
_ENDS = 2  # primary reads that a template has at most
_SURPLUS = 0.01  # more of the sampled reads than this may not bear a name that a whole template bears already
_BAI_LIMIT = 1 << 29  # bp of the longest contig that a .bai can index
_PAIRED, _REVERSE, _FIRST, _SECOND, _NOT_PRIMARY = 0x1, 0x10, 0x40, 0x80, 0x100 | 0x800


class Kept(NamedTuple):
    """How many records and templates a file holds; of templates, those whose first or only end is there are counted."""

    records: int
    templates: int


class Downsampler:
    """The reads of one file, and the hash by which some of them are kept.

    Parameters
    ----------
    path : BAM or CRAM, sorted or not; it is read more than once
    by : "name", by samtools' own hash of the read name and the seed; "position", by the place of the template
    exact_count : keep exactly round(templates / dsf) templates, those with the smallest hashes, in place of all whose
        hash is below a limit; takes 8 bytes of memory for each template
    reference : FASTA that a CRAM was, or is to be, compressed against

    Raises
    ------
    ReadsError
        The file is missing, damaged or empty, its names do not tell templates apart, or it was downsampled with this
        hash and seed before: the same hash would keep all or nothing of what is left.
    """

    def __init__(
        self,
        path: Path,
        *,
        by: str = NAME,
        seed: int = 0,
        exact_count: bool = False,
        reference: Path | None = None,
        threads: int = 1,
    ) -> None:
        if not 0 <= seed <= MAX_SEED:
            raise RequestError(f"--seed {seed}: out of range; use 0 to {MAX_SEED:,}")
        self.path, self.by, self.seed, self.exact_count = path, by, seed, exact_count
        self.reference, self.threads = reference, threads
        # with any worker samtools' main thread only waits, so that two threads in all would be no faster than one
        self._workers = str(threads) if threads > 1 else "0"
        self._scratch = tempfile.TemporaryDirectory(prefix="candi-")
        self._reference = str(with_index(reference, Path(self._scratch.name))) if reference is not None else None
        with self._open() as alignment:
            header = str(alignment.header).strip("\n") or "@HD\tVN:1.6"  # samtools copies no file without a header
            self._header = f"{header}\n"
            self._longest = max(alignment.lengths, default=0)
        self._refuse_again()
        if by == NAME:
            check_names(path, self._records())
        try:
            self.total = self._count(path)
        except SamtoolsError as error:
            raise ReadsError(f"{path}: {_reason(error)}; the file is damaged, fetch it again") from error
        if not self.total.records:
            raise ReadsError(f"{path}: holds no read; check the file")

    def write(
        self, outputs: Mapping[float, Path], *, output_format: str = BAM, command: str | None = None
    ) -> dict[float, Kept]:
        """Write one file for each dsf, read each back, and return what it holds.

        Parameters
        ----------
        outputs : the path to write for each dsf > 1
        command : the command line for an @PG line; without one no such line is added

        Raises
        ------
        ReadsError
            The input is damaged, or `reference` is not the one of a CRAM.
        OutputError
            An output cannot be written or does not hold what was written.
        """
        if output_format == CRAM and self.reference is None:
            raise RequestError("a CRAM needs its reference; give the FASTA with -T")
        headers = {dsf: self._header if command is None else self._with_program(dsf, command) for dsf in outputs}
        if self.by == NAME and not self.exact_count:
            written = {
                dsf: self._write_by_samtools(dsf, path, headers[dsf], output_format) for dsf, path in outputs.items()
            }
        else:
            written = self._write_chosen(outputs, self._cuts(list(outputs)), headers, output_format)
        return {dsf: self._check(path, written[dsf]) for dsf, path in outputs.items()}

    def index_suffix(self, output_format: str) -> str:
        """Return what an index is called after the name of its file."""
        if output_format == CRAM:
            return ".crai"
        return ".bai" if self._longest < _BAI_LIMIT else ".csi"

    def write_index(self, path: Path, index: Path, output_format: str) -> None:
        """Index a file that `write` wrote."""
        kind = ["-c"] if self.index_suffix(output_format) == ".csi" else []
        try:
            pysam.index(*kind, "-@", self._workers, str(path), str(index))
        except SamtoolsError as error:
            raise ReadsError(
                f"{self.path}: no index could be made of its downsampled reads, which must be sorted by coordinate; "
                "run 'samtools sort' or leave out --write-index"
            ) from error

    def _open(self) -> pysam.AlignmentFile:
        if self.path.is_fifo() or self.path.is_char_device():
            raise ReadsError(f"{self.path}: is a pipe, and reads are read twice; give a file")
        return open_alignment(self.path, Path(self._reference) if self._reference is not None else None)

    def _records(self) -> Iterator[pysam.AlignedSegment]:
        alignment, seen = self._open(), 0
        try:
            for read in alignment:
                seen += 1
                yield read
        except (OSError, ValueError) as error:
            remedy = f", or {self.reference} is not its reference" if alignment.is_cram else ""
            raise ReadsError(
                f"{self.path}: {error} after {seen:,} records; the file is damaged{remedy}, fetch it again"
            ) from error
        finally:
            with suppress(OSError):  # closing a damaged file fails once more
                alignment.close()

    def _refuse_again(self) -> None:
        for earlier in earlier_downsamplings(self._header):
            if (earlier.by, earlier.seed) == (self.by, self.seed):
                raise ReadsError(
                    f"{self.path}: was downsampled by {self.by} with seed {self.seed} before ({earlier.evidence}); "
                    "the same hash would not draw from its reads at random: use another --seed, "
                    "or downsample the original file"
                )

    def _with_program(self, dsf: float, command: str) -> str:
        exact = " exact-count" if self.exact_count else ""
        return with_program(self._header, f"downsample dsf={dsf:.15g} seed={self.seed} by={self.by}{exact}", command)

    def _identity(self) -> "Callable[[pysam.AlignedSegment], bytes]":
        return _name if self.by == NAME else _Place()

    def _cuts(self, dsfs: list[float]) -> "list[_Cut]":
        """Return which hashes each level keeps."""
        if not self.exact_count:
            return [_Cut(int(_HASHES / dsf)) for dsf in dsfs]
        identity, hashes = self._identity(), array("Q")
        for read in self._records():
            if not read.flag & (_NOT_PRIMARY | _SECOND):
                hashes.append(template_hash(identity(read), self.seed))
        return _exact_cuts(hashes, [round(len(hashes) / dsf) for dsf in dsfs])

    def _write_chosen(
        self, outputs: Mapping[float, Path], cuts: "list[_Cut]", headers: Mapping[float, str], output_format: str
    ) -> dict[float, int]:
        """Write the reads that the cuts keep, all levels in one pass, and return how many for each."""
        identity, written = self._identity(), dict.fromkeys(outputs, 0)
        with ExitStack() as stack:
            levels = []
            for (dsf, path), cut in zip(outputs.items(), cuts, strict=True):
                stack.enter_context(_writing(path))
                target = pysam.AlignmentFile(
                    str(path),
                    "wc" if output_format == CRAM else "wb",
                    header=pysam.AlignmentHeader.from_text(headers[dsf]),
                    reference_filename=self._reference,
                    threads=self.threads,
                )
                levels.append((dsf, cut, stack.enter_context(target)))
            for read in self._records():
                value = template_hash(identity(read), self.seed)
                for dsf, cut, target in levels:
                    if cut.keeps(value, read.flag):
                        target.write(read)
                        written[dsf] += 1
        return written

    def _write_by_samtools(self, dsf: float, path: Path, header: str, output_format: str) -> int:
        """Write one level by 'samtools view', give it our header, and return how many records it should hold."""
        subsample = ["--subsample", repr(1 / dsf), "--subsample-seed", str(self.seed), "-@", self._workers]
        if self._reference is not None:
            subsample += ["-T", self._reference]
        viewed, header_text = path.with_name(f"{path.name}.view"), Path(self._scratch.name) / "header.sam"
        header_text.write_text(header)
        try:
            view = ["--no-PG", "-O", output_format, "-o", str(viewed), "--", str(self.path)]
            pysam.view(*subsample, *view, catch_stdout=False)
            # the compressed blocks are copied as they are
            pysam.cat("--no-PG", "-h", str(header_text), "-o", str(path), str(viewed), catch_stdout=False)
            return int(str(pysam.view("-c", *subsample, "--", str(self.path))))
        except SamtoolsError as error:
            reference = f", and that {self.reference} is the reference of {self.path}" if self.reference else ""
            raise OutputError(f"{path}: {_reason(error)}; check that the disk has room{reference}") from error
        finally:
            viewed.unlink(missing_ok=True)

    def _check(self, path: Path, written: int) -> Kept:
        """Return what a file holds; raise OutputError unless it is complete and has as many records as were written."""
        try:
            pysam.quickcheck("-u", str(path))  # unaligned reads need no contigs
            kept = self._count(path)
        except SamtoolsError as error:
            raise OutputError(f"{path}: cannot be read back ({_reason(error)}); check the disk") from error
        if kept.records != written:
            raise OutputError(f"{path}: {written:,} records written, {kept.records:,} read back; check the disk")
        return kept

    def _count(self, path: Path) -> Kept:
        counts = json.loads(str(pysam.flagstat("-@", self._workers, "-O", "json", str(path))))
        passed, failed = counts["QC-passed reads"], counts["QC-failed reads"]
        templates = sum(reads["primary"] - reads["read2"] for reads in (passed, failed))
        return Kept(passed["total"] + failed["total"], templates)


def check_names(path: Path, reads: Iterator[pysam.AlignedSegment]) -> None:
    """Raise ReadsError when the names of the first reads do not tell templates apart, or tell mates apart."""
    names, sampled, numbered = Counter[str](), 0, 0
    for read in reads:
        if read.flag & _NOT_PRIMARY:
            continue
        name, flag = read.query_name or "*", read.flag
        names[name] += 1
        sampled += 1
        numbered += bool(flag & _PAIRED and name.endswith("/1" if flag & _FIRST else "/2"))
        if sampled == _NAMES_SAMPLED:
            break
    surplus = sum(count - _ENDS for count in names.values() if count > _ENDS)
    if surplus > _SURPLUS * sampled:
        name, count = names.most_common(1)[0]
        raise ReadsError(
            f"{path}: its reads have no names of their own ({count:,} of the first {sampled:,} are called '{name}'), "
            "so they would be kept or dropped together; use --by position"
        )
    if numbered > sampled / 2:
        raise ReadsError(f"{path}: the names of mates differ (they end in /1 and /2); use --by position")


def template_hash(identity: bytes, seed: int) -> int:
    """Return the first 64 bits, little-endian, of BLAKE2b of an identity, salted with the seed."""
    return int.from_bytes(blake2b(identity, digest_size=8, salt=seed.to_bytes(8, "little")).digest(), "little")


def _name(read: pysam.AlignedSegment) -> bytes:
    return (read.query_name or "").encode()


class _Place:
    """What identifies a template when names do not: where it lies.

    Both ends of a pair know the starts of both, the template length, and which of them is left. A read that is single,
    or whose mate has no place, has its 5' end and strand. Reads without a place are numbered in the order of the file,
    first and second ends each on their own, so that the n-th first and the n-th second are taken for mates.
    """

    _pack = struct.Struct("<6q").pack

    def __init__(self) -> None:
        self._unplaced = Counter[int]()

    def __call__(self, read: pysam.AlignedSegment) -> bytes:
        flag, here = read.flag, (read.reference_id, read.reference_start)
        if here[0] < 0:
            end = flag & (_FIRST | _SECOND)
            self._unplaced[end] += 1
            return self._pack(-1, self._unplaced[end], -1, -1, 0, 0)
        mate = (read.next_reference_id, read.next_reference_start)
        if not flag & _PAIRED or mate[0] < 0:
            reverse = bool(flag & _REVERSE)
            five_prime = (read.reference_end or here[1] + 1) - 1 if reverse else here[1]
            return self._pack(here[0], five_prime, -1, -1, 0, reverse)
        # by the starts: of two ends that start at one base, both may have a TLEN of the same sign (bowtie2)
        first_is_left = here != mate and bool(flag & _FIRST) == (here < mate)
        return self._pack(*min(here, mate), *max(here, mate), abs(read.template_length), first_is_left)


@dataclass
class _Cut:
    """Keeps hashes below a limit, and of those that equal it the first `n_tied` of each end."""

    limit: int
    n_tied: int = 0
    seen: Counter[int] = field(default_factory=Counter)

    def keeps(self, value: int, flag: int) -> bool:
        if value != self.limit:
            return value < self.limit
        end = flag & (_FIRST | _SECOND | _NOT_PRIMARY)
        self.seen[end] += 1
        return self.seen[end] <= self.n_tied


def _exact_cuts(hashes: "array[int]", sizes: list[int]) -> list[_Cut]:
    """Return the cuts that keep as many of the hashes as asked for; equal hashes are duplicates by position."""
    if not any(sizes):
        return [_Cut(0) for _ in sizes]
    ordered, cuts = np.frombuffer(hashes, dtype=np.uint64), []
    ordered.partition(sorted({size - 1 for size in sizes if size}))  # in place: the order of the file is not needed
    for size in sizes:
        if not size:
            cuts.append(_Cut(0))
            continue
        limit = ordered[size - 1]
        n_tied, n_equal = size - int((ordered < limit).sum()), int((ordered == limit).sum())
        cuts.append(_Cut(int(limit) + 1) if n_tied == n_equal else _Cut(int(limit), n_tied))
    return cuts


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:
        raise OutputError(f"{path}: cannot be written ({error}); check that the disk has room") from error


def _reason(error: SamtoolsError) -> str:
    """Return the first line that samtools wrote on stderr."""
    lines = error.value.partition("stderr=")[2].strip().splitlines()
    return lines[0] if lines else "samtools stopped"
