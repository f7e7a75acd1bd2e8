"""The options of the commands that write tracks, each declared once: what is predicted, shown, and how it is run."""

import math
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
MOST_WINDOWS = 4096  # at a time: some GB of memory


def _parse_asked(text: str) -> "Asked":
    from candi_cli.model.requests import parse_asked

    return parse_asked(text)


class _Share(click.FloatRange):
    """A share, above 0 and at most 1; FloatRange alone lets NaN pass.

    Parameters
    ----------
    below_one : 1 is none, nor what a quantile cannot tell from it
    """

    def __init__(self, *, below_one: bool) -> None:
        super().__init__(0, 1, min_open=True, max_open=below_one)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Parse a number."""
        share = float(super().convert(value, param, ctx))
        if math.isnan(share) or (self.max_open and (1 + share) / 2 == 1):
            self.fail(f"{value} is not in the range {self._describe_range()}", param, ctx)
        return share


_OPTIONS = (
    options.reads,
    options.sheet,
    click.option(
        "-o", "--output", type=options.TYPED_PATH, metavar="OUT",
        help="A file, named by its format (OUT.bw), a folder (OUT/), or - for bedGraph on stdout.",
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
        "--interval", type=_Share(below_one=True), metavar="P",
        help="Also the bounds of the central interval that holds a share P of the predicted distribution.",
    ),
    click.option("--sd", is_flag=True, help="Also the standard deviation of the predicted distribution."),
    click.option("--cv", is_flag=True, help="Also its coefficient of variation, sd / mean."),
    click.option("--nb", is_flag=True, help="Also n and p of the negative binomial of counts (scipy's convention)."),
    click.option(
        "--threshold", type=_Share(below_one=False), show_default="0.5",
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
    options.cohort,
    click.option("--resume", is_flag=True, help="Go on from what an interrupted run has finished."),
    click.option("--dry-run", is_flag=True, help="Print what would be done, and what it needs; write nothing."),
    click.option("--provenance", type=options.PATH, metavar="JSON", help="Write what the tracks were made from."),
    click.option(
        "--batch-size", type=click.IntRange(1, MOST_WINDOWS), show_default="32, on a GPU 128",
        help="Windows read at a time.",
    ),
    options.threads,
    options.device,
    options.verbosity,
)  # fmt: skip


@dataclass(frozen=True)
class TrackOptions:
    """What the command line asked for, in the terms of the options.

    Attributes
    ----------
    into_folder : the output was named as a folder is, with a slash at its end
    """

    reads: tuple[Path, ...]
    sheet: Path | None
    output: Path
    into_folder: bool
    formats: tuple[str, ...]
    model: Path | None
    kinds: tuple[str, ...]
    interval: float | None
    sd: bool
    cv: bool
    nb: bool
    threshold: float | None
    digits: int
    latent: Path | None
    asked: "tuple[Asked, ...]"
    regions: tuple[str, ...]
    genome: Path | None
    aliases: Path | None
    reference: Path | None
    cohort: tuple[Path, ...]
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
        given = values | {"output": Path(values["output"]), "into_folder": values["output"].endswith("/")}
        found = cls(**{field.name: given[field.name] for field in fields(cls)})
        if (found.interval or found.sd or found.cv) and set(found.kinds) == {"peaks"}:
            raise RequestError("--interval, --sd, --cv: peaks are a probability, which has none; add --track signal")
        if found.nb and found.kinds and "counts" not in found.kinds:
            raise RequestError("--nb: is of counts; add --track counts")
        if len(set(found.formats)) < len(found.formats) or len(set(found.kinds)) < len(found.kinds):
            raise RequestError("-O, --track: one is given twice; give each once")
        if found.resume and found.output == Path("-"):
            raise RequestError("--resume: what goes to stdout leaves nothing to go on from; give a file with -o")
        return found


def track_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command every option of those that write tracks."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command
