"""What the encoder makes of the reads, into one HDF5 file of positions of 200 bp."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from candi_cli.commands import command_line
from candi_cli.commands._console import console
from candi_cli.commands._output import replacing
from candi_cli.genome import Region
from candi_cli.model import Loaded
from candi_cli.model.parts import Computing, latents, windows_of
from candi_cli.model.prediction import Windows
from candi_cli.store.latents import LatentWriter
from candi_cli.store.predictions import Described


def write_latent(
    path: Path,
    model: Loaded,
    described: Described,
    regions: Mapping[str, Sequence[Region]],
    dataset_of: Callable[[str], Windows],
    computing: Computing,
) -> None:
    """Write the latent of every position of some regions of each biosample."""
    n_windows = sum(1 for found in regions.values() for _ in windows_of(model, described, found))
    with (
        replacing(path) as temporary,
        LatentWriter(
            temporary, described, position_bins=model.config.latent_bins, width=model.config.d_model,
            command=command_line(threads=False), shown_as=path,
        ) as writer,
        console.progress("latent", n_windows, "windows") as advance,
    ):  # fmt: skip
        for biosample, found in regions.items():
            for region, values in latents(model, described, found, dataset_of(biosample), computing):
                writer.add(biosample, region, values)
                advance(1, "")
    console.log(f"wrote {path}")
