"""Recognising files by their content: names lie, and workflow managers rename."""

import codecs
import re
import zlib
from contextlib import suppress
from enum import Enum
from pathlib import Path
from typing import Any, BinaryIO

from isal import igzip, isal_zlib

_HEAD_BYTES = 1 << 16
_GZIP = b"\x1f\x8b"
_BIGWIG = (b"\x26\xfc\x8f\x88", b"\x88\x8f\xfc\x26")
_BIGBED = (b"\xeb\xf2\x89\x87", b"\x87\x89\xf2\xeb")
_HDF5 = b"\x89HDF\r\n\x1a\n"
_SAM_HEADER = re.compile(rb"^@(HD|SQ|RG|PG|CO)\t")
_BARCODE = re.compile(r"^([A-Za-z0-9]+[_:#])?[ACGTN]{8,}([-+_.][A-Za-z0-9]+)*$")
DAMAGE: tuple[Any, ...] = (
    EOFError,
    OSError,
    zlib.error,
    isal_zlib.error,
)  # what reading a damaged file raises
SKIPPED = ("#", "track", "browser")


class Format(Enum):
    """What a file holds; the value says it in words, for messages."""

    BAM = "a BAM"
    CRAM = "a CRAM"
    SAM = "a SAM file"
    BED = "a BED file"
    BEDPE = "a BEDPE file"
    FRAGMENTS = "a fragments file"
    BEDGRAPH = "a bedGraph"
    BIGWIG = "a bigWig"
    BIGBED = "a bigBed"
    HDF5 = "an HDF5 file"
    FASTA = "a FASTA file"
    FASTQ = "a FASTQ file"
    DAMAGED = "a damaged gzip file"
    OTHER = "a file of another kind"


def recognise(path: Path) -> Format:
    """Return what a file holds, from its first bytes and, of text, from its first line.

    Text of at least three tab- or space-separated fields with numbers in the second and third is BEDPE when two more
    numbers follow a second name, a fragments file (chrom, start, end, barcode, count) when the fourth field is a cell
    barcode, bedGraph when there are four fields and the fourth is a number, and BED otherwise.

    Raises
    ------
    OSError
        It cannot be read.
    """
    try:
        head = _head(path)
    except zlib.error:
        return Format.DAMAGED
    for magics, found in (((b"BAM\x01",), Format.BAM), ((b"CRAM",), Format.CRAM), ((_HDF5,), Format.HDF5),
                          (_BIGWIG, Format.BIGWIG), (_BIGBED, Format.BIGBED)):  # fmt: skip
        if head.startswith(magics):
            return found
    if _SAM_HEADER.match(head):
        return Format.SAM
    return _kind_of_text(head)


def columns_of(path: Path) -> int:
    """Return the number of fields on the first line of a text file, 0 when it is none."""
    with suppress(zlib.error):
        return len(_split(_first_line(_head(path))))
    return 0


def is_compressed(path: Path) -> bool:
    """Return whether a file is gzip or bgzip."""
    with path.open("rb") as handle:
        return handle.read(2) == _GZIP


def open_decompressed(path: Path) -> BinaryIO:
    """Open a file, plain or gzip/bgzip, for reading its content as bytes."""
    return igzip.open(path, "rb") if is_compressed(path) else path.open("rb")


def is_interval(fields: list[str]) -> bool:
    """Return whether the fields of a line begin with a name and two whole numbers."""
    return len(fields) >= 3 and _is_integer(fields[1]) and _is_integer(fields[2])


def _head(path: Path) -> bytes:
    """Return the beginning of a file, or of what it holds when it is compressed; zlib.error when that is damaged."""
    with path.open("rb") as handle:
        head = handle.read(_HEAD_BYTES)
    if not head.startswith(_GZIP):
        return head.removeprefix(codecs.BOM_UTF8)
    content = b""
    while head and len(content) < _HEAD_BYTES:  # member by member
        member = zlib.decompressobj(31)
        try:
            content += member.decompress(head, _HEAD_BYTES)
        except zlib.error:
            if not content:
                raise
            break
        head = member.unused_data
    return content.removeprefix(codecs.BOM_UTF8)


def _first_line(head: bytes) -> str:
    """Return the first line of text that is no comment, empty when there is none or it is not text."""
    if b"\0" in head:
        return ""
    lines = head.decode(errors="replace").splitlines()
    return next((line for line in lines if line.strip() and not line.startswith(SKIPPED)), "")


def _split(line: str) -> list[str]:
    return line.split("\t") if "\t" in line else line.split()


def _kind_of_text(head: bytes) -> Format:
    first = _first_line(head)
    fields = _split(first)
    if first.startswith(">"):
        return Format.FASTA
    if first.startswith("@"):
        return Format.FASTQ
    if not is_interval(fields):
        return Format.OTHER
    if len(fields) >= 6 and _is_integer(fields[4]) and _is_integer(fields[5]):
        return Format.BEDPE
    if len(fields) in (4, 5) and _BARCODE.match(fields[3]) and all(map(_is_integer, fields[4:])):
        return Format.FRAGMENTS
    if len(fields) == 4 and is_number(fields[3]):
        return Format.BEDGRAPH
    return Format.BED


def _is_integer(text: str) -> bool:
    return re.fullmatch(r"-?\d+", text.strip()) is not None


def is_number(text: str | bytes) -> bool:
    """Return whether text is a number as Python reads it."""
    try:
        float(text)
    except ValueError:
        return False
    return True
