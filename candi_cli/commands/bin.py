"""`candi bin`: reads, signal and peaks into a store."""

from pathlib import Path

import click

from candi_cli.commands import _options as options
from candi_cli.commands import command_line
from candi_cli.commands._console import console
from candi_cli.commands._output import check_writable, replacing
from candi_cli.counting import FIVE_PRIME, OVERLAP, RULES, CountingRule, parse_shift
from candi_cli.errors import RequestError


@click.command("bin")
@options.reads
@options.sheet
@click.option("-o", "--output", type=options.PATH, required=True, metavar="STORE.h5", help="The store to write.")
@click.option("--resolution", type=click.IntRange(1), default=25, show_default=True, help="Bin width in bp.")
@click.option("--count", type=click.Choice(RULES), default=OVERLAP, show_default=True, help="The counting rule.")
@click.option(
    "--shift", type=options.Parsed("PLUS,MINUS", parse_shift), help="Move 5' ends (five-prime only; 4,-5 for Tn5)."
)
@click.option(
    "--keep-dup", type=click.Choice(["all", "1"]), default="all", show_default=True,
    help="Of reads at one position, strand and mate: all, or one (for BAMs whose duplicates are not flagged).",
)  # fmt: skip
@click.option(
    "--folds", "n_folds", type=click.IntRange(0, 64), default=8, show_default=True,
    help="Parts that reads are split into, for training on independent thinnings; 0 for none.",
)  # fmt: skip
@click.option(
    "-g", "--genome", type=options.PATH, metavar="CHROM.SIZES", help="Chromosomes; default: the first header's."
)
@options.reference
@options.min_mapq
@options.excl_flags
@options.verbosity
def command(
    reads: tuple[Path, ...],
    sheet: Path | None,
    output: Path,
    resolution: int,
    count: str,
    shift: tuple[int, int] | None,
    keep_dup: str,
    n_folds: int,
    genome: Path | None,
    reference: Path | None,
    min_mapq: int,
    excl_flags: int,
) -> None:
    """Count READS (BAM, CRAM) in bins and write them, with signal and peaks, into a store.

    Without READS, the files that the sample sheet names are counted. Covariates that the sheet does not know (NA) are
    measured from the reads.
    """
    from candi_cli.commands._experiments import bin_into, choose_experiments, read_genome
    from candi_cli.store import Store

    if shift is not None and count != FIVE_PRIME:
        raise RequestError(f"--shift: has no meaning with --count {count}; use --count five-prime")
    if n_folds == 1:
        raise RequestError("--folds 1: one part leaves no independent target; use 0 or at least 2")
    check_writable(output)
    rule = CountingRule(count, resolution, min_mapq, excl_flags, shift or (0, 0), keep_dup == "all")
    experiments = choose_experiments(sheet, reads)
    chromsizes = read_genome(experiments, rule, genome=genome, reference=reference)
    with (
        replacing(output) as temporary,
        Store.create(temporary, rule=rule, chromsizes=chromsizes, command=command_line()) as store,
    ):
        bin_into(store, experiments, reference=reference, n_folds=n_folds)
    console.log(f"wrote {output} ({len(experiments)} experiments; {rule})")
