"""Reading genes from GTF and GFF3, from BED, and from tables with a header."""

import io
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

import numpy as np
from numpy.typing import NDArray

from candi_cli.errors import AnnotationError
from candi_cli.io.formats import DAMAGE, SKIPPED, is_interval, open_decompressed

PROTEIN_CODING = "protein_coding"
Fields = list[bytes]
_BUFFER_BYTES = 1 << 20
_SKIPPED = tuple(word.encode() for word in SKIPPED)
_GENE_FEATURES = (b"gene", b"ncRNA_gene", b"pseudogene")  # the latter two in the GFF3 of Ensembl and RefSeq
_ENSEMBL_ID = re.compile(r"(ENS[A-Z]*\d+)\.\d+(_PAR_Y)?")
_ID_PREFIX = re.compile(r"^gene[:-]")
_COLUMNS = {"gene_id": ("gene_id", "gene", "name"), "chrom": ("chrom", "chr"), "start": ("start",), "end": ("end",),
            "strand": ("strand",)}  # fmt: skip
_REMEDY = "give a GTF or GFF3 (GENCODE, Ensembl), BED6, or a table with the columns gene, chrom, start, end, strand"


def _attribute(*names: str) -> re.Pattern[bytes]:
    """Return what finds the value of an attribute, of GTF (name "value") or GFF3 (name=value)."""
    return re.compile(rb'(?:^|;)\s*(?:%s)(?:=|\s+)"?([^";]*)' % "|".join(names).encode())


_IDS = (_attribute("gene_id"), _attribute("ID"))
_NAMES = (_attribute("gene_name"), _attribute("Name"), _attribute("gene"))
_BIOTYPES = (_attribute("gene_type", "gene_biotype", "biotype"),)


class Genes(NamedTuple):
    """Genes in the order of their file, each of shape (G,).

    Attributes
    ----------
    gene_id : as in the file, with its version
    gene_name : the symbol; the gene_id where the file has none
    start, end : 0-based, half-open
    strand : "+" or "-"
    """

    gene_id: NDArray[np.str_]
    gene_name: NDArray[np.str_]
    chrom: NDArray[np.str_]
    start: NDArray[np.int64]
    end: NDArray[np.int64]
    strand: NDArray[np.str_]

    @property
    def reverse(self) -> NDArray[np.bool_]:
        """Whether a gene is on the - strand."""
        return self.strand == "-"

    def take(self, chosen: NDArray) -> "Genes":
        """Return the genes that a mask or numbers of rows choose."""
        return Genes(*(column[chosen] for column in self))


class _Gene(NamedTuple):
    """One line of a file; `biotype` is None where it does not tell."""

    gene_id: str
    gene_name: str
    chrom: str
    start: int
    end: int
    strand: str
    biotype: str | None = None


def read_genes(path: Path, *, biotype: str | None = PROTEIN_CODING) -> Genes:
    """Return the genes of a GTF, GFF3, BED6 or table with a header, plain or gzip/bgzip, whatever the file's name.

    Of GTF and GFF3 the `gene` features are read; of BED each line is a gene, named by its fourth column; a table has
    a row a gene and the columns gene or gene_id, chrom, start, end (0-based, half-open), strand, and maybe gene_name.

    Parameters
    ----------
    biotype : of the genes to read from GTF and GFF3, None for all; BED and tables do not tell it, and are read whole

    Raises
    ------
    AnnotationError
        The file is missing, is of another kind, holds no such gene or one twice, or a line is no gene.
    """
    head = next((fields for _, fields in _data_lines(path)), [])
    if is_interval([field.decode(errors="replace") for field in head]):
        found = list(_parsed(path, _data_lines(path), _from_bed))
    elif len(head) >= 8 and _is_number(head[3]) and _is_number(head[4]):
        found = _chosen(path, list(_parsed(path, _gene_features(path), _from_annotation)), biotype)
    else:
        from_table = partial(_from_table, columns=_table_columns(path, head))
        found = list(_parsed(path, list(_data_lines(path))[1:], from_table))
    if not found:
        raise AnnotationError(f"{path}: no gene in it; {_REMEDY}")
    _refuse_twice(path, found)
    gene_id, gene_name, chrom, start, end, strand, _ = zip(*(gene for _, gene in found), strict=True)
    return Genes(
        np.array(gene_id), np.array(gene_name), np.array(chrom), np.array(start, dtype=np.int64),
        np.array(end, dtype=np.int64), np.array(strand),
    )  # fmt: skip


def unversioned(gene_id: str) -> str:
    """Return an Ensembl identifier without its version (ENSG00000141510.17 -> ENSG00000141510), others as they are."""
    match = _ENSEMBL_ID.fullmatch(gene_id)
    return match[1] + (match[2] or "") if match else gene_id


