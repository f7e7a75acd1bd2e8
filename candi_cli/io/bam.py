"""Reading BAM records at the speed of decompression: igzip for the blocks, one compiled loop for the records.

The loop is compiled by numba. Where that is not installed, `FAST` is false and `alignment.py` reads BAM through pysam,
which gives the same reads.
"""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from isal import igzip, igzip_threaded
from numpy.typing import NDArray

from candi_cli.counting import MIDPOINT, CountingRule
from candi_cli.errors import ReadsError
from candi_cli.io.compiling import COMPILES, compiled
from candi_cli.io.records import UNMAPPED, Records

FAST = COMPILES  # whether BAM is read by the loop below
_PIECE = 1 << 22  # bytes decompressed at a time
_SHORTEST = 4 + 32 + 1  # bytes of the shortest record
_MORE, _NEXT_CONTIG, _UNSORTED, _DAMAGED = range(4)
_CONTIG, _START, _SEEN, _KEPT, _OFFSET = range(5)


# what a compiled loop calls is in the same file: numba's cache is renewed when that file changes, and only then
def keeps(flag: int, mapq: int, excluded: int, min_mapq: int) -> bool:
    """Return whether a read passes the filters."""
    return flag & excluded == 0 and mapq >= min_mapq


def stands_for_molecule(flag: int, start: int, mate_start: int, template: int, singles: bool) -> bool:
    """Return whether a read is the one of a proper pair that its fragment is counted by: the left one, by its TLEN.

    Of mates that start at one base some aligners give both TLENs the same sign: then it is the forward one. A
    single-ended read stands for itself if `singles`.
    """
    if singles and flag & 0x1 == 0:
        return True
    if flag & 0x2 == 0 or template == 0:
        return False
    if start != mate_start:
        return template > 0
    reverse, mate_reverse = flag & 0x10 != 0, flag & 0x20 != 0
    return not reverse if reverse != mate_reverse else flag & 0x40 != 0


_keeps = compiled(keeps)
_stands_for_molecule = compiled(stands_for_molecule)


@compiled
def _int32(buffer: NDArray[np.uint8], at: int) -> int:
    return np.int32(  # type: ignore[return-value]
        np.uint32(buffer[at])
        | np.uint32(buffer[at + 1]) << np.uint32(8)
        | np.uint32(buffer[at + 2]) << np.uint32(16)
        | np.uint32(buffer[at + 3]) << np.uint32(24)
    )


@compiled
def _scan(
    buffer: NDArray[np.uint8],
    stop: int,
    state: NDArray[np.int64],
    excluded: int,
    min_mapq: int,
    pairs_once: bool,
    singles: bool,
    n_contigs: int,
    columns: NDArray[np.int32],
) -> int:
    """Move over whole records of `buffer` (SAM specification 4.2), writing those that pass into `columns`."""
    at = state[_OFFSET]
    status = _MORE
    while at + 4 <= stop:
        size = np.int64(_int32(buffer, at))
        if size < 33:
            status = _DAMAGED
            break
        if at + 4 + size > stop:
            break
        record = at + 4
        contig = np.int64(_int32(buffer, record))
        start = np.int64(_int32(buffer, record + 4))
        if contig >= n_contigs:
            status = _DAMAGED
            break
        if contig >= 0:
            if contig != state[_CONTIG]:
                if contig < state[_CONTIG]:
                    status = _UNSORTED
                    break
                if state[_KEPT] > 0:
                    status = _NEXT_CONTIG
                    break
                state[_CONTIG] = contig
            elif start < state[_START]:
                status = _UNSORTED
                break
            state[_START] = start
        state[_SEEN] += 1
        at += 4 + size
        flag = np.int64(buffer[record + 14]) | np.int64(buffer[record + 15]) << 8
        mapq = np.int64(buffer[record + 9])
        template = np.int64(_int32(buffer, record + 28))
        mate_start = np.int64(_int32(buffer, record + 24))
        if contig < 0 or not _keeps(flag, mapq, excluded, min_mapq):
            continue
        if pairs_once and not _stands_for_molecule(flag, start, mate_start, template, singles):
            continue
        n_operations = np.int64(buffer[record + 12]) | np.int64(buffer[record + 13]) << 8
        cigar = record + 32 + np.int64(buffer[record + 8])
        if cigar + 4 * n_operations > at:
            status = _DAMAGED
            break
        aligned = np.int64(0)
        length = np.int64(0)
        for number in range(n_operations):
            operation = np.uint32(_int32(buffer, cigar + 4 * number))
            kind = operation & np.uint32(15)
            n_bases = np.int64(operation >> np.uint32(4))
            if kind == 0 or kind == 7 or kind == 8:  # M = X
                aligned += n_bases
                length += n_bases
            elif kind == 2 or kind == 3:  # D N
                aligned += n_bases
            elif kind == 1 or kind == 4:  # I S
                length += n_bases
        stored = np.int64(_int32(buffer, record + 16))
        kept = state[_KEPT]
        columns[0, kept] = start
        columns[1, kept] = start + (aligned if aligned > 0 else 1)
        columns[2, kept] = flag
        columns[3, kept] = mate_start
        columns[4, kept] = template
        columns[5, kept] = stored if stored > 0 else length
        columns[6, kept] = mapq
        state[_KEPT] += 1
    state[_OFFSET] = at
    return status


