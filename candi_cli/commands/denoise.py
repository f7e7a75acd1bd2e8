"""`candi denoise`: reads into denoised tracks."""

from pathlib import Path

import click

from candi_cli.commands import _options as options
from candi_cli.commands import command_line
from candi_cli.commands._console import console
from candi_cli.commands._output import check_writable
from candi_cli.covariates import Covariates, parse_request
from candi_cli.errors import RequestError

TRACKS = ("counts", "signal", "peaks")


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
    "--as", "asked", type=options.Parsed("COVARIATES", parse_request), default=None,
    help="Covariates of the output: depth=50M,read_length=100,run_type=paired-ended,platform=...",
)  # fmt: skip
@options.regions
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
    asked: Covariates | None,
    regions: tuple[str, ...],
    reference: Path | None,
    batch_size: int,
    threads: int,
    device: str,
) -> None:
    """Denoise the tracks of READS (BAM, CRAM) or of one STORE made by 'candi bin'.

    Writes one bigWig for each READS file. The ChIP control that the sample sheet names for a biosample is read too.
    Chromosomes without a read are left out unless -r asks for them.
    """
    from candi_cli.commands._experiments import open_inputs
    from candi_cli.commands._tracks import TrackPlan, default_model, plan_outputs, write_tracks

    path = model or default_model()
    if not output.is_dir():
        check_writable(output)
    from candi_cli.model import load
    from candi_cli.model.device import choose

    where, loaded = choose(device), load(path)
    console.log(f"model {path.name}, on {where}")
    with open_inputs(reads, sheet, rule=loaded.card.counting, reference=reference, command=command_line()) as inputs:
        if not inputs.targets:
            raise RequestError("nothing to denoise: only controls were given; give the reads of an assay")
        plan = TrackPlan(track, asked or Covariates(), regions, reference, batch_size, threads, where)
        outputs = plan_outputs(output, inputs.targets)
        write_tracks(loaded, inputs.store, outputs, plan)
    for written in outputs.values():
        console.log(f"wrote {written}")
