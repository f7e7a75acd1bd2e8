"""Reads, signal and peaks of one experiment into a store."""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from candi_cli.contigs import Aliases, NameMatcher
from candi_cli.counting import CountingRule
from candi_cli.covariates import FILE_COLUMNS, Covariates, Experiment
from candi_cli.errors import GenomeError, ReadsError, SheetError
from candi_cli.genome import Chromsizes, bin_count
from candi_cli.io.bed import covered_bins, read_intervals
from candi_cli.io.bigwig import read_chroms
from candi_cli.io.reads import ReadCounter, ReadsSummary
from candi_cli.io.sequence import Sequence as Fasta
from candi_cli.io.signal import holds_lengths, read_signal
from candi_cli.io.tally import BLOCK_BP
from candi_cli.store import Store


@dataclass(frozen=True)
class Binning:
    """How files become bins, beside the counting rule, which the store states.

    Attributes
    ----------
    reference : FASTA that CRAM files were compressed against
    n_folds : parts that the reads are split into, 0 for none
    aliases : other names of contigs, in addition to those that the package knows
    """

    reference: Path | None = None
    n_folds: int = 0
    aliases: Aliases = ()


class Outcome(NamedTuple):
    """What was found in the files of an experiment; `summary` is None when it has no reads, or they were not read."""

    experiment: Experiment
    summary: ReadsSummary | None
    covariates: Covariates


def genome_of(
    experiments: Sequence[Experiment],
    rule: CountingRule,
    *,
    reference: Path | None,
    chromsizes: Mapping[str, int] | None,
) -> Chromsizes:
    """Return the chromosomes that the store will have.

    They are those given, else those of the first BAM, CRAM or SAM header, else those of the reference, else those of
    the first bigWig.

    Raises
    ------
    SheetError
        No experiment has a file.
    GenomeError
        None of the files says how long chromosomes are.
    """
    if chromsizes is not None:
        return dict(chromsizes)
    without: GenomeError | None = None
    for experiment in experiments:
        if experiment.file is not None:
            try:
                return ReadCounter(experiment.file, rule, reference=reference).header_sizes
            except GenomeError as error:  # text, which has no header
                without = without or error
    if reference is not None:
        with Fasta(reference) as fasta:
            return fasta.chromsizes
    for experiment in experiments:
        if experiment.signal is not None and holds_lengths(experiment.signal):
            return read_chroms(experiment.signal)
    if any(experiment.signal is not None for experiment in experiments):
        raise GenomeError("a bedGraph does not say how long chromosomes are; give them with -g CHROM.SIZES")
    if any(experiment.peaks is not None for experiment in experiments):
        raise GenomeError("peaks do not say how long chromosomes are; give them with -g CHROM.SIZES")
    raise without or SheetError("the sample sheet names no file; fill its file column or give READS")


def bin_experiment(experiment: Experiment, store: Store, options: Binning, *, threads: int = 1) -> Outcome:
    """Count an experiment's reads and bin its signal and peaks into a store.

    Covariates that the sheet does not know are measured from the reads.

    Raises
    ------
    ReadsError, TrackError, GenomeError
        A file cannot be used, or is not the one that the sheet's MD5 sum is of; the message names it.
    """
    for name, expected in experiment.md5sums.items():
        _check_md5(getattr(experiment, name), expected)
    store.add_experiment(experiment.biosample, experiment.assay)
    summary = None
    covariates = experiment.covariates
    if experiment.file is not None:
        reads = ReadCounter(
            experiment.file,
            store.rule,
            reference=options.reference,
            chromsizes=store.chromsizes,
            n_folds=options.n_folds,
            threads=threads,
            aliases=options.aliases,
            stated=covariates,
        )
        summary = _bin_reads(experiment, reads, store)
        covariates = measured_covariates(covariates, summary, genome_bp=sum(store.chromsizes.values()))
    if experiment.signal is not None:
        _bin_signal(experiment, experiment.signal, store, options.aliases)
    if experiment.peaks is not None:
        _bin_peaks(experiment, experiment.peaks, store, options.aliases)
    files = {name: getattr(experiment, name) for name in FILE_COLUMNS}
    store.describe(
        experiment.biosample,
        experiment.assay,
        covariates,
        fold_depths=summary.fold_depths.tolist() if summary else (),
        sources=[{"layer": name, **source(path)} for name, path in files.items() if path],
        origin={"donor": experiment.donor, "tissue": experiment.tissue, "split": experiment.split},
    )
    return Outcome(experiment, summary, covariates)


