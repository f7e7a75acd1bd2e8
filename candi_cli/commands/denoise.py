"""`candi denoise`: reads into denoised tracks."""

from typing import Any

import click

from candi_cli.commands._track_options import TrackOptions, track_options


@click.command("denoise")
@track_options
def command(**values: Any) -> None:
    """Denoise the tracks of READS or of one STORE made by 'candi bin'.

    READS are BAM, CRAM or SAM sorted by coordinate, or BED, tagAlign, BEDPE or fragments; `-` is stdin. Writes one
    track for each READS file; several go into a folder, with a manifest, a track hub, an IGV session and a page that
    shows them. The ChIP control that the sample sheet names for a biosample is read too. Chromosomes without a read
    are left out unless -r asks for them.
    """
    options = TrackOptions.of(values)
    from candi_cli.commands._prediction import predict_tracks

    predict_tracks(options, lambda _model, inputs: inputs.targets, named=False)