def read_bam(path: Path, rule: CountingRule, contigs: list[str], *, threads: int = 1) -> Iterator[Records]:
    """Yield the reads of a BAM that is sorted by coordinate.

    Parameters
    ----------
    contigs : names of the header, in its order
    threads : with two or more, blocks are decompressed in a thread of their own

    Raises
    ------
    ReadsError
        The records are damaged or not sorted.
    OSError, EOFError, isal.isal_zlib.error
        The compressed blocks are damaged (`formats.DAMAGE`).
    """
    opened = igzip_threaded.open(path, "rb", threads=1) if threads > 1 else igzip.open(path, "rb")
    with opened as blocks:
        _skip_header(blocks)
        yield from _records(blocks, path, rule, contigs)


def _skip_header(blocks: BinaryIO) -> None:
    _, n_text = struct.unpack("<4si", blocks.read(8))
    blocks.read(n_text)
    (n_contigs,) = struct.unpack("<i", blocks.read(4))
    for _ in range(n_contigs):
        (n_name,) = struct.unpack("<i", blocks.read(4))
        blocks.read(n_name + 4)


def _records(blocks: BinaryIO, path: Path, rule: CountingRule, contigs: list[str]) -> Iterator[Records]:
    buffer = np.empty(2 * _PIECE, dtype=np.uint8)
    columns = np.empty((7, len(buffer) // _SHORTEST), dtype=np.int32)
    state = np.array([-1, -1, 0, 0, 0], dtype=np.int64)
    excluded, filters = rule.excl_flags | UNMAPPED, (rule.min_mapq, rule.counts_pairs_once, rule.rule == MIDPOINT)
    held = 0
    while n_read := blocks.readinto(buffer.data[held : held + _PIECE]):  # type: ignore[attr-defined]
        held += n_read
        state[_OFFSET] = 0
        status = _NEXT_CONTIG
        while status == _NEXT_CONTIG:
            state[_KEPT] = 0
            status = _scan(buffer, held, state, excluded, *filters, len(contigs), columns)
            if state[_KEPT]:
                yield _copied(columns[:, : state[_KEPT]], contigs[state[_CONTIG]], int(state[_SEEN]))
        if status != _MORE:
            raise ReadsError(f"{path}: {_complaint(status, buffer, state, contigs)}")
        rest = held - int(state[_OFFSET])
        buffer[:rest] = buffer[held - rest : held].copy()
        held = rest
        if held + _PIECE > len(buffer):  # a record longer than a piece
            buffer = np.concatenate([buffer, np.empty(len(buffer), dtype=np.uint8)])
            columns = np.empty((7, len(buffer) // _SHORTEST), dtype=np.int32)
    if held:
        raise ReadsError(f"{path}: ends in the middle of a record after {state[_SEEN]:,} records; fetch it again")
    yield Records.none(int(state[_SEEN]))


def _copied(columns: NDArray[np.int32], contig: str, seen: int) -> Records:
    start, end, flag, mate_start, template, length, mapq = columns.copy()
    return Records(contig, start, end, flag, mate_start, template, length, mapq.astype(np.uint8), seen)


def _complaint(status: int, buffer: NDArray[np.uint8], state: NDArray[np.int64], contigs: list[str]) -> str:
    seen = int(state[_SEEN])
    if status == _DAMAGED:
        return f"a record is damaged after {seen:,} records; fetch it again"
    record = int(state[_OFFSET]) + 4
    contig, start = struct.unpack("<ii", buffer[record : record + 8].tobytes())
    return unsorted(seen + 1, contigs[contig], start)


def unsorted(record: int, contig: Any, start: int) -> str:
    """Say that a record comes too late for a file that is sorted by coordinate."""
    return f"not sorted by coordinate (record {record:,}, {contig}:{start + 1:,}, comes too late); run 'samtools sort'"
