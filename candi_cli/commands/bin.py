"""`candi bin`: reads, signal and peaks into a store."""

import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from candi_cli.commands import _options as options
from candi_cli.commands import command_line
from candi_cli.commands._console import console
from candi_cli.commands._output import check_writable, replacing
from candi_cli.counting import OVERLAP, RULES, SHIFTED, CountingRule, parse_shift
from candi_cli.covariates import FILE_COLUMNS
from candi_cli.errors import RequestError
from candi_cli.processes import heed_signals

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from candi_cli.binning import Binning
    from candi_cli.covariates import Experiment


@click.command("bin")
@options.reads
@options.sheet
@click.option("-o", "--output", type=options.PATH, metavar="STORE.h5", help="The store to write.")
@click.option("--resolution", type=click.IntRange(1), default=25, show_default=True, help="Bin width in bp.")
@click.option(
    "--count", type=click.Choice(RULES), default=OVERLAP, show_default=True,
    help="Count a read in each bin that it overlaps, or in that of its 5' end; a proper pair in each bin of its "
    "fragment; or each molecule once, in the bin of a fragment's middle or of a single-ended read's 5' end.",
)  # fmt: skip
@click.option(
    "--shift", type=options.Parsed("PLUS,MINUS", parse_shift),
    help="Move 5' ends (five-prime, and single-ended reads of midpoint): 4,-5 for Tn5, 75,-75 to the middle of 150 bp.",
)  # fmt: skip
@click.option(
    "--keep-dup", type=click.Choice(["all", "1"]), default="all", show_default=True,
    help="Of reads at one position, strand and mate (midpoint: of equal fragments): all, or one (for BAMs whose "
    "duplicates are not flagged).",
)  # fmt: skip
@click.option(
    "--folds", "n_folds", type=click.IntRange(0, 64), default=8, show_default=True,
    help="Parts that reads are split into, for training on independent thinnings; 0 for none.",
)  # fmt: skip
@options.genome
@options.aliases
@options.reference
@options.min_mapq
@options.excl_flags
@click.option("--print-sheet", is_flag=True, help="Print the sample sheet with what was measured; -o may be left out.")
@options.threads
@options.verbosity
def command(
    reads: tuple[Path, ...],
    sheet: Path | None,
    output: Path | None,
    resolution: int,
    count: str,
    shift: tuple[int, int] | None,
    keep_dup: str,
    n_folds: int,
    genome: Path | None,
    aliases: Path | None,
    reference: Path | None,
    min_mapq: int,
    excl_flags: int,
    print_sheet: bool,
    threads: int,
) -> None:
    """Count READS in bins and write them, with signal and peaks, into a store.

    READS are BAM, CRAM or SAM sorted by coordinate, or BED, tagAlign, BEDPE or fragments; `-` is stdin. Without READS,
    the files that the sample sheet names are counted; the sheet may be a metadata.tsv of the ENCODE portal. Covariates
    that the sheet does not know (NA) are measured from the reads. A run that was interrupted goes on where it stopped
    when it is given again.
    """
    from candi_cli.binning import Binning
    from candi_cli.commands._experiments import choose_experiments, named_aliases, read_genome, shown

    if shift is not None and count not in SHIFTED:
        raise RequestError(f"--shift: has no meaning with --count {count}; use --count {' or '.join(SHIFTED)}")
    if n_folds == 1:
        raise RequestError("--folds 1: one part leaves no independent target; use 0 or at least 2")
    if output is None and not print_sheet:
        raise click.UsageError("Missing option '-o' / '--output', or --print-sheet to look only.")
    if output is not None:
        check_writable(output, inputs=(*reads, sheet, genome, aliases, reference))
    rule = CountingRule(count, resolution, min_mapq, excl_flags, shift or (0, 0), keep_dup == "all")
    experiments = choose_experiments(sheet, reads)
    if output is not None:
        check_writable(output, inputs=[getattr(row, name) for row in experiments for name in FILE_COLUMNS])
    binning = Binning(reference, n_folds, named_aliases(aliases))
    chromsizes = read_genome(experiments, rule, binning, genome=genome)
    if output is None:
        measured = _measure(experiments, rule, chromsizes, binning, threads)
    else:
        measured = _write(output.resolve(), experiments, rule, chromsizes, binning, threads)
        console.log(f"wrote {output} ({len(experiments)} experiments; {rule})")
    if print_sheet:
        from candi_cli.biosamples import write_sheet

        write_sheet([replace(row, file=shown(row.file)) for row in measured], sys.stdout)


def _write(
    output: Path,
    experiments: "Sequence[Experiment]",
    rule: CountingRule,
    chromsizes: "Mapping[str, int]",
    binning: "Binning",
    threads: int,
    *,
    resumable: bool = True,
) -> "list[Experiment]":
    """Write the store of all experiments, and return them with what was measured."""
    from candi_cli.binning import Parts
    from candi_cli.commands._experiments import report, shown

    with Parts(output, rule, chromsizes, binning) as parts:
        outcomes = {item.name: outcome for item in experiments if (outcome := parts.kept(item)) is not None}
        if outcomes:
            console.log(f"{len(outcomes)} of {len(experiments)} experiments are there from a run that was interrupted")
        try:
            for outcome in parts.count(experiments, threads=threads):
                report(outcome)
                outcomes[outcome.experiment.name] = outcome
                heed_signals()
        except BaseException:
            for item in experiments:
                if shown(item.file) != item.file:  # it came through a pipe, and will not come again
                    parts.discard(item)
            if resumable and (n_kept := sum(parts.kept(item) is not None for item in experiments)):
                console.warn(f"{n_kept} of {len(experiments)} experiments are kept in {parts.folder} for the next run")
            raise
        with replacing(output) as temporary:
            parts.assemble(temporary, experiments, command=command_line(threads=False))
    return [replace(item, covariates=outcomes[item.name].covariates) for item in experiments]


def _measure(
    experiments: "Sequence[Experiment]",
    rule: CountingRule,
    chromsizes: "Mapping[str, int]",
    binning: "Binning",
    threads: int,
) -> "list[Experiment]":
    """Return the experiments with what was measured, and keep no store."""
    with tempfile.TemporaryDirectory(prefix="candi-") as folder:
        return _write(Path(folder) / "store.h5", experiments, rule, chromsizes, binning, threads, resumable=False)
