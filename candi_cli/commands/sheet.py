"""`candi sheet`: the ENCODE portal's metadata.tsv into a sample sheet."""

import sys
from pathlib import Path

import click

from candi_cli.commands import _options as options
from candi_cli.commands._console import VERBOSE, console
from candi_cli.commands._output import check_writable, replacing
from candi_cli.errors import RequestError, SheetError

STDOUT = Path("-")


@click.command("sheet")
@click.argument("metadata", type=options.PATH)
@click.option(
    "-o",
    "--output",
    type=options.PATH,
    default=STDOUT,
    metavar="SHEET.tsv",
    help="The sheet to write; default: stdout.",
)
@click.option(
    "--assembly", metavar="NAME", help="Genome assembly; default: GRCh38, or the most frequent without any of it."
)
@click.option("--folder", type=options.PATH, metavar="DIR", help="Where the files are; default: beside METADATA.")
@click.option("--merge", "merged", is_flag=True, help="Merge biosamples into cell types (_grpN_repM and _nonrep).")
@click.option(
    "--min-assays", type=click.IntRange(1), default=1, show_default=True, help="Leave out biosamples with fewer assays."
)
@options.verbosity
def command(
    metadata: Path, output: Path, assembly: str | None, folder: Path | None, merged: bool, min_assays: int
) -> None:
    """Write a sample sheet of the experiments in METADATA, a metadata.tsv of the ENCODE portal.

    Look the sheet over, edit it, and give it to 'candi bin --covariates'. Of each experiment one analysis is used, of
    each biological replicate its alignments, signal p-value and peaks; each biosample gets its ChIP control. With
    --merge, isogenic replicates that share at least three assays, and then whatever else has the same term name, become
    one biosample of the sheet. Files need not be downloaded yet; once some are, the others are left out.
    """
    from candi_cli.biosamples import merge, separate, summarise, to_experiments, write_sheet
    from candi_cli.encode import read_metadata

    if output != STDOUT:
        check_writable(output)
        if output.exists() and metadata.exists() and output.samefile(metadata):
            raise RequestError(f"-o {output}: is METADATA itself; give the sheet another name")
    candidates, remarks = read_metadata(metadata, assembly=assembly, folder=folder)
    cell_types = merge(candidates, min_assays=min_assays) if merged else separate(candidates, min_assays=min_assays)
    if not cell_types:
        raise SheetError(f"{metadata}: Assay: no biosample has {min_assays} assays or more; lower --min-assays")
    experiments = to_experiments(cell_types)
    if output == STDOUT:
        write_sheet(experiments, sys.stdout)
    else:
        with replacing(output) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as handle:
            write_sheet(experiments, handle, folder=output.parent)
    for remark in remarks:
        console.log(remark)
    for experiment in experiments:
        if experiment.remark:
            console.log(f"{experiment.name}: {experiment.remark}", VERBOSE)
    console.log(f"{output if output != STDOUT else 'stdout'}: {summarise(cell_types)}")
