"""The sample sheet, the vocabularies and the four covariates of an experiment.

The covariates are those of the paper (Methods, "Inputs"): sequencing depth, run type, read length, platform. A value
that is not known is `None` here, NaN or *unknown* in arrays, and never 0.
"""

import csv
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from candi_cli.errors import SheetError

COLUMNS = (
    "biosample", "assay", "file", "control", "depth", "read_length", "run_type", "platform",
    "signal", "peaks", "donor", "tissue", "split", "md5", "signal_md5", "peaks_md5",
)  # fmt: skip
FILE_COLUMNS = ("file", "signal", "peaks")
SPLITS = ("train", "validation", "test")
CONTROL = "control"
_CONTROL_NAMES = frozenset({"control", "chip-control", "chipseq-control"})
_NOT_KNOWN = frozenset({"", "NA", "N/A", "na", "n/a", "."})

# The first three rows of every vocabulary are tokens; ids are stable: new names are only ever appended.
MISSING, UNKNOWN, MASKED = 0, 1, 2
_TOKENS = ("missing", "unknown", "masked")
RUN_TYPES = (*_TOKENS, "single-ended", "paired-ended")
PLATFORMS = (
    *_TOKENS,
    "Illumina Genome Analyzer",
    "Illumina Genome Analyzer I",
    "Illumina Genome Analyzer II",
    "Illumina Genome Analyzer IIe",
    "Illumina Genome Analyzer IIx",
    "Illumina HiSeq 2000",
    "Illumina HiSeq 2500",
    "Illumina HiSeq 4000",
    "Illumina NextSeq 500",
    "Illumina NovaSeq 6000",
    "Illumina HiSeq 1000",
    "Illumina HiSeq 1500",
    "Illumina HiSeq 3000",
    "Illumina HiSeq X Ten",
    "Illumina MiSeq",
    "Illumina NextSeq 550",
    "Illumina NextSeq 2000",
    "Illumina NovaSeq X",
    "DNBSEQ-G400",
    "DNBSEQ-T7",
    "BGISEQ-500",
    "Ion Torrent Proton",
    "Element AVITI",
)
GB = 1e9  # bp: depths of unlike genomes are compared as reads per Gb
FIELDS = ("depth", "read_length", "run_type", "platform")
_RUN_TYPE_SPELLINGS = {
    "single-ended": "single-ended", "single-end": "single-ended", "single": "single-ended", "se": "single-ended",
    "paired-ended": "paired-ended", "paired-end": "paired-ended", "paired": "paired-ended", "pe": "paired-ended",
}  # fmt: skip
_SPLIT_SPELLINGS = {
    "train": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "test": "test",
}
_MD5 = re.compile(r"^[0-9a-f]{32}$")
_DEPTH = re.compile(r"^(\d+(?:\.\d+)?(?:[eE][+]?\d+)?)([kKmMgG]?)$")
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9}


@dataclass(frozen=True)
class Covariates:
    """The four covariates of one experiment; `None` where a value is not known.

    `depth` is the number of reads counted in the file and `span_bp` the length of the genome that they were counted
    over, so that `depth / span_bp` means the same for a whole genome and for a file cut down to a region.
    """

    depth: float | None = None
    read_length: float | None = None
    run_type: str | None = None
    platform: str | None = None
    span_bp: float | None = None

    def filled(self, other: "Covariates") -> "Covariates":
        """Return these covariates with what is not known taken from `other`."""
        return Covariates(
            **{
                name: getattr(other, name) if getattr(self, name) is None else getattr(self, name)
                for name in (*FIELDS, "span_bp")
            }
        )