def numbered_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield the lines of a text file, plain or gzip/bgzip, and their numbers from 1.

    Raises
    ------
    AnnotationError
        The file cannot be read.
    """
    try:
        with open_decompressed(path) as handle, io.BufferedReader(handle, _BUFFER_BYTES) as buffered:  # type: ignore[type-var]
            yield from enumerate(buffered, 1)
    except FileNotFoundError as failure:
        raise AnnotationError(f"{path}: no such file; check the path") from failure
    except (PermissionError, IsADirectoryError) as failure:
        raise AnnotationError(f"{path}: {failure.strerror}; give a file that can be read") from failure
    except DAMAGE as failure:
        raise AnnotationError(f"{path}: damaged or truncated ({failure}); fetch it again") from failure


def _data_lines(path: Path) -> Iterator[tuple[int, Fields]]:
    """Yield the number and fields of each line that is not blank, a comment or an instruction to a browser."""
    for number, line in numbered_lines(path):
        if line.strip() and not line.startswith(_SKIPPED):
            yield number, line.rstrip(b"\r\n").split(b"\t") if b"\t" in line else line.split()


def _gene_features(path: Path) -> Iterator[tuple[int, Fields]]:
    """Yield the number and fields of each line whose third field is a gene; the others are hardly looked at."""
    for number, line in numbered_lines(path):
        if b"gene\t" in line and not line.startswith(b"#"):
            fields = line.rstrip(b"\r\n").split(b"\t")
            if len(fields) > 2 and fields[2] in _GENE_FEATURES:
                yield number, fields


def _parsed(
    path: Path, lines: Iterable[tuple[int, Fields]], parse: Callable[[Fields], _Gene]
) -> Iterator[tuple[int, _Gene]]:
    for number, fields in lines:
        try:
            gene = parse(fields)
            if not 0 <= gene.start < gene.end:
                raise ValueError(f"{gene.start}-{gene.end} is no interval (0 <= start < end)")
        except ValueError as error:
            raise AnnotationError(f"{path}:{number}: {error}; correct the line, or fetch the file again") from error
        yield number, gene


def _from_bed(fields: Fields) -> _Gene:
    _refuse_short(fields, 6, "chrom, start, end, name, score, strand")
    name = fields[3].decode(errors="replace")
    return _Gene(name, name, _text(fields[0]), _whole(fields[1]), _whole(fields[2]), _strand(fields[5]))


def _from_annotation(fields: Fields) -> _Gene:
    """Return the gene of a line of GTF or GFF3, whose start counts from 1 and whose end is inclusive."""
    _refuse_short(fields, 9, "those of GTF and GFF3")
    gene_id = _first_value(_IDS, fields[8])
    if not gene_id:
        raise ValueError("a gene without gene_id or ID")
    gene_id = _ID_PREFIX.sub("", gene_id)
    name = _first_value(_NAMES, fields[8]) or gene_id
    strand = fields[6].decode(errors="replace")
    biotype = _first_value(_BIOTYPES, fields[8])
    return _Gene(gene_id, name, _text(fields[0]), _whole(fields[3]) - 1, _whole(fields[4]), strand, biotype)


def _from_table(fields: Fields, *, columns: dict[str, int]) -> _Gene:
    _refuse_short(fields, max(columns.values()) + 1, "as the header says")
    start, end = _whole(fields[columns["start"]]), _whole(fields[columns["end"]])
    gene_id = _text(fields[columns["gene_id"]])
    name = _text(fields[columns["gene_name"]]) if "gene_name" in columns else gene_id
    return _Gene(gene_id, name, _text(fields[columns["chrom"]]), start, end, _strand(fields[columns["strand"]]))


def _table_columns(path: Path, head: Fields) -> dict[str, int]:
    """Return where a header has its columns."""
    names = [field.decode(errors="replace").strip().lower() for field in head]
    columns = {}
    for column, spellings in _COLUMNS.items():
        at = [names.index(spelling) for spelling in spellings if spelling in names]
        if not at:
            raise AnnotationError(f"{path}: not a file of genes; {_REMEDY}")
        columns[column] = at[0]
    if "gene_name" in names:
        columns["gene_name"] = names.index("gene_name")
    return columns


def _chosen(path: Path, found: Sequence[tuple[int, _Gene]], biotype: str | None) -> list[tuple[int, _Gene]]:
    """Return the genes of a biotype, those whose strand is known."""
    if not found:
        raise AnnotationError(f"{path}: no gene features; give an annotation with them, such as GENCODE's or Ensembl's")
    if biotype is not None and all(gene.biotype is None for _, gene in found):
        raise AnnotationError(
            f"{path}: its genes have no gene_type, gene_biotype or biotype; give an annotation that tells it, or BED6"
        )
    chosen = [(number, gene) for number, gene in found if biotype is None or gene.biotype == biotype]
    if not chosen:
        types = sorted({gene.biotype for _, gene in found if gene.biotype})
        raise AnnotationError(f"{path}: no gene is {biotype}; its types are {', '.join(types[:8])}")
    for number, gene in chosen:
        if gene.strand not in ("+", "-"):
            raise AnnotationError(f"{path}:{number}: gene {gene.gene_id} has no strand; give + or -, or leave it out")
    return chosen


def _refuse_twice(path: Path, found: Sequence[tuple[int, _Gene]]) -> None:
    """Refuse two genes of the same identifier, whatever its version."""
    first: dict[str, int] = {}
    for number, gene in found:
        before = first.setdefault(unversioned(gene.gene_id), number)
        if before != number:
            raise AnnotationError(
                f"{path}:{number}: gene {gene.gene_id} is on line {before} too; leave one line for each gene"
            )


def _first_value(patterns: Sequence[re.Pattern[bytes]], attributes: bytes) -> str | None:
    """Return the value of the first attribute that is there."""
    for pattern in patterns:
        if match := pattern.search(attributes):
            return unquote(match[1].decode(errors="replace").strip())
    return None


def _refuse_short(fields: Fields, least: int, what: str) -> None:
    if len(fields) < least:
        raise ValueError(f"{len(fields)} fields, at least {least} are needed ({what})")


def _strand(field: bytes) -> str:
    if field.strip() not in (b"+", b"-"):
        raise ValueError(f"{_text(field)[:40]!r} is no strand (+ or -)")
    return _text(field)


def _whole(field: bytes) -> int:
    if not _is_number(field):
        raise ValueError(f"{_text(field)[:40]!r} is not a whole number")
    return int(field)


def _is_number(field: bytes) -> bool:
    return re.fullmatch(rb"\s*\d{1,18}\s*", field) is not None


def _text(field: bytes) -> str:
    return field.decode(errors="replace").strip()
