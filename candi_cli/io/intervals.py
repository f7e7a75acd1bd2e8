"""Reading reads from text: BED and tagAlign, BEDPE, and fragments files, sorted or not.

Text has no filters to pass: what a line says is counted, whatever its score. The lines are sorted into one temporary
file a contig, so that memory does not grow with the number of reads.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from candi_cli.counting import FIVE_PRIME, FRAGMENT, MIDPOINT, OVERLAP, CountingRule
from candi_cli.errors import OutputError, ReadsError
from candi_cli.io.columns import LineError, Lines, name_runs, read_lines
from candi_cli.io.formats import Format
from candi_cli.io.records import COLUMNS, FIRST, MATE_REVERSE, PAIRED, PROPER, REVERSE, SECOND, Records

_AT_ONCE = 1 << 19  # reads of a contig at a time
_STRETCH_BP = 1 << 24  # whose reads are sorted at a time
_PLUS, _MINUS, _DOT = b"+", b"-", b"."
_LONGEST = 2**31 - 1
_PAIR = PAIRED | PROPER
_NO_MAPQ = 0  # there is none to pass or to fail


class Span(NamedTuple):
    """Starts and ends of reads."""

    start: NDArray[np.int64]
    end: NDArray[np.int64]

    def take(self, chosen: NDArray[np.bool_]) -> "Span":
        """Return the spans that a mask chooses."""
        return Span(self.start[chosen], self.end[chosen])


class Reads(NamedTuple):
    """Columns of reads of several contigs, and the names of those: one array element a read."""

    contig: NDArray[np.bytes_]
    start: NDArray[np.int64]
    end: NDArray[np.int64]
    flag: NDArray[np.int64]
    mate_start: NDArray[np.int64]
    template: NDArray[np.int64]
    length: NDArray[np.int64]


def read_intervals_as_reads(
    path: Path, kind: Format, rule: CountingRule, *, read_length: int | None = None
) -> Iterator[Records]:
    """Yield the reads of a text file, contig by contig in the order of their names' first lines.

    Parameters
    ----------
    kind : BED (a read a line), BEDPE (a pair of reads a line) or FRAGMENTS (a fragment a line)
    read_length : bp of the reads at the two ends of a fragment; `overlap` needs it for fragments

    Raises
    ------
    ReadsError
        A line is not what it should be, or does not tell what the counting rule needs.
    """
    _check_rule(path, kind, rule, read_length)
    with tempfile.TemporaryDirectory(prefix="candi-") as folder:
        spill = _Spill(Path(folder), in_order=not rule.keep_duplicates)
        n_lines = 0
        for lines in read_lines(path, ReadsError, what="reads as BAM, CRAM, BED, BEDPE or fragments"):
            if not len(lines):
                continue
            n_lines += len(lines)
            try:
                reads = _parse(lines, kind, rule, read_length)
            except LineError as error:
                line = lines.numbers[error.line]
                raise ReadsError(f"{path}:{line}: {error}; correct the line, or fetch the file again") from error
            spill.add(reads)
        yield from spill.records(seen=n_lines)


def _check_rule(path: Path, kind: Format, rule: CountingRule, read_length: int | None) -> None:
    if kind is Format.FRAGMENTS and rule.rule == OVERLAP and not read_length:
        raise ReadsError(
            f"{path}: fragments do not say how long their reads are; give read_length in the sample sheet, "
            "or count by 'fragment', 'midpoint' or 'five-prime'"
        )
    if kind is Format.BED and rule.rule == FRAGMENT:
        raise ReadsError(
            f"{path}: single reads, which have no fragments; count by 'overlap', 'five-prime' or 'midpoint'"
        )


def _parse(lines: Lines, kind: Format, rule: CountingRule, read_length: int | None) -> Reads:
    if kind is Format.BEDPE:
        return _pairs(lines, rule)
    if kind is Format.FRAGMENTS:
        return _fragments(lines, rule, read_length)
    return _single(lines, rule)


def _single(lines: Lines, rule: CountingRule) -> Reads:
    contigs = lines.texts(0)
    start, end = _span(lines, contigs, 0)
    reverse = _strand(lines, contigs, 5, needed=rule.rule in (FIVE_PRIME, MIDPOINT)) == _MINUS
    zero = np.zeros_like(start)
    return Reads(contigs, start, end, np.where(reverse, REVERSE, 0), zero - 1, zero, end - start)


def _fragments(lines: Lines, rule: CountingRule, read_length: int | None) -> Reads:
    """Return the two reads at the ends of each fragment; the left one stands for both where pairs count once."""
    contigs = lines.texts(0)
    start, end = _span(lines, contigs, 0)
    length = np.minimum(read_length or end - start, end - start)
    reads = _paired(contigs, Span(start, start + length), Span(end - length, end), rule)
    return reads if read_length else reads._replace(length=np.zeros_like(reads.length))


def _pairs(lines: Lines, rule: CountingRule) -> Reads:
    """Return both reads of each line; mates on two contigs, or on one strand, are single reads and no fragment."""
    contigs, mates = lines.texts(0), lines.texts(3)
    one, other = _span(lines, contigs, 0), _span(lines, mates, 3)
    needed = rule.rule == FIVE_PRIME
    strand, mate_strand = _strand(lines, contigs, 8, needed=needed), _strand(lines, mates, 9, needed=needed)
    swapped = (contigs == mates) & (
        (other.start < one.start) | ((other.start == one.start) & (strand == _MINUS) & (mate_strand != _MINUS))
    )
    left, right = _swap(swapped, one, other), _swap(~swapped, one, other)
    left_reverse = np.where(swapped, mate_strand, strand) == _MINUS
    right_reverse = np.where(swapped, strand, mate_strand) != _PLUS  # mates without strands point at each other
    proper = (contigs == mates) & (contigs != _DOT) & ~left_reverse & right_reverse
    together = _paired(contigs[proper], left.take(proper), right.take(proper), rule)
    if rule.counts_pairs_once:
        return together
    apart = []
    for names, span, strands in ((contigs, one, strand), (mates, other, mate_strand)):
        chosen = ~proper & (names != _DOT)
        start, end = span.take(chosen)
        flag = np.where(strands[chosen] == _MINUS, PAIRED | REVERSE, PAIRED)
        zero = np.zeros_like(start)
        apart.append(Reads(names[chosen], start, end, flag, zero - 1, zero, end - start))
    return _joined([together, *apart])


def _span(lines: Lines, contigs: NDArray[np.bytes_], column: int) -> Span:
    """Return the two fields after that of the contig; raise LineError unless they are an interval, or `.` is it."""
    start, end = lines.integers(column + 1), lines.integers(column + 2)
    wrong = np.flatnonzero((contigs != _DOT) & ((start < 0) | (end <= start) | (end > _LONGEST)))
    if len(wrong):
        line = int(wrong[0])
        raise LineError(line, f"{start[line]}-{end[line]} is no interval (0 <= start < end)")
    return Span(start, end)


def _strand(lines: Lines, contigs: NDArray[np.bytes_], column: int, *, needed: bool) -> NDArray[np.bytes_]:
    """Return a field of `+`, `-` or something else; raise LineError at the latter where a strand is needed."""
    strand = lines.texts(column, missing=_DOT)
    without = np.flatnonzero((contigs != _DOT) & (strand != _PLUS) & (strand != _MINUS))
    if needed and len(without):
        line = int(without[0])
        raise LineError(line, f"no strand (+ or - in field {column + 1}), so that the 5' end is not known")
    return strand


def _swap(chosen: NDArray[np.bool_], one: Span, other: Span) -> Span:
    """Return the other span where a mask chooses, else the one."""
    return Span(np.where(chosen, other.start, one.start), np.where(chosen, other.end, one.end))


def _paired(contigs: NDArray[np.bytes_], left: Span, right: Span, rule: CountingRule) -> Reads:
    template = np.maximum(right.end, left.end) - left.start
    flag = np.full(len(contigs), _PAIR | FIRST | MATE_REVERSE)
    first = Reads(contigs, left.start, left.end, flag, right.start, template, left.end - left.start)
    if rule.counts_pairs_once:
        return first
    flag = np.full(len(contigs), _PAIR | SECOND | REVERSE)
    length = right.end - right.start
    return _joined([first, Reads(contigs, right.start, right.end, flag, left.start, -template, length)])


def _joined(parts: list[Reads]) -> Reads:
    return Reads(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


class _Spill:
    """Reads sorted into files by contig and, when their order matters, by stretches of it, as rows of int32."""

    def __init__(self, folder: Path, *, in_order: bool) -> None:
        self.folder, self.in_order = folder, in_order
        self.paths: dict[str, dict[int, Path]] = {}

    def add(self, reads: Reads) -> None:
        rows = np.stack([*reads[1:], np.full(len(reads.start), _NO_MAPQ)], axis=1).astype(np.int32)
        for contig, chosen in name_runs(reads.contig):
            files = self.paths.setdefault(contig, {})
            stretches = rows[chosen, 0] // _STRETCH_BP if self.in_order else np.zeros(len(chosen), dtype=np.int32)
            for stretch in np.unique(stretches).tolist():
                path = files.setdefault(stretch, self.folder / f"{len(self.paths)}.{stretch}")
                self._append(path, rows[chosen[stretches == stretch]])

    def _append(self, path: Path, rows: NDArray[np.int32]) -> None:
        try:
            with path.open("ab") as handle:
                handle.write(rows.tobytes())
        except OSError as error:
            raise OutputError(
                f"{self.folder}: reads cannot be kept there while they are sorted ({error.strerror}); "
                "make room, or set TMPDIR to another folder"
            ) from error

    def records(self, *, seen: int) -> Iterator[Records]:
        """Yield the reads of each contig, by start when their order matters."""
        for contig, files in self.paths.items():
            for _, path in sorted(files.items()):
                with path.open("rb") as handle:
                    if self.in_order:
                        found = _rows(handle, -1)
                        yield _records(contig, found[np.argsort(found[:, 0], kind="stable")], seen)
                    else:
                        while len(found := _rows(handle, _AT_ONCE)):
                            yield _records(contig, found, seen)
                path.unlink()
        yield Records.none(seen)


def _rows(handle: BinaryIO, n_rows: int) -> NDArray[np.int32]:
    width = len(COLUMNS)
    n_bytes = n_rows * width * 4 if n_rows >= 0 else -1
    return np.frombuffer(handle.read(n_bytes), dtype=np.int32).reshape(-1, width)


def _records(contig: str, rows: NDArray[np.int32], seen: int) -> Records:
    start, end, flag, mate_start, template, length, mapq = np.ascontiguousarray(rows.T)
    return Records(contig, start, end, flag, mate_start, template, length, mapq.astype(np.uint8), seen)