@dataclass(frozen=True)
class Experiment:
    """One row of the sheet: an assay of a biosample, where its files are, and its covariates.

    Attributes
    ----------
    file, signal, peaks : the reads, the -log10 p track and the peaks; any of them may be absent
    split : one of `SPLITS`, or None when the sheet does not say
    md5sums : expected MD5 in lower-case hex of the files in the columns named by its keys (`FILE_COLUMNS`)
    remark : something about the row that a user should be told
    """

    biosample: str
    assay: str
    file: Path | None = None
    signal: Path | None = None
    peaks: Path | None = None
    covariates: Covariates = Covariates()
    donor: str | None = None
    tissue: str | None = None
    split: str | None = None
    md5sums: Mapping[str, str] = field(default_factory=dict)
    remark: str | None = None

    @property
    def is_control(self) -> bool:
        """Whether this is the ChIP control of its biosample."""
        return self.assay == CONTROL

    @property
    def name(self) -> str:
        """`biosample/assay`, as in messages and in a store."""
        return f"{self.biosample}/{self.assay}"


def parse_depth(text: str) -> float:
    """Parse a read count such as `50000000`, `50M` or `5e7`; raise ValueError if it is not a positive one."""
    match = _DEPTH.match(text.replace(",", ""))
    if match is None:
        raise ValueError(f"{text!r} is not a number of reads")
    depth = float(match[1]) * _UNITS[match[2].lower()]
    if not math.isfinite(depth) or depth < 1:
        raise ValueError(f"{text!r} is not a positive number of reads")
    return depth