def _bin_reads(experiment: Experiment, reads: ReadCounter, store: Store) -> ReadsSummary:
    for chrom, counts, folds, blocks in reads:
        if not blocks.any():
            continue
        store.write(experiment.biosample, experiment.assay, "counts", chrom, counts)
        if reads.n_folds:
            store.write(experiment.biosample, experiment.assay, "folds", chrom, folds)
        store.write_blocks(experiment.biosample, experiment.assay, chrom, blocks, BLOCK_BP)
    return reads.summary


def _bin_signal(experiment: Experiment, path: Path, store: Store, aliases: Aliases) -> None:
    for chrom, values, spans in read_signal(path, store.chromsizes, store.rule.resolution, aliases=aliases):
        store.write(experiment.biosample, experiment.assay, "signal", chrom, values)
        store.write_spans(experiment.biosample, experiment.assay, chrom, spans)


def _bin_peaks(experiment: Experiment, path: Path, store: Store, aliases: Aliases) -> None:
    chrom_of = NameMatcher(store.chromsizes, source=str(path), aliases=aliases)
    named = read_intervals(path)
    intervals = {chrom: found for name, found in named.items() if (chrom := chrom_of(name)) is not None}
    if named and not intervals:
        raise GenomeError(f"{path}: shares no chromosome with the genome; use the same genome build for both")
    for chrom, length in store.chromsizes.items():
        found = intervals.get(chrom, np.zeros((0, 2), dtype=np.int64))
        if len(found) and found[:, 1].max() > length:
            raise GenomeError(
                f"{path}: a peak ends at {chrom}:{found[:, 1].max():,} but {chrom} has {length:,} bp; "
                "use the same genome build for both"
            )
        resolution = store.rule.resolution
        values = covered_bins(found, bin_count(length, resolution), resolution)
        store.write(experiment.biosample, experiment.assay, "peaks", chrom, values)


def measured_covariates(stated: Covariates, summary: ReadsSummary, *, genome_bp: int) -> Covariates:
    """Fill covariates that the sheet does not know with what the reads show.

    A measured depth was counted over the part of the genome that the reads cover. A depth from the sheet may mean that
    part (a file cut down to a region) or the whole genome: it is taken for the one that agrees better with the reads.
    """
    measured = Covariates(
        depth=float(summary.depth),
        read_length=summary.read_length,
        run_type=summary.run_type,
        platform=summary.platform,
        span_bp=float(summary.covered_bp),
    )
    depth = stated.depth
    if depth is None:
        return stated.filled(measured)
    density = summary.depth / summary.covered_bp
    span = min((summary.covered_bp, genome_bp), key=lambda bp: abs(math.log(depth / bp / density)))
    return replace(stated, span_bp=float(span)).filled(measured)


def source(path: Path) -> dict[str, Any]:
    """Return name, size and modification time of a file.

    Raises
    ------
    ReadsError
        It is not there.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise ReadsError(f"{path}: {error.strerror}; check the path") from error
    return {"name": path.name, "size": status.st_size, "mtime": int(status.st_mtime)}


def _check_md5(path: Path, expected: str) -> None:
    try:
        with path.open("rb") as handle:
            found = hashlib.file_digest(handle, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    except OSError as error:
        raise ReadsError(f"{path}: {error.strerror}; check the path") from error
    if found != expected:
        raise ReadsError(f"{path}: its MD5 sum is {found}, the sample sheet says {expected}; fetch it again")
