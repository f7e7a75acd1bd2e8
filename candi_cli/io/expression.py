"""Reading the expression of genes: a matrix of genes and samples, or the quantification of one sample."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from candi_cli.errors import AnnotationError
from candi_cli.io.formats import is_number
from candi_cli.io.genes import Genes, numbered_lines, unversioned

_ID_COLUMNS = ("gene_id", "gene", "geneid", "ensembl_gene_id", "ensembl", "name", "id", "")  # the first that is there
_NAME_COLUMNS = ("gene_name", "gene_symbol", "symbol", "hgnc_symbol")
_NOT_SAMPLES = frozenset({*_NAME_COLUMNS, "description", "gene_type", "gene_biotype", "biotype",
                          "transcript_id(s)", "chrom", "chr", "start", "end", "strand", "length"})  # fmt: skip
_TPM = "tpm"  # of a quantification (RSEM, Salmon), whose other columns are not used
_SUFFIX = re.compile(r"(\.(tsv|txt|csv|tab|sf|results|genes))*(\.b?gz)?$")
_REMEDY = "give tab-separated text with a gene_id (or gene_name) column, and TPM or a column for each sample"


class Expression(NamedTuple):
    """Expression of genes in samples, in the unit of its file.

    Attributes
    ----------
    gene : shape (G,), identifiers or names as in the file
    sample : shape (S,), the names of the columns; of a single sample that of the file, without its suffixes
    values : shape (G, S), not negative
    """

    gene: NDArray[np.str_]
    sample: NDArray[np.str_]
    values: NDArray[np.float64]


class MatchedGenes(NamedTuple):
    """Rows of genes and of expression that belong together, each of shape (M,), in the order of the genes."""

    genes: NDArray[np.int64]
    expression: NDArray[np.int64]


def read_expression(path: Path) -> Expression:
    """Return the expression in a tab-separated file, plain or gzip/bgzip.

    It is a matrix (a gene column, then a column a sample), a quantification with the columns gene_id and TPM as ENCODE
    has them, or two columns without a header: gene and value. Lines that begin with # are skipped.

    Raises
    ------
    AnnotationError
        The file is missing or of another kind; a value is no number or negative; a gene or a sample is there twice.
    """
    rows = [(number, line) for number, line in numbered_lines(path) if line.strip() and not line.startswith(b"#")]
    if not rows:
        raise AnnotationError(f"{path}: empty; {_REMEDY}")
    table = [(number, line.decode(errors="replace").rstrip("\r\n").split("\t")) for number, line in rows]
    head = table[0][1]
    if len(head) == 2 and is_number(head[1]):
        gene_at, sample_at, names = 0, [1], [_sample_of(path)]
    else:
        gene_at, sample_at, names = _columns(path, head)
        table = table[1:]
    genes = [_field(path, number, fields, gene_at) for number, fields in table]
    if not genes:
        raise AnnotationError(f"{path}: no gene below its header; {_REMEDY}")
    _refuse_twice(path, genes, [number for number, _ in table])
    values = [_values(path, number, fields, sample_at) for number, fields in table]
    return Expression(np.array(genes), np.array(names), np.array(values, dtype=np.float64))


def match_genes(genes: Genes, expression: Expression, *, annotation: str, table: str) -> MatchedGenes:
    """Return which rows are the same gene: by identifier, whatever its version, else by name.

    A name that several genes share, and that is no identifier, matches none of them.

    Parameters
    ----------
    annotation, table : where the two come from, for the message

    Raises
    ------
    AnnotationError
        They share no gene.
    """
    rows = {unversioned(gene): row for row, gene in enumerate(expression.gene.tolist())}
    names, counts = np.unique(genes.gene_name, return_counts=True)
    unique = set(names[counts == 1].tolist())
    matched = []
    taken = set()
    for at, gene in enumerate(genes.gene_id.tolist()):
        if (row := rows.get(unversioned(gene))) is not None:
            matched.append((at, row))
            taken.add(row)
    identified = {at for at, _ in matched}
    for at, name in enumerate(genes.gene_name.tolist()):
        if at not in identified and name in unique and (row := rows.get(name)) is not None and row not in taken:
            matched.append((at, row))
    if not matched:
        raise AnnotationError(
            f"{table}: none of its genes (such as {expression.gene[0]}) is in {annotation} (such as "
            f"{genes.gene_id[0]}, {genes.gene_name[0]}); give tables that name genes alike"
        )
    pairs = np.array(sorted(matched), dtype=np.int64)
    return MatchedGenes(pairs[:, 0], pairs[:, 1])


def _columns(path: Path, head: Sequence[str]) -> tuple[int, list[int], list[str]]:
    """Return where the genes are, where the samples, and the samples' names."""
    names = [name.strip().lower() for name in head]
    at = [names.index(name) for name in (*_ID_COLUMNS, *_NAME_COLUMNS) if name in names]
    if not at:
        raise AnnotationError(f"{path}: no column of genes in its header ({', '.join(head[:4])[:80]}); {_REMEDY}")
    if _TPM in names:
        return at[0], [names.index(_TPM)], [_sample_of(path)]
    sample_at = [column for column, name in enumerate(names) if column != at[0] and name not in _NOT_SAMPLES]
    samples = [head[column].strip() for column in sample_at]
    if not samples:
        raise AnnotationError(f"{path}: no column of expression in its header; {_REMEDY}")
    if twice := next((name for name in samples if samples.count(name) > 1), None):
        raise AnnotationError(f"{path}: two columns are named {twice}; give each sample a name of its own")
    return at[0], sample_at, samples


def _values(path: Path, number: int, fields: Sequence[str], columns: Sequence[int]) -> list[float]:
    """Return some fields of a line as numbers that are finite and not negative."""
    try:
        values = [float(fields[column]) for column in columns]
    except (ValueError, IndexError):
        values = []
    if values and min(values) >= 0 and all(map(_is_finite, values)):
        return values
    for column in columns:
        field = _field(path, number, fields, column)
        if not is_number(field) or not _is_finite(float(field)):
            raise AnnotationError(f"{path}:{number}: {field[:40]!r} is not a number; give 0 or more, or no line")
        if float(field) < 0:
            raise AnnotationError(f"{path}:{number}: {field} is negative; give TPM or RPKM, not their ratios")
    raise AssertionError("values are wrong and right")


def _field(path: Path, number: int, fields: Sequence[str], column: int) -> str:
    if len(fields) <= column:
        raise AnnotationError(f"{path}:{number}: {len(fields)} fields, at least {column + 1} are needed; {_REMEDY}")
    return fields[column].strip()


def _refuse_twice(path: Path, genes: Sequence[str], numbers: Sequence[int]) -> None:
    first: dict[str, int] = {}
    for gene, number in zip(genes, numbers, strict=True):
        before = first.setdefault(unversioned(gene), number)
        if before != number:
            raise AnnotationError(f"{path}:{number}: {gene} is on line {before} too; leave one line for each gene")


def _sample_of(path: Path) -> str:
    return _SUFFIX.sub("", path.name) or path.name


def _is_finite(value: float) -> bool:
    return value - value == 0
