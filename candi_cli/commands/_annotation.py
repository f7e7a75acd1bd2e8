"""The classes of bins that a command that judges was asked for: of genes, enhancers and a user's own regions."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from candi_cli.commands._judge_options import JudgeOptions
from candi_cli.contigs import NameMatcher
from candi_cli.errors import GenomeError, TrackError
from candi_cli.genome import Chromsizes
from candi_cli.io.bed import read_intervals
from candi_cli.io.genes import Genes, read_genes
from candi_cli.judging.agreement import GeneBins
from candi_cli.judging.classes import Annotation, promoters
from candi_cli.judging.grid import Intervals

PROMOTER, GENE, ENHANCER = "promoter", "gene", "enhancer"


@dataclass(frozen=True)
class Annotated:
    """The files of annotation, read for one genome.

    Attributes
    ----------
    genes : None where no file was given
    """

    annotation: Annotation
    genes: Genes | None
    enhancers: Intervals

    @cached_property
    def by_chrom(self) -> dict[str, GeneBins]:
        """Genes of each chromosome, for the challenge's measures."""
        genes = self.genes
        if genes is None:
            return {}
        found = {}
        for chrom in np.unique(genes.chrom).tolist():
            here = genes.take(genes.chrom == chrom)
            found[chrom] = GeneBins(here.start, here.end, here.reverse)
        return found


def read_annotation(options: JudgeOptions, chromsizes: Chromsizes) -> Annotated:
    """Read the annotation that was asked for.

    Raises
    ------
    AnnotationError, TrackError, GenomeError
        A file cannot be read, or shares no chromosome with what is judged.
    """
    classes: dict[str, Intervals] = {}
    genes = read_genes(options.genes) if options.genes is not None else None
    if genes is not None and options.genes is not None:
        genes = _named_as(genes, chromsizes, options.genes)
        starts = np.where(genes.reverse, genes.end - 1, genes.start)
        classes[PROMOTER] = promoters(_intervals(genes, starts, starts + 1), chromsizes)
        classes[GENE] = _intervals(genes, genes.start, genes.end)
    enhancers = _read_bed(options.enhancers, chromsizes) if options.enhancers is not None else {}
    if enhancers:
        classes[ENHANCER] = enhancers
    for name, path in options.beds:
        classes[name] = _read_bed(path, chromsizes)
    excluded = _read_bed(options.blacklist, chromsizes) if options.blacklist is not None else {}
    return Annotated(Annotation(classes, excluded), genes, enhancers)


def _read_bed(path: Path, chromsizes: Chromsizes) -> Intervals:
    """Return the intervals of the chromosomes that are judged, by their names there."""
    name_of = NameMatcher(chromsizes, source=str(path))
    found: dict[str, NDArray[np.int64]] = {}
    intervals = read_intervals(path)
    if not intervals:
        raise TrackError(f"{path}: holds no interval; give one that does, or leave it out")
    for name, spans in intervals.items():
        chrom = name_of(name)
        if chrom is not None:
            _check_within(path, name, int(spans[:, 1].max()), chromsizes[chrom])
            found[chrom] = spans
    if not found:
        raise GenomeError(f"{path}: shares no chromosome with what is judged; use the same genome build for both")
    return found


def _check_within(path: Path, chrom: str, end: int, length: int) -> None:
    if end > length:
        raise GenomeError(
            f"{path}: an interval ends at {chrom}:{end:,}, but {chrom} has {length:,} bp; use the same genome build "
            "for both"
        )


def _named_as(genes: Genes, chromsizes: Chromsizes, path: Path) -> Genes:
    """Return the genes on chromosomes that are judged, by their names there."""
    name_of = NameMatcher(chromsizes, source=str(path))
    names = {name: name_of(name) for name in np.unique(genes.chrom).tolist()}
    kept = np.array([names[chrom] is not None for chrom in genes.chrom.tolist()], dtype=np.bool_)
    if not kept.any():
        raise GenomeError(f"{path}: shares no chromosome with what is judged; use the same genome build for both")
    chosen = genes.take(kept)
    beyond = chosen.end > np.array([chromsizes[names[chrom] or ""] for chrom in chosen.chrom.tolist()])
    if beyond.any():
        at = int(np.argmax(beyond))
        raise GenomeError(
            f"{path}: {chosen.gene_name[at]} ends at {chosen.chrom[at]}:{chosen.end[at]:,}, beyond its chromosome; "
            "use the same genome build for both"
        )
    return chosen._replace(chrom=np.array([names[chrom] for chrom in chosen.chrom.tolist()]))


def _intervals(genes: Genes, start: NDArray[np.int64], end: NDArray[np.int64]) -> Intervals:
    found = {}
    for chrom in np.unique(genes.chrom).tolist():
        here = genes.chrom == chrom
        spans = np.stack([start[here], end[here]], axis=1)
        found[chrom] = spans[np.lexsort((spans[:, 1], spans[:, 0]))]
    return found
