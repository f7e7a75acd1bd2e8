"""The portal's table of files: which rows a sheet can use, checked, each with its place in the sheet."""

import csv
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from candi_cli.biosamples import clean_name
from candi_cli.covariates import CONTROL, parse_read_length, parse_run_type
from candi_cli.errors import SheetError

_READS = ("alignments", "redacted alignments")
_SIGNAL = ("signal p-value",)
_PEAKS = (
    "idr thresholded peaks",
    "optimal idr thresholded peaks",
    "conservative idr thresholded peaks",
    "replicated peaks",
    "pseudoreplicated peaks",
    "pseudo-replicated peaks",
    "peaks",
)
# by file format: the column of the sheet, and the output types that it takes, the preferred first
_LAYERS = {
    "bam": ("file", _READS),
    "bigwig": ("signal", _SIGNAL),
    "bed narrowpeak": ("peaks", _PEAKS),
    "bed broadpeak": ("peaks", _PEAKS),
}
_NEEDED = (
    "File accession",
    "File format",
    "Output type",
    "File assembly",
    "Experiment accession",
    "Assay",
    "Experiment target",
    "Biosample term name",
)
_OPTIONAL = (
    "Biological replicate(s)",
    "Biosample accession",
    "Controlled by",
    "Derived from",
    "Donor(s)",
    "File analysis status",
    "File analysis title",
    "File format type",
    "File Status",
    "Lab",
    "Mapped read length",
    "md5sum",
    "Platform",
    "Read length",
    "Run type",
)
TREATMENTS = (
    "Biosample treatments",
    "Biosample treatments amount",
    "Biosample treatments duration",
    "Biosample genetic modifications methods",
    "Biosample genetic modifications targets",
)
# headers as they were, or may be, besides differences in capitals and punctuation
_OTHER_SPELLINGS = {
    "Assembly": "File assembly",
    "Biosample accessions": "Biosample accession",
    "Donor": "Donor(s)",
    "Analysis title": "File analysis title",
    "Analysis status": "File analysis status",
}
_OPEN_CHROMATIN = {"atac-seq": "ATAC-seq", "dnase-seq": "DNase-seq"}
_CHIP = frozenset({"chip-seq", "histone chip-seq", "tf chip-seq", "control chip-seq"})
_RENAMED = {"H2AZ1": "H2AFZ", "H3-3A": "H3F3A"}  # newer symbols of the genes of the same histones
_WITHDRAWN = frozenset({"revoked", "deleted", "replaced"})
_MD5 = re.compile(r"[0-9a-f]{32}")
_ACCESSION = re.compile(r"\w[\w.-]*")


@dataclass(frozen=True)
class PortalFile:
    """One row of the table, of an assay that a sheet can hold.

    Attributes
    ----------
    cells : the row by column, in this module's spelling
    layer : the column of the sheet that it can go into; None for FASTQ files and what lies in between
    preference : the place of its format and output type among those of the layer
    """

    line: int
    accession: str
    experiment: str
    assay: str
    cells: Mapping[str, str]
    layer: str | None = None
    preference: int = 0
    run_type: str | None = None
    read_length: float | None = None

    def __getitem__(self, header: str) -> str:
        return self.cells.get(header, "")

    def accessions(self, header: str) -> list[str]:
        """Return the values of a cell such as `/files/ENCFF000AAA/, /files/ENCFF000AAB/`."""
        return split_values(self[header])

    @property
    def replicates(self) -> frozenset[str]:
        """The numbers of the biological replicates that it is of; several where they are pooled."""
        return frozenset(self.accessions("Biological replicate(s)"))


