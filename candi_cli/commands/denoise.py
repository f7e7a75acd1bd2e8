"""`candi denoise`: reads into denoised tracks."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from candi_cli.commands import _options as options
from candi_cli.commands import command_line
from candi_cli.commands._console import console
from candi_cli.commands._output import check_writable

if TYPE_CHECKING:
    from candi_cli.covariates import Covariates

TRACKS = ("counts", "signal", "peaks")


def _parse_request(text: str) -> "Covariates":
    from candi_cli.covariates import parse_request

    return parse_request(text)


@click.command("denoise")
@options.reads
@options.sheet
@click.option(
    "-o", "--output", type=options.PATH, required=True, metavar="OUT.bw", help="bigWig; a folder for several."
)
@options.model
@click.option(
    "--track", type=click.Choice(TRACKS), default="counts", show_default=True,
    help="Expected reads per bin, -log10 p, or peak probability.",
)  # fmt: skip
@click.option(
    "--as", "asked", type=options.Parsed("COVARIATES", _parse_request), default=None,
    help="Covariates of the output: depth=50M,read_length=100,run_type=paired-ended,platform=...",
)  # fmt: skip
@options.regions
@options.genome
@options.aliases
@options.reference
@options.batch_size(32)
@options.threads
@options.device
@options.verbosity
def command(
    reads: tuple[Path, ...],
    sheet: Path | None,
    output: Path,
    model: Path | None,
    track: str,
    asked: "Covariates | None",
    regions: tuple[str, ...],
    genome: Path | None,
    aliases: Path | None,
    reference: Path | None,
    batch_size: int,
    threads: int,
    device: str,
) -> None:
    """Denoise the tracks of READS or of one STORE made by 'candi bin'.

    READS are BAM, CRAM or SAM sorted by coordinate, or BED, tagAlign, BEDPE or fragments; `-` is stdin. Writes one
    bigWig for each READS file. The ChIP control that the sample sheet names for a biosample is read too. Chromosomes
    without a read are left out unless -r asks for them.
    """
    from candi_cli.binning import Binning
    from candi_cli.commands._experiments import find_inputs, named_aliases, open_store
    from candi_cli.commands._tracks import TrackPlan, check_model, default_model, plan_outputs, write_tracks
    from candi_cli.covariates import Covariates
    from candi_cli.genome import parse_regions
    from candi_cli.model import load
    from candi_cli.model.device import choose

    if not output.is_dir():
        check_writable(output, inputs=(*reads, sheet, model, genome, aliases, reference))
    loaded, where = load(model or default_model()), choose(device)
    binning = Binning(reference, aliases=named_aliases(aliases))
    layer = loaded.config.input
    inputs = find_inputs(reads, sheet, binning, rule=loaded.card.counting, genome=genome, layer=layer)
    check_model(loaded, inputs, track)
    files = [file for row in inputs.experiments for file in (row.file, row.signal) if file] + (
        [inputs.store] if inputs.store else []
    )
    outputs = plan_outputs(output, inputs.targets, inputs=files)
    asked_regions = parse_regions(regions, inputs.chromsizes, inputs.rule.resolution)
    plan = TrackPlan(track, asked or Covariates(), asked_regions, reference, batch_size, threads, where)
    with open_store(inputs, binning, command=command_line(), threads=threads, layer=layer) as store:
        write_tracks(loaded, store, outputs, plan)
    for written in outputs.values():
        console.log(f"wrote {written}")
