"""Which files a command that predicts tracks will write, and under what names."""

import contextlib
import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from candi_cli.commands._console import console
from candi_cli.commands._output import check_writable
from candi_cli.commands._track_options import TrackOptions
from candi_cli.errors import GenomeError, OutputError, RequestError
from candi_cli.export.files import BEDGRAPH, BIGWIG, FORMATS, HDF5, NARROWPEAK, format_of
from candi_cli.export.quantities import Quantity, quantities
from candi_cli.genome import Chromsizes, Region, parse_regions

STDOUT = Path("-")
MANIFEST = "manifest.json"
COMPANIONS = (MANIFEST, "index.html", "igv_session.xml", "hub")  # what goes with a folder of tracks
Target = tuple[str, str]  # biosample, assay
Track = tuple[str, str]  # assay, kind


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


def regions_asked(options: TrackOptions, chromsizes: Chromsizes, resolution: int) -> list[Region]:
    """Return the regions of `-r`, in whole bins; raise RequestError for one that is none of the genome."""
    try:
        return parse_regions(options.regions, chromsizes, resolution)
    except GenomeError as error:
        raise RequestError(f"-r: {error}") from error


def plan_files(
    options: TrackOptions, targets: Sequence[Target], kinds: Sequence[str], *, absent: Collection[Track] = ()
) -> FilePlan:
    """Return where each track goes: files named after `-o` for one target, files in the folder `-o` for several.

    Parameters
    ----------
    absent : tracks that there are not, and of which no file is planned

    Raises
    ------
    RequestError
        A format does not go with what is asked, several targets are to go into one file, or stdout is to take more than
        one track.
    """
    output = options.output
    formats = formats_of(options)
    if (options.interval or options.sd or options.cv or options.nb) and not {BIGWIG, BEDGRAPH} & set(formats):
        raise RequestError(
            f"--interval, --sd, --cv, --nb: are tracks of their own, which {formats[0]} does not hold; add -O bigwig"
        )
    if options.threshold is not None and NARROWPEAK not in formats:
        raise RequestError(f"--threshold: is of peak calls, which {formats[0]} does not hold; add -O narrowpeak")
    shown = quantities(kinds, interval=options.interval, sd=options.sd, cv=options.cv, nb=options.nb)
    several = len(targets) > 1 or len(kinds) > 1
    as_folder = options.into_folder or (several and format_of(output) is None and not output.exists())
    is_folder = output.is_dir() or as_folder
    if output == STDOUT:
        return _to_stdout(formats, targets, shown, kinds)
    if is_folder:
        files = _in_folder(output, formats, targets, shown, several_kinds=len(kinds) > 1)
    elif formats == (HDF5,):
        files = [Planned(output, HDF5)]
    elif len(targets) > 1:
        raise RequestError(f"{output}: {len(targets)} tracks need a folder; give one with -o, as {output.stem}/")
    elif len(kinds) > 1:
        raise RequestError(f"{output}: {len(kinds)} kinds of tracks need a folder; give one with -o, as {output.stem}/")
    else:
        files = _named_after(output, formats, targets[0], shown)
        _warn_of_name(output, formats)
    files = [file for file in files if _track_of(file) not in absent]
    return FilePlan(output, is_folder, tuple(kinds), files)


def _track_of(file: Planned) -> Track | None:
    return (file.target[1], file.quantity.kind) if file.target and file.quantity else None


def _warn_of_name(output: Path, formats: Sequence[str]) -> None:
    """Warn of a name that will say something else than the file is."""
    named = format_of(output)
    if len(formats) == 1 and named not in (None, formats[0]):
        console.warn(f"{output}: is written as {formats[0]}, as -O says, and not as {named}, as its name does")


def _to_stdout(
    formats: Sequence[str], targets: Sequence[Target], shown: Sequence[Quantity], kinds: Sequence[str]
) -> FilePlan:
    if tuple(formats) != (BEDGRAPH,):
        raise RequestError("-: this output cannot be written to a pipe; give a file name with -o, or -O bedgraph")
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


@contextlib.contextmanager
def place_for(plan: FilePlan, others: Sequence[Path | None], *, inputs: Sequence[Path | None]) -> Iterator[None]:
    """Check that every file can be written, and make the folder for the block that writes them.

    A folder that was made goes again when the block fails and leaves nothing in it.

    Raises
    ------
    OutputError
        A file cannot be written, two have one name, or the folder holds files that are not a delivery's.
    """
    paths = [file.path for file in plan.files if file.path != STDOUT] + [path for path in others if path is not None]
    _check_names(paths)
    makes_folder = plan.is_folder and not plan.place.exists()
    if makes_folder:
        if not plan.place.parent.is_dir():
            raise OutputError(f"{plan.place}: folder {plan.place.parent} does not exist; make it first")
        plan.place.mkdir()
    try:
        for path in paths:
            check_writable(path, inputs=inputs)
        if plan.is_folder:
            _check_companions(plan.place)
        yield
    except BaseException:
        if makes_folder:
            with contextlib.suppress(OSError):  # something is in it
                plan.place.rmdir()
        raise


def _check_names(paths: Sequence[Path]) -> None:
    """Raise OutputError where two files have one name, or would have on a disk that does not tell a from A."""
    seen: dict[str, Path] = {}
    for path in paths:
        other = seen.setdefault(str(path).casefold(), path)
        if other is path:
            continue
        if other == path:
            raise OutputError(f"{path}: two outputs have this name; give them others")
        raise OutputError(
            f"{path}: differs from {other.name} in upper and lower case alone, and not every disk tells these apart; "
            "ask for one at a time"
        )


def _check_companions(folder: Path) -> None:
    """Raise OutputError where something else than a delivery of tracks lies in the place of what goes with one."""
    found = [folder / name for name in COMPANIONS if (folder / name).exists()]
    if found and manifest_in(folder) is None:
        raise OutputError(f"{found[0]}: was not written by candi, and would be replaced; give another folder with -o")


def manifest_in(folder: Path) -> dict[str, Any] | None:
    """Return the manifest of the delivery that a folder holds, None where it holds none."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        named = [entry["path"] for entry in manifest["files"]]
        candi = manifest["versions"]["candi"]
    except (OSError, ValueError, LookupError, TypeError):
        return None
    return manifest if isinstance(candi, str) and all(isinstance(path, str) for path in named) else None
