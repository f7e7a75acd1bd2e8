"""The options of the commands that judge predictions, each declared once: what is judged, where, and by what."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import click

from candi_cli.commands import _options as options
from candi_cli.errors import RequestError

KINDS = ("counts", "signal", "peaks")
POOLS = ("imputed", "denoised")
_WIDEST_BIN = 1_000_000  # bp
_OF_GIVEN = {"interval": "--interval", "scale": "--scale", "resolution": "--resolution"}  # what stores know themselves
_OF_MODELS = {"model": "-m", "reference": "-T"}
_CLASSES = frozenset({"genome", "promoter", "gene", "enhancer", "peaks", "all"})


def _names(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    if not names:
        raise ValueError("names nothing; give names separated by commas")
    return names


def _named_bed(text: str) -> tuple[str, Path]:
    name, equals, path = text.partition("=")
    if not equals or not name.strip() or not path:
        raise ValueError(f"{text!r} is not NAME=BED")
    if not name.isprintable():
        raise ValueError(f"the name in {text!r} is not plain text")
    return name.strip(), Path(path)


JUDGE_OPTIONS = (
    click.argument("stores", nargs=-1, type=options.PATH, metavar="[STORE]..."),
    options.model,
    click.option(
        "--predictions", type=options.PATH, metavar="H5", multiple=True,
        help="Judge saved predictions ('candi impute -O hdf5') instead of a model's; repeatable.",
    ),
    click.option("--mean", type=options.PATH, metavar="BW", help="Judge a track of any program: its mean."),
    click.option("--sd", type=options.PATH, metavar="BW", help="Its standard deviation, in the unit of --scale."),
    click.option("--lower", type=options.PATH, metavar="BW", help="The lower bound of its interval, in its unit."),
    click.option("--upper", type=options.PATH, metavar="BW", help="The upper bound of its interval, in its unit."),
    click.option(
        "--interval", type=click.FloatRange(0, 1, min_open=True, max_open=True), metavar="P",
        help="The level of that interval.",
    ),
    click.option("--observed", type=options.PATH, metavar="BW", help="What was observed, in the unit of --mean."),
    click.option(
        "--scale", type=click.Choice(("linear", "arcsinh")), default="linear", show_default=True,
        help="What the given mean's Gaussian is over: the values of the tracks, or their arcsinh.",
    ),
    click.option(
        "--resolution", type=click.IntRange(1, _WIDEST_BIN), default=25, show_default=True,
        help="bp of a bin of given tracks.",
    ),
    click.option(
        "--truth", type=options.PATH, metavar="STORE",
        help="Independent measurements of the same experiments; default: the other half of the reads.",
    ),
    options.cohort,
    options.regions,
    click.option(
        "--assay", "assays", type=options.Parsed("NAMES", _names), metavar="NAME[,NAME]", help="Judge these alone."
    ),
    click.option("--track", "kinds", type=click.Choice(KINDS), multiple=True,
        help="Judge these alone; repeatable. Of --mean, what it is: signal, or counts.",
    ),
    click.option(
        "--pool", "pools", type=click.Choice(POOLS), multiple=True,
        help="Judge assays that were hidden, or reads of which the other half was; default both.",
    ),
    click.option("--genes", type=options.PATH, metavar="GTF", help="Genes (GTF, GFF3, BED6): promoters, gene bodies."),
    click.option("--enhancers", type=options.PATH, metavar="BED", help="Enhancers, or other elements such as cCREs."),
    click.option(
        "--bed", "beds", type=options.Parsed("NAME=BED", _named_bed), multiple=True,
        help="A class of regions of your own; repeatable.",
    ),
    click.option("--blacklist", type=options.PATH, metavar="BED", help="Bins that are left out."),
    options.reference,
    click.option(
        "-o", "--output", type=options.PATH, metavar="OUT",
        help="OUT.tsv, OUT.json, or a folder for both, a page and figures; default: TSV on stdout.",
    ),
    options.seed,
    click.option(
        "--batch-size", type=click.IntRange(1), show_default="32, on a GPU 128", help="Windows read at a time."
    ),
    options.threads,
    options.device,
    options.verbosity,
)  # fmt: skip


@dataclass(frozen=True)
class JudgeOptions:
    """What the command line asked for, in the terms of the options."""

    stores: tuple[Path, ...]
    model: Path | None
    predictions: tuple[Path, ...]
    mean: Path | None
    sd: Path | None
    lower: Path | None
    upper: Path | None
    interval: float | None
    observed: Path | None
    scale: str
    resolution: int
    truth: Path | None
    cohort: tuple[Path, ...]
    regions: tuple[str, ...]
    assays: tuple[str, ...]
    kinds: tuple[str, ...]
    pools: tuple[str, ...]
    genes: Path | None
    enhancers: Path | None
    beds: tuple[tuple[str, Path], ...]
    blacklist: Path | None
    reference: Path | None
    output: Path | None
    seed: int
    batch_size: int | None
    threads: int
    device: str

    @property
    def is_given(self) -> bool:
        """Whether plain tracks are judged."""
        return self.mean is not None

    @classmethod
    def of(cls, values: dict[str, Any]) -> "JudgeOptions":
        """Return the options of a command; raise RequestError where they contradict each other."""
        found = cls(**{field.name: values[field.name] for field in fields(cls)})
        found = cls(**{**found.__dict__, "assays": found.assays or ()})
        for option, path in found._named_files():
            if str(path) in ("", "."):
                raise RequestError(f"{option}: names no file; give one")
        named = {"--sd": found.sd, "--lower": found.lower, "--upper": found.upper, "--observed": found.observed}
        tracks = [name for name, path in named.items() if path is not None]
        if not found.is_given:
            if tracks:
                raise RequestError(f"{tracks[0]}: goes with --mean BW; give it, or a STORE")
            if not found.stores:
                raise RequestError("STORE: nothing to compare with; give a store made by 'candi bin', or --mean BW")
            for option in _typed(_OF_GIVEN):
                raise RequestError(f"{option}: is of tracks of --mean, and stores know it themselves; leave it out")
            found._check_stores()
        else:
            found._check_given()
        for option in _typed(_OF_MODELS) if found.predictions else ():
            raise RequestError(f"--predictions, {option}: predictions are judged as they are; leave one of them out")
        names = [name for name, _ in found.beds]
        for name in names:
            if names.count(name) > 1 or name in _CLASSES or name.startswith("predicted "):
                raise RequestError(f"--bed {name}: this name is taken; choose another")
        return found

    def _named_files(self) -> list[tuple[str, Path]]:
        """Return each file that is read, and the option that names it."""
        lists = {"STORE": self.stores, "--predictions": self.predictions, "--cohort": self.cohort}
        several = [(option, path) for option, paths in lists.items() for path in paths]
        single = {
            "-m": self.model, "--truth": self.truth, "--mean": self.mean, "--sd": self.sd, "--lower": self.lower,
            "--upper": self.upper, "--observed": self.observed, "--genes": self.genes, "--enhancers": self.enhancers,
            "--blacklist": self.blacklist, "-T": self.reference,
        }  # fmt: skip
        return several + [(option, path) for option, path in single.items() if path is not None]

    def _check_stores(self) -> None:
        for option, paths in (("STORE", self.stores), ("--predictions", self.predictions)):
            for path in _repeated(paths):
                raise RequestError(f"{option} {path}: is given twice; leave one of them out")
        if self.truth is not None and _repeated([*self.stores, self.truth]):
            raise RequestError(
                f"--truth {self.truth}: is the STORE itself, whose reads the model is shown; leave it out to be judged "
                "by the other half of the reads, or give a store of other reads"
            )

    def _check_given(self) -> None:
        if self.observed is None:
            raise RequestError("--mean: there is nothing to compare it with; give --observed BW")
        if self.stores or self.predictions or self.cohort or self.truth is not None:
            raise RequestError("--mean: tracks are judged alone; leave out STORE, --predictions, --cohort and --truth")
        if self.pools or self.assays:
            raise RequestError("--mean: is one track of which no more is known; leave out --pool and --assay")
        for option in _typed(_OF_MODELS):
            raise RequestError(f"--mean, {option}: tracks are judged as they are; leave one of them out")
        bounds = (self.lower is not None, self.upper is not None, self.interval is not None)
        if any(bounds) and not all(bounds):
            raise RequestError("--lower, --upper, --interval: go together; give all three")
        if self.sd is None and not all(bounds):
            raise RequestError("--mean: a spread is missing; give --sd, or --lower, --upper and --interval")
        if self.sd is not None and all(bounds):
            raise RequestError("--sd, --lower: the spread is given twice; give --sd or the interval")
        if len(self.kinds) > 1 or "peaks" in self.kinds:
            raise RequestError("--track: a given track is of signal or of counts; give one of these")
        if self.scale == "arcsinh" and "counts" in self.kinds:
            raise RequestError("--scale arcsinh: is of signal, and counts are judged as they are; leave it out")
        tracks = [path for path in (self.mean, self.sd, self.lower, self.upper, self.observed) if path is not None]
        for path in _repeated(tracks):
            raise RequestError(f"{path}: is given as two different tracks; give the file of each")


def _typed(options: Mapping[str, str]) -> list[str]:
    """Return which of some options, by the names of their parameters, were given on the command line."""
    source = click.get_current_context(silent=True)
    if source is None:
        return []
    typed = click.core.ParameterSource.COMMANDLINE
    return [option for name, option in options.items() if source.get_parameter_source(name) == typed]


def _repeated(paths: Sequence[Path]) -> list[Path]:
    """Return the files that an earlier path of some also leads to."""
    found = [path for path in paths if path.exists()]
    return [path for at, path in enumerate(found) if any(path.samefile(other) for other in found[:at])]


def judge_options(*more: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Give a command every option of those that judge, and some of its own before -o."""
    place = next(n for n, each in enumerate(JUDGE_OPTIONS) if each is options.reference)

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed((*JUDGE_OPTIONS[:place], *more, *JUDGE_OPTIONS[place:])):
            command = option(command)
        return command

    return decorate
