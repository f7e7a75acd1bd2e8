"""Which files a command that predicts tracks will write, and under what names."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from candi_cli.commands._output import check_writable
from candi_cli.commands._track_options import TrackOptions
from candi_cli.errors import OutputError, RequestError
from candi_cli.export.files import BEDGRAPH, BIGWIG, FORMATS, HDF5, NARROWPEAK, format_of
from candi_cli.export.quantities import Quantity, quantities

STDOUT = Path("-")
Target = tuple[str, str]  # biosample, assay


@dataclass(frozen=True)
class Planned:
    """One file that will be written.

    Attributes
    ----------
    target : biosample and assay; None for HDF5, which holds all
    quantity : what it shows; of narrowPeak, the probability of a peak
    """

    path: Path
    format: str
    target: Target | None = None
    quantity: Quantity | None = None


@dataclass(frozen=True)
class FilePlan:
    """All files of a command.

    Attributes
    ----------
    place : the one file, or the folder: what the work is kept beside
    is_folder : several files are delivered together
    kinds : of tracks that are predicted
    """

    place: Path
    is_folder: bool
    kinds: tuple[str, ...]
    files: list[Planned]


def formats_of(options: TrackOptions) -> tuple[str, ...]:
    """Return the formats that are asked for, by `-O` or by the name of the output."""
    return options.formats or (format_of(options.output) or BIGWIG,)


def kinds_asked(options: TrackOptions) -> tuple[str, ...]:
    """Return the kinds of tracks that are asked for, by `--track` or by a format that shows one of them alone."""
    peaks = ("peaks",) if NARROWPEAK in formats_of(options) else ()
    return tuple(dict.fromkeys((*options.kinds, *peaks)))


def plan_files(options: TrackOptions, targets: Sequence[Target], kinds: Sequence[str]) -> FilePlan:
    """Return where each track goes: files named after `-o` for one target, files in the folder `-o` for several.

    Raises
    ------
    OutputError
        Several targets are to go into one file.
    RequestError
        A format does not go with what is asked, or stdout is to take more than one track.
    """
    output = options.output
    formats = formats_of(options)
    if (options.interval or options.sd or options.cv or options.nb) and not {BIGWIG, BEDGRAPH} & set(formats):
        raise RequestError(
            f"--interval, --sd, --cv, --nb: are tracks of their own, which {formats[0]} does not hold; add -O bigwig"
        )
    shown = quantities(kinds, interval=options.interval, sd=options.sd, cv=options.cv, nb=options.nb)
    several = len(targets) > 1 or len(kinds) > 1
    is_folder = output.is_dir() or (several and format_of(output) is None and not output.exists())
    if output == STDOUT:
        return _to_stdout(formats, targets, shown, kinds)
    if is_folder:
        files = _in_folder(output, formats, targets, shown, several_kinds=len(kinds) > 1)
    elif formats == (HDF5,):
        files = [Planned(output, HDF5)]
    elif len(targets) > 1:
        raise OutputError(f"{output}: {len(targets)} tracks need a folder; make one and give it with -o")
    elif len(kinds) > 1:
        raise OutputError(f"{output}: {len(kinds)} kinds of tracks need a folder; make one and give it with -o")
    else:
        files = _named_after(output, formats, targets[0], shown)
    return FilePlan(output, is_folder, tuple(kinds), files)


def _to_stdout(
    formats: Sequence[str], targets: Sequence[Target], shown: Sequence[Quantity], kinds: Sequence[str]
) -> FilePlan:
    if tuple(formats) != (BEDGRAPH,):
        raise OutputError("-: this output cannot be written to a pipe; give a file name with -o, or -O bedgraph")
    if len(targets) > 1 or len(shown) > 1:
        raise RequestError(
            f"-o -: {len(targets) * len(shown)} tracks do not fit into one stream; give a folder with -o"
        )
    return FilePlan(STDOUT, False, tuple(kinds), [Planned(STDOUT, BEDGRAPH, targets[0], shown[0])])


def _in_folder(
    folder: Path, formats: Sequence[str], targets: Sequence[Target], shown: Sequence[Quantity], *, several_kinds: bool
) -> list[Planned]:
    files = []
    for name in formats:
        suffix = FORMATS[name]
        if name == HDF5:
            files.append(Planned(folder / f"predictions{suffix}", HDF5))
            continue
        for target in targets:
            stem = ".".join(target)
            if name == NARROWPEAK:
                files.append(Planned(folder / f"{stem}{suffix}", name, target, Quantity("peaks")))
                continue
            for quantity in shown:
                path = folder / f"{stem}{_middle(quantity, with_kind=several_kinds)}{suffix}"
                files.append(Planned(path, name, target, quantity))
    return files


def _named_after(output: Path, formats: Sequence[str], target: Target, shown: Sequence[Quantity]) -> list[Planned]:
    """Return files beside each other: `output` itself for the mean, `OUT.lower.bw` and so on for the others."""
    given = format_of(output)
    suffix = "".join(output.suffixes[-2:] if output.suffix == ".gz" else output.suffixes[-1:]) if given else ""
    stem = output.name.removesuffix(suffix)
    files = []
    for name in formats:
        own = suffix if name == given or len(formats) == 1 else FORMATS[name]
        if name == HDF5:
            files.append(Planned(output.with_name(stem + own), name))
            continue
        for quantity in [Quantity("peaks")] if name == NARROWPEAK else shown:
            path = output.with_name(f"{stem}{_middle(quantity, with_kind=False)}{own}")
            files.append(Planned(path, name, target, quantity))
    return files


def _middle(quantity: Quantity, *, with_kind: bool) -> str:
    """Return what a name says of a quantity: nothing of a mean."""
    kind = f".{quantity.kind}" if with_kind else ""
    return kind + (f".{quantity.name}" if quantity.name != "mean" else "")


def check_files(plan: FilePlan, others: Sequence[Path | None], *, inputs: Sequence[Path | None]) -> None:
    """Check that every file can be written, and make the folder; raise OutputError where one cannot."""
    if plan.is_folder and not plan.place.exists():
        if not plan.place.parent.is_dir():
            raise OutputError(f"{plan.place}: folder {plan.place.parent} does not exist; make it first")
        plan.place.mkdir()
    paths = [file.path for file in plan.files if file.path != STDOUT] + [path for path in others if path is not None]
    twice = [path for number, path in enumerate(paths) if path in paths[:number]]
    if twice:
        raise OutputError(f"{twice[0]}: two outputs have this name; give them others")
    for path in paths:
        check_writable(path, inputs=inputs)
