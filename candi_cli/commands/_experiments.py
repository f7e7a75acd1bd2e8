"""From the command line's READS and sample sheet to binned experiments, for every command that takes reads."""

import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import click

from candi_cli.binning import Binning, Outcome, bin_experiment, genome_of
from candi_cli.biosamples import separate, to_experiments
from candi_cli.commands._console import VERBOSE, console
from candi_cli.contigs import Aliases, read_aliases, shorten
from candi_cli.counting import CountingRule
from candi_cli.covariates import CONTROL, Experiment, match_reads, read_sheet
from candi_cli.encode import is_portal_metadata, read_metadata
from candi_cli.errors import ReadsError, RequestError
from candi_cli.genome import Chromsizes, read_chromsizes
from candi_cli.io.sequence import Sequence as Fasta
from candi_cli.store import Store, is_hdf5

STDIN = Path("-")


def choose_experiments(sheet: Path | None, reads: Sequence[Path]) -> list[Experiment]:
    """Return the experiments of READS (all of the sheet without any), with the controls of their biosamples.

    The sheet may be a metadata.tsv of the ENCODE portal. Of READS, `-` is stdin.
    """
    if sheet is None:
        for path in reads:
            if path != STDIN and not path.exists():
                raise ReadsError(f"{path}: no such file; check the path")
        raise RequestError("--covariates: READS need a sample sheet; write one (columns biosample, assay, file, ...)")
    if sheet.is_file() and is_portal_metadata(sheet):  # a pipe can be read only once
        candidates, remarks = read_metadata(sheet)
        rows = to_experiments(separate(candidates))
        for remark in remarks:
            console.log(remark)
    else:
        rows = read_sheet(sheet)
    chosen = match_reads(rows, reads, sheet=sheet)
    if sum(row.file == STDIN for row in chosen) > 1:
        raise RequestError(f"{sheet}: file: two rows name stdin (-), which is read once; name a file in one of them")
    return [replace(row, file=_kept(row.file)) if row.file and _is_pipe(row.file) else row for row in chosen]


def _is_pipe(path: Path) -> bool:
    return path == STDIN or path.is_fifo()


def _kept(pipe: Path) -> Path:
    """Return a temporary file of what comes through a pipe: its header is looked at before its reads are."""
    if pipe == STDIN and sys.stdin.isatty():
        raise RequestError("-: stdin is a terminal; pipe reads into candi, or name a file")
    folder = tempfile.TemporaryDirectory(prefix="candi-")
    click.get_current_context().call_on_close(folder.cleanup)
    path = Path(folder.name) / "stdin"
    with nullcontext(sys.stdin.buffer) if pipe == STDIN else pipe.open("rb") as source, path.open("wb") as handle:
        shutil.copyfileobj(source, handle, 1 << 20)
    console.shown_as[str(path)] = str(pipe)
    return path


def shown(path: Path | None) -> Path | None:
    """Return a path as the user gave it: of what came through a pipe, the pipe."""
    return Path(console.shown_as.get(str(path), path)) if path is not None else None


def named_aliases(path: Path | None) -> Aliases:
    """Return the other names of contigs in a user's table, none without one."""
    return read_aliases(path) if path is not None else ()


def read_genome(
    experiments: Sequence[Experiment], rule: CountingRule, options: Binning, *, genome: Path | None
) -> Chromsizes:
    """Return the genome's chromosomes: of chrom.sizes, else of the first file, checked against the reference."""
    chromsizes = read_chromsizes(genome) if genome is not None else None
    reference = options.reference
    found = genome_of(experiments, rule, reference=reference, chromsizes=chromsizes)
    if reference is not None:
        with Fasta(reference) as fasta:
            first = next((str(row.file) for row in experiments if row.file is not None), "the reads")
            fasta.name_as(found, source=str(genome or first), aliases=options.aliases)
    return found


