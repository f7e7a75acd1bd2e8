"""Reading SAM, BAM and CRAM through pysam: headers of all three, and the reads where the fast way does not serve."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pysam

from candi_cli.counting import MIDPOINT, CountingRule
from candi_cli.covariates import parse_platform
from candi_cli.errors import ReadsError
from candi_cli.io.bam import keeps, stands_for_molecule, unsorted
from candi_cli.io.records import UNMAPPED, Records

_AT_ONCE = 100_000  # reads held as Python objects before they become columns

pysam.set_verbosity(0)  # htslib's own lines on stderr would come before ours


def open_alignment(path: Path, reference: Path | None) -> pysam.AlignmentFile:
    """Open a SAM, BAM or CRAM file.

    Parameters
    ----------
    reference : an indexed FASTA; a CRAM needs it

    Raises
    ------
    ReadsError
        The file is missing, not an alignment file or truncated, or a CRAM comes without its reference.
    """
    if not path.exists():
        raise ReadsError(f"{path}: no such file; check the path")
    try:
        name = str(reference) if reference is not None else None
        alignment = pysam.AlignmentFile(str(path), check_sq=False, reference_filename=name)
    except (OSError, ValueError) as error:
        raise ReadsError(f"{path}: {_why_not_open(path, error)}") from error
    if alignment.is_cram and reference is None:
        alignment.close()
        raise ReadsError(f"{path}: a CRAM needs its reference; give the FASTA with -T")
    return alignment


def platform_of(alignment: pysam.AlignmentFile) -> str | None:
    """Return the platform that all read groups agree on (PM, else PL), None when they do not tell."""
    groups = _header(alignment).get("RG", [])
    found = {parse_platform(group.get("PM") or group.get("PL") or "") for group in groups}
    return found.pop() if len(found) == 1 else None


def md5_of_contigs(alignment: pysam.AlignmentFile) -> dict[str, str]:
    """Return the MD5 sums of the contigs' sequences that the header states (@SQ M5)."""
    contigs = _header(alignment).get("SQ", [])
    return {contig["SN"]: contig["M5"].lower() for contig in contigs if "M5" in contig}


def _header(alignment: pysam.AlignmentFile) -> dict[str, Any]:
    try:
        return alignment.header.to_dict()
    except (AssertionError, UnicodeDecodeError, ValueError, KeyError) as error:
        name = alignment.filename.decode()
        raise ReadsError(
            f"{name}: its header is damaged; fetch the file again, or mend it with 'samtools reheader'"
        ) from error


def read_alignment(alignment: pysam.AlignmentFile, path: Path, rule: CountingRule) -> Iterator[Records]:
    """Yield the reads of an open file that is sorted by coordinate.

    Raises
    ------
    ReadsError
        The records are not sorted.
    OSError, ValueError
        They are damaged, or a CRAM's reference is another.
    """
    excluded, min_mapq = rule.excl_flags | UNMAPPED, rule.min_mapq
    pairs_once, singles = rule.counts_pairs_once, rule.rule == MIDPOINT
    rows: list[tuple[int, ...]] = []
    contig, last_start, seen = -1, -1, 0
    for read in alignment:
        here, start = read.reference_id, read.reference_start
        if here >= 0:
            if here < contig or (here == contig and start < last_start):
                raise ReadsError(f"{path}: {unsorted(seen + 1, read.reference_name, start)}")
            if rows and (here != contig or len(rows) == _AT_ONCE):
                yield _columns(rows, alignment.get_reference_name(contig), seen)
                rows = []
            contig, last_start = here, start
        seen += 1
        flag, mapq = read.flag, read.mapping_quality
        if here < 0 or not keeps(flag, mapq, excluded, min_mapq):
            continue
        mate_start, template = read.next_reference_start, read.template_length
        if pairs_once and not stands_for_molecule(flag, start, mate_start, template, singles):
            continue
        length = read.query_length or read.infer_query_length() or 0
        end = read.reference_end or start + 1
        rows.append((start, end, flag, mate_start, template, length, mapq))
    if rows:
        yield _columns(rows, alignment.get_reference_name(contig), seen)
    yield Records.none(seen)


def _columns(rows: list[tuple[int, ...]], contig: str, seen: int) -> Records:
    start, end, flag, mate_start, template, length, mapq = np.array(rows, dtype=np.int32).T
    return Records(contig, start, end, flag, mate_start, template, length, mapq.astype(np.uint8), seen)


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
