"""From the command line's READS and sample sheet to binned experiments, for every command that takes reads."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from candi_cli.binning import bin_experiments, genome_of
from candi_cli.commands._console import VERBOSE, console
from candi_cli.counting import CountingRule
from candi_cli.covariates import CONTROL, Covariates, Experiment, match_reads, read_sheet
from candi_cli.errors import ReadsError, RequestError
from candi_cli.genome import Chromsizes, check_contigs, read_chromsizes
from candi_cli.io.reads import ReadsSummary
from candi_cli.io.sequence import Sequence as Fasta
from candi_cli.store import Store


def choose_experiments(sheet: Path | None, reads: Sequence[Path]) -> list[Experiment]:
    """Return the experiments of READS (all of the sheet without any), with the controls of their biosamples."""
    if sheet is None:
        for path in reads:
            if not path.exists():
                raise ReadsError(f"{path}: no such file; check the path")
        raise RequestError("--covariates: READS need a sample sheet; write one (columns biosample, assay, file, ...)")
    return match_reads(read_sheet(sheet), reads, sheet=sheet)


def read_genome(
    experiments: Sequence[Experiment], rule: CountingRule, *, genome: Path | None, reference: Path | None
) -> Chromsizes:
    """Return the genome's chromosomes: of chrom.sizes, else of the first file, checked against the reference."""
    chromsizes = read_chromsizes(genome) if genome is not None else None
    found = genome_of(experiments, rule, reference=reference, chromsizes=chromsizes)
    if reference is not None:
        with Fasta(reference) as fasta:
            first = next((str(row.file) for row in experiments if row.file is not None), "the reads")
            check_contigs(found, fasta.chromsizes, source=str(genome or first), against=str(reference))
    return found


def bin_into(store: Store, experiments: Sequence[Experiment], *, reference: Path | None, n_folds: int) -> None:
    """Bin experiments into a store and tell what was found in each."""
    bin_experiments(experiments, store, reference=reference, n_folds=n_folds, report=_report)


class Inputs(NamedTuple):
    """What a command was given, checked but not yet read.

    targets : the (biosample, assay) pairs given as READS or held by the STORE; controls are not among them
    """

    store: Path | None
    experiments: list[Experiment]
    rule: CountingRule
    chromsizes: Chromsizes
    targets: list[tuple[str, str]]


def find_inputs(reads: Sequence[Path], sheet: Path | None, *, rule: CountingRule, reference: Path | None) -> Inputs:
    """Find a STORE, or READS that are to be counted by a model's rule."""
    stores = [path for path in reads if _is_hdf5(path)]
    if stores:
        if len(reads) > 1:
            raise RequestError(f"{stores[0]}: a store is given alone; give one STORE, or READS")
        with Store.open(stores[0]) as store:
            pairs = [(biosample, assay) for biosample in store.biosamples for assay in store.assays(biosample)]
            targets = [pair for pair in pairs if pair[1] != CONTROL and "counts" in store.experiment(*pair).layers]
            inputs = Inputs(stores[0], [], store.rule, store.chromsizes, targets)
    else:
        experiments = choose_experiments(sheet, reads)
        chromsizes = read_genome(experiments, rule, genome=None, reference=reference)
        targets = [(row.biosample, row.assay) for row in experiments if not row.is_control and row.file]
        inputs = Inputs(None, experiments, rule, chromsizes, targets)
    if not inputs.targets:
        raise RequestError("READS: only controls, or no reads, were given; give the reads of an assay")
    return inputs


@contextmanager
def open_store(inputs: Inputs, *, reference: Path | None, command: str) -> Iterator[Store]:
    """Open the STORE, or bin the READS into a store in memory."""
    if inputs.store is not None:
        with Store.open(inputs.store) as store:
            yield store
        return
    with Store.create(None, rule=inputs.rule, chromsizes=inputs.chromsizes, command=command) as store:
        counted = [replace(row, signal=None, peaks=None) for row in inputs.experiments if row.file]
        bin_into(store, counted, reference=reference, n_folds=0)
        yield store


def _is_hdf5(path: Path) -> bool:
    try:
        return path.open("rb").read(8) == b"\x89HDF\r\n\x1a\n"
    except OSError:
        return False


def _report(experiment: Experiment, summary: ReadsSummary | None, covariates: Covariates) -> None:
    if experiment.remark:
        console.warn(experiment.remark)
    if summary is None:
        console.log(f"{experiment.name}: no reads, signal or peaks only")
        return
    console.log(
        f"{experiment.name}: {summary.depth:,} of {summary.seen:,} records counted"
        f" over {summary.covered_bp / 1e6:,.1f} Mb ({covariates.run_type or 'run type unknown'},"
        f" {covariates.read_length or 0:.0f} bp, {covariates.platform or 'platform unknown'})"
    )
    if summary.duplicates:
        console.log(f"{experiment.name}: {summary.duplicates:,} reads at the position of another were left out")
    if summary.mapq_unknown:
        console.warn(f"{experiment.file}: {summary.mapq_unknown:,} reads have no MAPQ (255) and were counted")
    if summary.skipped_contigs:
        console.warn(
            f"{experiment.file}: reads on {len(summary.skipped_contigs)} contigs that the genome lacks were left out"
            f" ({', '.join(summary.skipped_contigs[:3])})"
        )
    console.log(f"{experiment.name}: {covariates}", VERBOSE)
