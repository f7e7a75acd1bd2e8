"""Reads, signal and peaks of experiments into a store."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from candi_cli.counting import CountingRule
from candi_cli.covariates import Covariates, Experiment
from candi_cli.errors import GenomeError, ReadsError, SheetError
from candi_cli.genome import Chromsizes, bin_count
from candi_cli.io.bed import covered_bins, read_intervals
from candi_cli.io.bigwig import read_chroms, read_means
from candi_cli.io.reads import BLOCK_BP, ReadCounter, ReadsSummary
from candi_cli.store import Store

Report = Callable[[Experiment, ReadsSummary | None, Covariates], None]


def genome_of(
    experiments: Sequence[Experiment],
    rule: CountingRule,
    *,
    reference: Path | None,
    chromsizes: Mapping[str, int] | None,
) -> Chromsizes:
    """Return the chromosomes that the store will have: those given, else those of the first file's header.

    Raises
    ------
    SheetError
        No experiment has a file.
    """
    if chromsizes is not None:
        return dict(chromsizes)
    for experiment in experiments:
        if experiment.file is not None:
            return ReadCounter(experiment.file, rule, reference=reference).header_sizes
    for experiment in experiments:
        if experiment.signal is not None:
            return read_chroms(experiment.signal)
    raise SheetError("the sample sheet names no file; fill its file column or give READS")


def bin_experiments(
    experiments: Sequence[Experiment],
    store: Store,
    *,
    reference: Path | None = None,
    n_folds: int = 0,
    report: Report | None = None,
) -> None:
    """Count each experiment's reads and bin its signal and peaks into a store.

    Covariates that the sheet does not know are measured from the reads. `report` is called after each experiment.

    Raises
    ------
    ReadsError, TrackError, GenomeError
        A file cannot be used; the message names it.
    """
    for experiment in experiments:
        store.add_experiment(experiment.biosample, experiment.assay)
        summary = None
        covariates = experiment.covariates
        if experiment.file is not None:
            summary = _bin_reads(experiment, experiment.file, store, reference=reference, n_folds=n_folds)
            covariates = measured_covariates(covariates, summary, genome_bp=sum(store.chromsizes.values()))
        if experiment.signal is not None:
            _bin_signal(experiment, experiment.signal, store)
        if experiment.peaks is not None:
            _bin_peaks(experiment, experiment.peaks, store)
        store.describe(
            experiment.biosample,
            experiment.assay,
            covariates,
            fold_depths=summary.fold_depths.tolist() if summary else (),
            sources=[_source(path) for path in (experiment.file, experiment.signal, experiment.peaks) if path],
        )
        if report is not None:
            report(experiment, summary, covariates)


def _bin_reads(
    experiment: Experiment, path: Path, store: Store, *, reference: Path | None, n_folds: int
) -> ReadsSummary:
    reads = ReadCounter(path, store.rule, reference=reference, chromsizes=store.chromsizes, n_folds=n_folds)
    for chrom, counts, folds, blocks in reads:
        if not blocks.any():
            continue
        store.write(experiment.biosample, experiment.assay, "counts", chrom, counts)
        if n_folds:
            store.write(experiment.biosample, experiment.assay, "folds", chrom, folds)
        store.write_blocks(experiment.biosample, experiment.assay, chrom, blocks, BLOCK_BP)
    return reads.summary


def _bin_signal(experiment: Experiment, path: Path, store: Store) -> None:
    found = read_chroms(path)
    shared = [chrom for chrom in store.chromsizes if chrom in found]
    if not shared:
        raise GenomeError(f"{path}: shares no chromosome with the reads; use the same genome build for both")
    for chrom in shared:
        values = read_means(path, chrom, store.chromsizes[chrom], store.rule.resolution)
        store.write(experiment.biosample, experiment.assay, "signal", chrom, values)


def _bin_peaks(experiment: Experiment, path: Path, store: Store) -> None:
    intervals = read_intervals(path)
    if intervals and not any(chrom in store.chromsizes for chrom in intervals):
        raise GenomeError(f"{path}: shares no chromosome with the reads; use the same genome build for both")
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


def _source(path: Path) -> dict[str, Any]:
    try:
        status = path.stat()
    except OSError as error:
        raise ReadsError(f"{path}: {error.strerror}; check the path") from error
    return {"name": path.name, "size": status.st_size, "mtime": int(status.st_mtime)}