class Inputs(NamedTuple):
    """What a command was given, checked but not yet read.

    targets : the (biosample, assay) pairs given as READS or held by the STORE; controls are not among them
    """

    store: Path | None
    experiments: list[Experiment]
    rule: CountingRule
    chromsizes: Chromsizes
    targets: list[tuple[str, str]]


class Given(NamedTuple):
    """A STORE, or the experiments of READS, as a command line names them."""

    store: Path | None
    experiments: list[Experiment]

    @property
    def layer(self) -> str:
        """What a model can read of it: counts, or signal where it holds signal alone."""
        if self.store is not None:
            with Store.open(self.store) as store:
                return layer_of([store])
        rows = [row for row in self.experiments if not row.is_control]
        return "signal" if any(row.signal for row in rows) and not any(row.file for row in rows) else "counts"


def layer_of(stores: Sequence[Store]) -> str:
    """Return what a model can read of stores: counts, or signal where they hold signal alone; controls aside."""
    return "signal" if holds(stores, "signal") and not holds(stores, "counts") else "counts"


def holds(stores: Sequence[Store], layer: str) -> bool:
    """Return whether any experiment of stores that is no control has a layer."""
    return any(
        layer in store.experiment(biosample, assay).layers
        for store in stores
        for biosample in store.biosamples
        for assay in store.assays(biosample)
        if assay != CONTROL
    )


def find_given(reads: Sequence[Path], sheet: Path | None) -> Given:
    """Find a STORE, or the experiments of READS in their sheet."""
    stores = [path for path in reads if is_hdf5(path)]
    if stores and len(reads) > 1:
        raise RequestError(f"{stores[0]}: a store is given alone; give one STORE, or READS")
    return Given(stores[0], []) if stores else Given(None, choose_experiments(sheet, reads))


def find_inputs(
    given: Given, options: Binning, *, rule: CountingRule, genome: Path | None, layer: str = "counts"
) -> Inputs:
    """Look at what was given, whose reads are to be counted by a model's rule.

    Parameters
    ----------
    layer : what the model reads; a signal comes from a STORE, or from the sample sheet
    """
    if given.store is not None:
        with Store.open(given.store) as store:
            pairs = [(biosample, assay) for biosample in store.biosamples for assay in store.assays(biosample)]
            targets = [pair for pair in pairs if pair[1] != CONTROL and layer in store.experiment(*pair).layers]
            inputs = Inputs(given.store, [], store.rule, store.chromsizes, targets)
    else:
        experiments = given.experiments
        chromsizes = read_genome(experiments, rule, options, genome=genome)
        column = "file" if layer == "counts" else layer
        targets = [(row.biosample, row.assay) for row in experiments if not row.is_control and getattr(row, column)]
        inputs = Inputs(None, experiments, rule, chromsizes, targets)
    if not inputs.targets:
        what = "reads" if layer == "counts" else layer
        raise RequestError(f"READS: only controls, or no {what}, were given; give the {what} of an assay")
    return inputs


@contextmanager
def open_store(
    inputs: Inputs, options: Binning, *, command: str, threads: int, layer: str = "counts"
) -> Iterator[Store]:
    """Open the STORE, or bin the READS (of a model that reads signal, the tracks) into a store in memory."""
    if inputs.store is not None:
        with Store.open(inputs.store) as store:
            yield store
        return
    with Store.create(None, rule=inputs.rule, chromsizes=inputs.chromsizes, command=command) as store:
        column = "file" if layer == "counts" else layer
        for row in (row for row in inputs.experiments if getattr(row, column)):
            md5sums = {name: md5 for name, md5 in row.md5sums.items() if name == column}
            file, track = (row.file, None) if layer == "counts" else (None, row.signal)
            row = replace(row, file=file, signal=track, peaks=None, md5sums=md5sums)
            report(bin_experiment(row, store, options, threads=threads))
        yield store


def report(outcome: Outcome) -> None:
    """Tell what was found in the files of an experiment."""
    experiment, summary, covariates = outcome
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
            f" ({shorten(summary.skipped_contigs)})"
        )
    console.log(f"{experiment.name}: {covariates}", VERBOSE)
