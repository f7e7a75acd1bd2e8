"""`candi sheet`: the ENCODE portal's metadata.tsv, or a sample sheet, into a sample sheet with what is asked for."""

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from candi_cli.commands import _options as options
from candi_cli.commands._console import VERBOSE, console
from candi_cli.commands._output import check_writable, replacing
from candi_cli.errors import RequestError, SheetError

if TYPE_CHECKING:
    from candi_cli.covariates import Experiment

STDOUT = Path("-")


def _parse_fractions(text: str) -> tuple[float, float]:
    parts = text.split(",")
    if len(parts) != 2:
        raise ValueError(f"{text!r} is not VALIDATION,TEST, such as 0.1,0.2")
    return float(parts[0]), float(parts[1])


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
@click.option(
    "--split", "fractions", type=options.Parsed("VALIDATION,TEST", _parse_fractions),
    help="Fill the split column: these fractions of the experiments, no donor or cell type on two sides.",
)  # fmt: skip
@click.option(
    "--challenge", type=options.PATH, metavar="CSV",
    help="Fill the split column as the ENCODE Imputation Challenge did (its EIC_experiments.csv).",
)  # fmt: skip
@options.seed
@options.verbosity
def command(
    metadata: Path,
    output: Path,
    assembly: str | None,
    folder: Path | None,
    merged: bool,
    min_assays: int,
    fractions: tuple[float, float] | None,
    challenge: Path | None,
    seed: int,
) -> None:
    """Write a sample sheet of the experiments in METADATA, a metadata.tsv of the ENCODE portal or a sample sheet.

    Look the sheet over, edit it, and give it to 'candi bin --covariates'. Of each experiment of the portal one analysis
    is used, of each biological replicate its alignments, signal p-value and peaks; each biosample gets its ChIP
    control. With --merge, isogenic replicates that share at least three assays, and then whatever else has the same
    term name, become one biosample of the sheet. Files need not be downloaded yet; once some are, the others are left
    out.
    """
    from candi_cli.biosamples import write_sheet
    from candi_cli.covariates import read_sheet
    from candi_cli.encode import is_portal_metadata

    if fractions is not None and challenge is not None:
        raise RequestError("--split, --challenge: two splits; give one of them")
    if not metadata.exists():
        raise SheetError(f"{metadata}: no such file; give a metadata.tsv of the ENCODE portal, or a sample sheet")
    if output != STDOUT:
        check_writable(output)
        if output.exists() and metadata.exists() and output.samefile(metadata):
            raise RequestError(f"-o {output}: is METADATA itself; give the sheet another name")
    if metadata.is_file() and is_portal_metadata(metadata):  # a pipe can be read only once
        experiments = _from_portal(metadata, assembly, folder, merged=merged, min_assays=min_assays)
    elif merged or assembly or folder or min_assays > 1:
        raise RequestError(f"{metadata}: not a metadata.tsv; --merge, --min-assays, --assembly and --folder need one")
    else:
        experiments = read_sheet(metadata)
    experiments = _with_split(experiments, fractions, challenge, seed)
    if output == STDOUT:
        write_sheet(experiments, sys.stdout)
    else:
        with replacing(output) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as handle:
            write_sheet(experiments, handle, folder=output.parent)
    for experiment in experiments:
        if experiment.remark:
            console.log(f"{experiment.name}: {experiment.remark}", VERBOSE)
    console.log(f"{output if output != STDOUT else 'stdout'}: {len(experiments)} rows")


def _from_portal(
    metadata: Path, assembly: str | None, folder: Path | None, *, merged: bool, min_assays: int
) -> "list[Experiment]":
    from candi_cli.biosamples import merge, separate, summarise, to_experiments
    from candi_cli.encode import read_metadata

    candidates, remarks = read_metadata(metadata, assembly=assembly, folder=folder)
    cell_types = merge(candidates, min_assays=min_assays) if merged else separate(candidates, min_assays=min_assays)
    if not cell_types:
        raise SheetError(f"{metadata}: Assay: no biosample has {min_assays} assays or more; lower --min-assays")
    for remark in remarks:
        console.log(remark)
    console.log(str(summarise(cell_types)))
    return to_experiments(cell_types)


def _with_split(
    experiments: "Sequence[Experiment]", fractions: tuple[float, float] | None, challenge: Path | None, seed: int
) -> "list[Experiment]":
    """Return the experiments with the split that was asked for, checked for leaks."""
    from candi_cli.splits import check_split, make_split, read_challenge_split

    if fractions is not None:
        splits = make_split(experiments, fractions=fractions, seed=seed)
        check_split(experiments, splits)
    elif challenge is not None:
        official = read_challenge_split(challenge)
        splits = official.splits
        check_split(experiments, splits, by=("term",), challenge=official)
    else:
        return list(experiments)
    found = [replace(row, split=splits.get((row.biosample, row.assay))) for row in experiments]
    console.log(_counts(found))
    return found


def _counts(experiments: "Sequence[Experiment]") -> str:
    from candi_cli.covariates import SPLITS

    numbers = {split: sum(row.split == split and not row.is_control for row in experiments) for split in SPLITS}
    return "split: " + ", ".join(f"{number} experiments {split}" for split, number in numbers.items())
