"""Options that two or more commands share, each declared once."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from candi_cli.commands._console import QUIET, VERBOSE, console
from candi_cli.counting import parse_flags
from candi_cli.models import find_model

F = Callable[..., Any]


class _PathName(click.Path):
    """The name of a file or folder; what is wrong with the file itself is told where it is opened.

    A name that is not UTF-8 has no place in tables, JSON and HDF5, and libraries in C are not sure to open it.

    Parameters
    ----------
    as_text : return it as it was typed, a slash at its end too
    """

    def __init__(self, *, as_text: bool = False) -> None:
        super().__init__(path_type=str if as_text else Path, readable=False)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Check a name."""
        if not os.fspath(value):
            self.fail("the name is empty", param, ctx)
        try:
            os.fsdecode(value).encode()
        except UnicodeEncodeError:
            self.fail(f"{os.fsdecode(value)!a}: the name is not UTF-8, rename it", param, ctx)
        return super().convert(value, param, ctx)


class _ModelName(_PathName):
    """The name of a model file, or of a model that ships; a file of that name comes first."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Find a model."""
        return find_model(super().convert(value, param, ctx))


PATH, TYPED_PATH, MODEL = _PathName(), _PathName(as_text=True), _ModelName()


class Parsed(click.ParamType):
    """A parameter type from a function that raises ValueError for what it cannot parse."""

    def __init__(self, name: str, parse: Callable[[str], Any]) -> None:
        self.name, self._parse = name, parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Parse text; values that are parsed already pass."""
        if not isinstance(value, str):
            return value
        try:
            return self._parse(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


def _set_level(level: int) -> Callable[[click.Context, click.Parameter, bool], None]:
    def callback(_ctx: click.Context, _param: click.Parameter, value: bool) -> None:
        if value:
            console.level = level

    return callback


def _set_debug(_ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    console.debug = console.debug or value


reads = click.argument("reads", nargs=-1, type=PATH)
sheet = click.option(
    "--covariates", "sheet", type=PATH, metavar="SHEET", help="Sample sheet (TSV): biosample, assay, file, covariates."
)
genome = click.option(
    "-g", "--genome", type=PATH, metavar="CHROM.SIZES",
    help="Chromosomes and their lengths; default: those of the first header.",
)  # fmt: skip
aliases = click.option(
    "--aliases", type=PATH, metavar="TSV", help="Other names of contigs, those of one on a line (UCSC chromAlias.txt)."
)
reference = click.option("-T", "--reference", type=PATH, metavar="FASTA", help="Reference: needed for CRAM, gives DNA.")
cohort = click.option(
    "--cohort", type=PATH, multiple=True, metavar="STORE",
    help="Store of other biosamples, whose mean signal a model trained with --reference-average reads, beside those of "
    "the given store; repeatable.",
)  # fmt: skip
regions = click.option(
    "-r", "--region", "regions", multiple=True, metavar="REGION", help="chr or chr:start-end (1-based); repeatable."
)
min_mapq = click.option(
    "-q", "--min-mq", "min_mapq", type=click.IntRange(0, 255), default=30, show_default=True,
    help="Drop reads below this MAPQ; 255 means unknown and passes.",
)  # fmt: skip
excl_flags = click.option(
    "-F", "--excl-flags", type=Parsed("FLAGS", parse_flags), default="0xF04", show_default=True,
    help="Drop reads with any of these SAM flags (number or names).",
)  # fmt: skip
threads = click.option(
    "-@", "--threads", type=click.IntRange(1), default=1, show_default=True, help="Threads, in total."
)
device = click.option(
    "--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True, help="Where to compute."
)
seed = click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of everything random.")


def batch_size(default: int) -> Callable[[F], F]:
    """Return the --batch-size option with a command's own default."""
    return click.option(
        "--batch-size", type=click.IntRange(1), default=default, show_default=True, help="Windows computed at a time."
    )


def verbosity(command: F) -> F:
    """Add --quiet, -v and --debug."""
    for decorate in (
        click.option("--debug", is_flag=True, expose_value=False, callback=_set_debug, help="Show tracebacks."),
        click.option(
            "-v", "--verbose", is_flag=True, expose_value=False, callback=_set_level(VERBOSE), help="Tell more."
        ),
        click.option("--quiet", is_flag=True, expose_value=False, callback=_set_level(QUIET), help="Tell only errors."),
    ):
        command = decorate(command)
    return command


model = click.option(
    "-m", "--model", type=MODEL, envvar="CANDI_MODEL", metavar="MODEL", show_envvar=True,
    help="Model file, or one that ships: counts-core (default), signal-core (default for signal alone).",
)  # fmt: skip