def parse_read_length(text: str) -> float:
    """Parse a read length in bp; raise ValueError if it is not a plausible one."""
    try:
        length = float(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a number of bp") from None
    if not 1 <= length <= 100_000:
        raise ValueError(f"{text!r} is not a read length in bp")
    return length


def parse_run_type(text: str) -> str:
    """Return `single-ended` or `paired-ended` for any of their usual spellings; raise ValueError for others."""
    run_type = _RUN_TYPE_SPELLINGS.get(text.lower().replace("_", "-"))
    if run_type is None:
        raise ValueError(f"{text!r} is not a run type")
    return run_type


def parse_platform(text: str) -> str | None:
    """Return the platform's name in `PLATFORMS`, or None when it is not one of them.

    Spellings with and without the maker's name, and other capitals, spaces and dashes, are the same platform.
    """
    plain = re.sub(r"[^a-z0-9]", "", text.lower())
    for name in PLATFORMS[len(_TOKENS) :]:
        full = re.sub(r"[^a-z0-9]", "", name.lower())
        if plain in (full, full.removeprefix("illumina")):
            return name
    return None


_PARSERS: dict[str, Callable[[str], float | str]] = {
    "depth": parse_depth,
    "read_length": parse_read_length,
    "run_type": parse_run_type,
}
_REMEDIES = {
    "depth": "give reads (50000000, 50M) or NA",
    "read_length": "give a number of bp or NA",
    "run_type": "give single-ended, paired-ended or NA",
}


def parse_request(text: str) -> Covariates:
    """Parse `depth=50M,read_length=100,run_type=paired-ended,platform=...` into requested covariates.

    Raises
    ------
    ValueError
        A key is not a covariate or its value is not valid.
    """
    values: dict[str, float | str | None] = {}
    for part in text.split(","):
        key, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals or key not in FIELDS:
            raise ValueError(f"{part!r} is not one of {', '.join(f'{field}=VALUE' for field in FIELDS)}")
        if key in values:
            raise ValueError(f"{key} is given twice")
        if key == "platform":
            values[key] = parse_platform(value)
            if values[key] is None:
                raise ValueError(f"{value!r} is not a known platform; known are {', '.join(PLATFORMS[3:])}")
        else:
            values[key] = _PARSERS[key](value)
    return Covariates(**values)  # type: ignore[arg-type]


def read_sheet(path: Path) -> list[Experiment]:
    """Read and check a sample sheet: tab-separated, a header line, `NA` where a value is not known.

    A file name is looked for as given and then beside the sheet. The reads in a row's `control` column become the
    control experiment of its biosample. Platforms outside the vocabulary become *not known*.

    Raises
    ------
    SheetError
        With one line `path:LINE: COLUMN: fact; remedy` for every problem of the sheet.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as handle:
            rows = list(csv.reader(handle, delimiter="\t", quoting=csv.QUOTE_NONE))
    except OSError as error:
        raise SheetError(f"{path}: {error.strerror}; give a sample sheet with --covariates") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise SheetError(f"{path}: not a text file; give a tab-separated sample sheet") from error
    lines = [(number, row) for number, row in enumerate(rows, start=1) if any(cell.strip() for cell in row)]
    if len(lines) < 2:
        raise SheetError(f"{path}: no experiment in it; write a header line and one line for each experiment")
    header_line, header = lines[0][0], [cell.strip() for cell in lines[0][1]]
    problems = [f"{path}:{header_line}: {text}" for text in _check_header(header)]
    if problems:
        raise SheetError("\n".join(problems))
    experiments: dict[tuple[str, str], Experiment] = {}
    first_line: dict[tuple[str, str], int] = {}
    for number, row in lines[1:]:
        where = f"{path}:{number}"
        if len(row) > len(header):
            problems.append(f"{where}: {len(row)} fields under {len(header)} columns; separate fields by one tab")
            continue
        parsed, found = _parse_row(dict(zip(header, (cell.strip() for cell in row), strict=False)), path.parent, where)
        problems += found
        for experiment in parsed:
            key = (experiment.biosample, experiment.assay)
            known = experiments.get(key)
            if known is None:
                experiments[key] = experiment
                first_line[key] = number
            elif not (experiment.is_control and experiment == known):
                problems.append(
                    f"{where}: assay: {experiment.name} was on line {first_line[key]} already; keep one row for each"
                )
    if problems:
        raise SheetError("\n".join(problems))
    return list(experiments.values())


def _check_header(header: Sequence[str]) -> list[str]:
    problems = [
        f"{name or '(empty)'}: unknown column; known are {', '.join(COLUMNS)}" for name in header if name not in COLUMNS
    ]
    problems += [f"{name}: column given twice; keep one" for name in COLUMNS if header.count(name) > 1]
    problems += [
        f"{name}: column not there; add it to the header" for name in ("biosample", "assay") if name not in header
    ]
    return problems


def _parse_row(cells: dict[str, str], folder: Path, where: str) -> tuple[list[Experiment], list[str]]:
    """Return the experiments of one row (itself, and its control when it names one) and what is wrong with it."""
    known = {name: cell for name, cell in cells.items() if cell not in _NOT_KNOWN}
    problems = [f"{where}: {name}: is empty; name the {name}" for name in ("biosample", "assay") if name not in known]
    for name in ("biosample", "assay"):
        given = known.get(name, "")
        if given.startswith(".") or any(letter in "/\\" or not letter.isprintable() for letter in given):
            fact = "holds a slash, a backslash or a control character, or starts with a dot"
            problems.append(f"{where}: {name}: {given!r} {fact}; choose another name")
    values: dict[str, float | str | None] = {}
    for column, parse in _PARSERS.items():
        if column in known:
            try:
                values[column] = parse(known[column])
            except ValueError as error:
                problems.append(f"{where}: {column}: {error}; {_REMEDIES[column]}")
    values["platform"] = parse_platform(known["platform"]) if "platform" in known else None
    md5sums = {}
    for name, column in zip(FILE_COLUMNS, ("md5", "signal_md5", "peaks_md5"), strict=True):
        if column in known:
            md5sums[name] = known[column].lower()
            if not _MD5.match(md5sums[name]):
                problems.append(f"{where}: {column}: {known[column]!r} is not an MD5 sum; give 32 hex digits or NA")
            elif name not in known:
                problems.append(f"{where}: {column}: given without {name}; name the file or write NA")
    if "split" in known and known["split"].lower() not in _SPLIT_SPELLINGS:
        problems.append(f"{where}: split: {known['split']!r} is no split; give {', '.join(SPLITS)} or NA")
    if problems:
        return [], problems
    assay = CONTROL if known["assay"].lower() in _CONTROL_NAMES else known["assay"]
    files = {name: _locate(known[name], folder) for name in ("file", "signal", "peaks") if name in known}
    covariates = Covariates(**values)  # type: ignore[arg-type]
    remark = None
    if "platform" in known and covariates.platform is None:
        remark = f"{where}: platform: {known['platform']!r} is not in the vocabulary; taken as not known"
    experiments = [
        Experiment(
            known["biosample"], assay, covariates=covariates, donor=known.get("donor"), tissue=known.get("tissue"),
            split=_SPLIT_SPELLINGS.get(known.get("split", "").lower()), md5sums=md5sums, remark=remark, **files,
        )
    ]  # fmt: skip
    if "control" in known:
        if assay == CONTROL:
            return [], [f"{where}: control: a control has no control; write NA"]
        experiments.append(Experiment(known["biosample"], CONTROL, file=_locate(known["control"], folder)))
    return experiments, []


def _locate(name: str, folder: Path) -> Path:
    try:
        path = Path(name).expanduser()
        return path if path.is_absolute() or path.exists() or not (folder / path).exists() else folder / path
    except (OSError, RuntimeError, ValueError):  # no such home folder, a name too long: told when it is opened
        return Path(name)


def match_reads(experiments: Sequence[Experiment], reads: Sequence[Path], *, sheet: Path) -> list[Experiment]:
    """Return the experiments of the files given on the command line, followed by the controls of their biosamples.

    A file is matched to its row by path, then by base name; a sheet with one experiment (beside its control) needs
    no `file` column. Without files, every experiment of the sheet is returned.

    Raises
    ------
    SheetError
        A file matches no row or several.
    """
    if not reads:
        unnamed = [row.name for row in experiments if not any(getattr(row, name) for name in FILE_COLUMNS)]
        if unnamed:
            raise SheetError(f"{sheet}: file: not given for {unnamed[0]}; name its reads there or on the command line")
        return list(experiments)
    targets = [experiment for experiment in experiments if not experiment.is_control]
    chosen: list[Experiment] = []
    for path in reads:
        matches = [row for row in experiments if row.file is not None and _same_file(row.file, path)]
        if not matches:
            matches = [row for row in experiments if row.file is not None and row.file.name == path.name]
        if not matches and len(reads) == 1 and len(targets) == 1 and targets[0].file is None:
            matches = targets
        if len(matches) != 1:
            fact = f"matches {len(matches)} rows" if matches else "matches no row"
            raise SheetError(f"{sheet}: file: {path} {fact}; name it in the file column of one row")
        chosen.append(replace(matches[0], file=path))
    if len({experiment.name for experiment in chosen}) < len(chosen):
        raise SheetError(f"{sheet}: file: one row matches two of the files given; give each file once")
    biosamples = {experiment.biosample for experiment in chosen}
    controls = [
        row
        for row in experiments
        if row.is_control and row.biosample in biosamples and row.file is not None and row not in chosen
    ]
    return chosen + [row for row in controls if row.name not in {experiment.name for experiment in chosen}]


def _same_file(one: Path, other: Path) -> bool:
    return one == other or (one.exists() and other.exists() and one.samefile(other))


def encode(covariates: Iterable[Covariates | None]) -> NDArray[np.float32]:
    """Return covariates as an array of shape (4, A) in the order of `FIELDS`.

    depth is log2 of reads per Gb of genome, read length is log2 of bp (NaN where not known); run type and platform are
    ids in `RUN_TYPES` and `PLATFORMS`. A missing experiment (`None`) is NaN in the first two rows and `MISSING` in the
    others.
    """
    columns = []
    for item in covariates:
        if item is None:
            columns.append((math.nan, math.nan, MISSING, MISSING))
            continue
        columns.append(
            (
                depth_density(item),
                math.log2(item.read_length) if item.read_length else math.nan,
                RUN_TYPES.index(item.run_type) if item.run_type else UNKNOWN,
                PLATFORMS.index(item.platform) if item.platform else UNKNOWN,
            )
        )
    return np.array(columns, dtype=np.float32).reshape(-1, len(FIELDS)).T


def depth_density(covariates: Covariates) -> float:
    """Return log2 of reads per Gb of the genome they were counted over; NaN when either is not known."""
    if not covariates.depth or not covariates.span_bp:
        return math.nan
    return math.log2(covariates.depth / covariates.span_bp * GB)
