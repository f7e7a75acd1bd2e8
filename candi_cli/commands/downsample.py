"""`candi downsample`: a random part of the reads of a file."""

import math
import shutil
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click

from candi_cli.commands import _options as options
from candi_cli.commands import command_line
from candi_cli.commands._console import console
from candi_cli.commands._output import check_writable, replacing
from candi_cli.errors import RequestError

if TYPE_CHECKING:
    from candi_cli.io.downsampling import Downsampler

STDOUT = Path("-")
FORMATS = ("bam", "cram")
METHODS = ("name", "position")


def _parse_dsf(text: str) -> float:
    try:
        dsf = float(text)
    except ValueError:
        dsf = math.nan
    if not 1 < dsf < math.inf:
        raise ValueError(f"'{text}' is not a number above 1 (2 keeps half of the reads, 4 a quarter)")
    return dsf


@click.command("downsample")
@click.argument("reads", type=options.PATH)
@click.option(
    "--dsf", "dsfs", type=options.Parsed("FACTOR", _parse_dsf), multiple=True, required=True,
    help="Downsampling factor, above 1: 2 keeps half of the reads; repeatable.",
)  # fmt: skip
@click.option(
    "-o", "--output", type=options.PATH, required=True, metavar="OUT.bam",
    help="BAM or CRAM; with {dsf} in its name for several; - for stdout.",
)  # fmt: skip
@click.option("-O", "--output-fmt", type=click.Choice(FORMATS), help="Default: by the suffix of the output.")
@click.option(
    "--by", type=click.Choice(METHODS), default=METHODS[0], show_default=True,
    help="What mates share: their name, or, where names are not distinct, their place (as duplicates do too).",
)  # fmt: skip
@click.option("--exact-count", is_flag=True, help="Keep exactly the number of templates divided by the factor.")
@options.seed
@options.reference
@options.threads
@click.option("--write-index", is_flag=True, help="Index each output, which must be sorted by coordinate.")
@click.option("--no-PG", "no_pg", is_flag=True, help="Add no @PG line; then nothing tells of the downsampling.")
@options.verbosity
def command(
    reads: Path,
    dsfs: tuple[float, ...],
    output: Path,
    output_fmt: str | None,
    by: str,
    exact_count: bool,
    seed: int,
    reference: Path | None,
    threads: int,
    write_index: bool,
    no_pg: bool,
) -> None:
    """Keep a random part of READS (BAM, CRAM): mates together, the same for the same seed.

    With one seed, what a larger factor keeps is a subset of what a smaller one keeps. Reads are chosen by samtools'
    hash of their name, as 'samtools view --subsample' does, unless --by or --exact-count say otherwise.
    """
    from candi_cli.io.downsampling import Downsampler

    output_fmt = output_fmt or _format_of(output)
    outputs = _plan_outputs(output, dsfs, reads)
    if write_index and output == STDOUT:
        raise RequestError("--write-index: stdout has no index; give a file with -o")
    if output_fmt == "cram" and reference is None:
        raise RequestError(f"{output}: a CRAM needs its reference; give the FASTA with -T")
    downsampler = Downsampler(reads, by=by, seed=seed, exact_count=exact_count, reference=reference, threads=threads)
    _write(downsampler, outputs, output_fmt, write_index=write_index, provenance=None if no_pg else command_line())


def _format_of(output: Path) -> str:
    if output == STDOUT:
        return "bam"
    suffix = output.suffix.lower().removeprefix(".")
    if suffix not in FORMATS:
        raise RequestError(f"{output}: its suffix is neither .bam nor .cram; rename it or give -O")
    return suffix


def _plan_outputs(output: Path, dsfs: tuple[float, ...], reads: Path) -> dict[float, Path]:
    """Return the path of each level, in the order of the factors."""
    if len(set(dsfs)) < len(dsfs):
        raise RequestError("--dsf: the same factor twice; give each once")
    if len(dsfs) > 1 and "{dsf}" not in str(output):
        raise RequestError(f"{output}: one name for {len(dsfs)} factors; put {{dsf}} into it, as in out.dsf{{dsf}}.bam")
    outputs = {dsf: Path(str(output).replace("{dsf}", f"{dsf:.15g}")) for dsf in sorted(dsfs)}
    for path in outputs.values():
        if path == STDOUT:
            continue
        if path.exists() and reads.exists() and path.samefile(reads):
            raise RequestError(f"{path}: is the input too; give another -o")
        check_writable(path)
    return outputs


def _write(
    downsampler: "Downsampler",
    outputs: dict[float, Path],
    output_fmt: str,
    *,
    write_index: bool,
    provenance: str | None,
) -> None:
    """Write all levels beside their final names, then move them there together."""
    with ExitStack() as stack:
        if STDOUT in outputs.values():
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="candi-")))
            temporary = dict.fromkeys(outputs, folder / "stdout")
        else:
            temporary = {dsf: stack.enter_context(replacing(path)) for dsf, path in outputs.items()}
        kept = downsampler.write(temporary, output_format=output_fmt, command=provenance)
        if write_index:
            suffix = downsampler.index_suffix(output_fmt)
            for dsf, path in outputs.items():
                index = stack.enter_context(replacing(path.with_name(path.name + suffix)))
                downsampler.write_index(temporary[dsf], index, output_fmt)
        if STDOUT in outputs.values():
            with temporary[next(iter(outputs))].open("rb") as whole:
                shutil.copyfileobj(whole, sys.stdout.buffer)
    total = downsampler.total
    for dsf, path in outputs.items():
        if not kept[dsf].records:
            console.warn(f"dsf {dsf:.15g} keeps no read of {total.templates:,} templates in {path}; lower the factor")
        console.log(
            f"wrote {path}: {kept[dsf].templates:,} of {total.templates:,} templates "
            f"({kept[dsf].records:,} of {total.records:,} records) at dsf {dsf:.15g}, seed {downsampler.seed}"
        )
