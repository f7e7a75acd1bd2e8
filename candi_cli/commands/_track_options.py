"""The options of the commands that write tracks, each declared once: what is predicted, shown, and how it is run."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from candi_cli.commands import _options as options
from candi_cli.errors import RequestError

if TYPE_CHECKING:
    from candi_cli.model.requests import Asked

KINDS = ("counts", "signal", "peaks")
FORMATS = ("bigwig", "bedgraph", "narrowpeak", "hdf5")


def _parse_asked(text: str) -> "Asked":
    from candi_cli.model.requests import parse_asked

    return parse_asked(text)


_OPTIONS = (
    options.reads,
    options.sheet,
    click.option(
        "-o", "--output", type=options.PATH, metavar="OUT",
        help="A file, named by its format (OUT.bw), a folder, or - for bedGraph on stdout.",
    ),
    click.option(
        "-O", "--output-fmt", "formats", type=click.Choice(FORMATS), multiple=True,
        help="Default: as the name of -o says, else bigwig; repeatable.",
    ),
    options.model,
    click.option(
        "--track", "kinds", type=click.Choice(KINDS), multiple=True,
        help="Expected reads per bin, -log10 p, or peak probability; repeatable.  [default: counts, else signal]",
    ),
    click.option(
        "--interval", type=click.FloatRange(0, 1, min_open=True, max_open=True), metavar="P",
        help="Also the bounds of the central interval that holds a share P of the predicted distribution.",
    ),
    click.option("--sd", is_flag=True, help="Also the standard deviation of the predicted distribution."),
    click.option("--cv", is_flag=True, help="Also its coefficient of variation, sd / mean."),
    click.option("--nb", is_flag=True, help="Also n and p of the negative binomial of counts (scipy's convention)."),
    click.option(
        "--threshold", type=click.FloatRange(0, 1, min_open=True), default=0.5, show_default=True,
        help="Least probability of a bin in a narrowPeak call.",
    ),
    click.option(
        "--digits", type=click.IntRange(1, 7), default=3, show_default=True,
        help="Significant digits of values; fewer make smaller files.",
    ),
    click.option("--latent", type=options.PATH, metavar="Z.h5", help="Also write what the encoder makes of the reads."),
    click.option(
        "--as", "asked", type=options.Parsed("COVARIATES", _parse_asked), multiple=True,
        help="Covariates of the output: depth=50M,read_length=100,run_type=paired-ended,platform=..., or same (as the "
        "input's); ASSAY: before them asks for one assay; repeatable.",
    ),
    options.regions,
    options.genome,
    options.aliases,
    options.reference,
    click.option("--resume", is_flag=True, help="Go on from what an interrupted run has finished."),
    click.option("--dry-run", is_flag=True, help="Print what would be done, and what it needs; write nothing."),
    click.option("--provenance", type=options.PATH, metavar="JSON", help="Write what the tracks were made from."),
    click.option(
        "--batch-size", type=click.IntRange(1), show_default="32, on a GPU as many as fit up to 256",
        help="Windows computed at a time.",
    ),
    options.threads,
    options.device,
    options.verbosity,
)  # fmt: skip


@dataclass(frozen=True)
class TrackOptions:
    """What the command line asked for, in the terms of the options."""

    reads: tuple[Path, ...]
    sheet: Path | None
    output: Path
    formats: tuple[str, ...]
    model: Path | None
    kinds: tuple[str, ...]
    interval: float | None
    sd: bool
    cv: bool
    nb: bool
    threshold: float
    digits: int
    latent: Path | None
    asked: "tuple[Asked, ...]"
    regions: tuple[str, ...]
    genome: Path | None
    aliases: Path | None
    reference: Path | None
    resume: bool
    dry_run: bool
    provenance: Path | None
    batch_size: int | None
    threads: int
    device: str

    @classmethod
    def of(cls, values: dict[str, Any]) -> "TrackOptions":
        """Return the options of a command; raise RequestError where they contradict each other."""
        if values["output"] is None:
            raise click.UsageError("Missing option '-o' / '--output'.")
        found = cls(**{field.name: values[field.name] for field in fields(cls)})
        if (found.interval or found.sd or found.cv) and set(found.kinds) == {"peaks"}:
            raise RequestError("--interval, --sd, --cv: peaks are a probability, which has none; add --track signal")
        if found.nb and found.kinds and "counts" not in found.kinds:
            raise RequestError("--nb: is of counts; add --track counts")
        if len(set(found.formats)) < len(found.formats) or len(set(found.kinds)) < len(found.kinds):
            raise RequestError("-O, --track: one is given twice; give each once")
        return found


def track_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command every option of those that write tracks."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command