def read_files(path: Path) -> tuple[list[PortalFile], Counter[str]]:
    """Return the rows of assays that a sheet can hold, and how many experiments of each other assay there are."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as handle:
            rows = list(csv.reader(handle, delimiter="\t", quoting=csv.QUOTE_NONE))
    except OSError as error:
        raise SheetError(f"{path}: {error.strerror}; give the portal's metadata.tsv") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise SheetError(f"{path}: not a text file; give the portal's metadata.tsv") from error
    header = read_header(rows[0] if rows else [])
    if "File accession" not in header and "Experiment accession" not in header:
        raise SheetError(f"{path}:1: no metadata.tsv of the ENCODE portal; download the table from the portal again")
    problems = [
        f"{path}:1: {name}: column {'given twice' if name in header else 'not there'}; download the table again"
        for name in (*_NEEDED, *_OPTIONAL)
        if header.count(name) > 1 or (name in _NEEDED and name not in header)
    ]
    if problems:
        raise SheetError("\n".join(problems))
    return _read_rows(rows[1:], header, path)


def _read_rows(
    rows: Sequence[Sequence[str]], header: Sequence[str], path: Path
) -> tuple[list[PortalFile], Counter[str]]:
    problems: list[str] = []
    files: dict[str, PortalFile] = {}
    other_assays: dict[str, set[str]] = defaultdict(set)
    for line, row in enumerate(rows, start=2):
        where = f"{path}:{line}"
        if not any(row):
            continue
        if len(row) != len(header):
            problems.append(f"{where}: {len(row)} fields under {len(header)} columns; download the table again")
            continue
        cells = dict(zip(header, (cell.strip() for cell in row), strict=True))
        if (assay := _assay_name(cells["Assay"], cells["Experiment target"])) is None:
            other_assays[cells["Assay"]].add(cells["Experiment accession"])
            continue
        item, found = _parse_row(line, assay, cells)
        first = files.setdefault(item.accession, item)
        if first.cells != item.cells:
            found.append(f"File accession: {item.accession} was on line {first.line} already; keep one")
        problems += [f"{where}: {text}" for text in found]
    if problems:
        raise SheetError("\n".join(problems))
    return list(files.values()), Counter({assay: len(found) for assay, found in other_assays.items()})


def _parse_row(line: int, assay: str, cells: dict[str, str]) -> tuple[PortalFile, list[str]]:
    """Return a row as a file, and what is wrong with it."""
    item = PortalFile(line, cells["File accession"], cells["Experiment accession"], assay, cells, *_layer(cells))
    problems = [
        f"{name}: {item[name] or '(empty)'} is no accession; download the table again"
        for name in ("File accession", "Experiment accession")
        if not _ACCESSION.fullmatch(item[name])
    ]
    if item.layer and not clean_name(item["Biosample term name"]):
        problems.append("Biosample term name: is empty; name the cell type or tissue")
    if item.layer and not assay:
        problems.append(f"Experiment target: is empty for {item['Assay']}; name the target")
    if item["md5sum"] and not _MD5.fullmatch(item["md5sum"].lower()):
        problems.append(f"md5sum: {item['md5sum']!r} is not an MD5 sum; download the table again")
    run_type = read_length = None
    try:
        run_type = parse_run_type(item["Run type"]) if item["Run type"] else None
    except ValueError as error:
        problems.append(f"Run type: {error}; write single-ended, paired-ended or nothing")
    length = "Mapped read length" if item["Mapped read length"] else "Read length"
    try:
        read_length = parse_read_length(item[length]) if item[length] else None
    except ValueError as error:
        problems.append(f"{length}: {error}; write a number of bp or nothing")
    return replace(item, run_type=run_type, read_length=read_length), problems


def _assay_name(title: str, target: str) -> str | None:
    """Return an assay's name in the sheet, such as `H3K4me3` or `DNase-seq`; None for assays that it cannot hold."""
    title = title.lower()
    if title in _OPEN_CHROMATIN:
        return _OPEN_CHROMATIN[title]
    if title not in _CHIP:
        return None
    if title == "control chip-seq" or "control" in target.lower() or (title == "chip-seq" and not target):
        return CONTROL
    name = re.sub(r"-[a-z]+$", "", target).replace("/", "_")  # less the organism: H3K4me3-human
    return _RENAMED.get(name, name)


def _layer(cells: Mapping[str, str]) -> tuple[str | None, int]:
    """Return the sheet's column that a file can go into, if any, and how far down it is among the choices for it."""
    file_format = cells["File format"].lower()
    if file_format == "bed":
        file_format = f"bed {cells.get('File format type', '').lower()}"
    layer, outputs = _LAYERS.get(file_format, (None, ()))
    output = cells["Output type"].lower()
    if output not in outputs or cells.get("File Status", "").lower() in _WITHDRAWN:
        return None, 0
    return layer, outputs.index(output)


def split_values(cell: str) -> list[str]:
    """Return the comma-separated values of a cell, each without the path that the portal puts around accessions."""
    return [value.strip(" /").rpartition("/")[2] for value in cell.split(",") if value.strip(" /")]


def read_header(cells: Sequence[str]) -> list[str]:
    """Return the columns of a header line in this module's spelling; those that it does not use as they are."""
    known = {_plain(name): name for name in (*_NEEDED, *_OPTIONAL, *TREATMENTS)}
    header = [known.get(_plain(cell), cell.strip()) for cell in cells]
    other = {_plain(name): newer for name, newer in _OTHER_SPELLINGS.items() if newer not in header}
    return [other.get(_plain(name), name) for name in header]


def _plain(header: str) -> str:
    return re.sub(r"[^a-z0-9]", "", header.lower())
