"""The ENCODE portal's metadata.tsv, as downloaded, to candidates for the sample sheet.

The table has one row for each file. Of each experiment one analysis is used: the newest that has alignments, of one
assembly, released rather than archived. A candidate is an experiment on one biosample (a biological replicate) with its
reads, signal and peaks. Its platform, run type and read length stand on the FASTQ files that its reads derive from.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from candi_cli.biosamples import Candidate
from candi_cli.covariates import CONTROL
from candi_cli.encode.choice import choose
from candi_cli.encode.table import TREATMENTS, PortalFile, read_files, read_header
from candi_cli.errors import SheetError

# as downloads are named, and as people rename them
_SUFFIXES = {"file": (".bam",), "signal": (".bigWig", ".bigwig", ".bw"), "peaks": (".bed.gz", ".bed")}
_PREFERRED_ASSEMBLY = "GRCh38"
_UCSC_NAMES = {"hg38": "GRCh38", "mm39": "GRCm39"}


class Metadata(NamedTuple):
    """What a metadata.tsv offers: candidates, and lines that tell what was chosen and what was left out."""

    candidates: list[Candidate]
    remarks: list[str]


def is_portal_metadata(path: Path) -> bool:
    """Whether a file is a metadata.tsv of the ENCODE portal, by its header line and not by its name."""
    try:
        with path.open(encoding="utf-8-sig") as handle:
            header = read_header(handle.readline(100_000).split("\t"))
    except (OSError, UnicodeDecodeError):
        return False
    return "File accession" in header and "Experiment accession" in header


def read_metadata(path: Path, *, assembly: str | None = None, folder: Path | None = None) -> Metadata:
    """Read the portal's table and choose the files of each experiment.

    Parameters
    ----------
    assembly : the genome assembly; default: GRCh38, or the most frequent one where there is none of it
    folder : where the files lie or will lie; default: beside the table. Once one of them is there, those that are not
        are left out; before that, they are named as the portal names downloads.

    Raises
    ------
    SheetError
        With one line `path:LINE: COLUMN: fact; remedy` for every problem of the table.
    """
    files, other_assays = read_files(path)
    files, remark = _of_assembly(files, assembly, path)
    folder = path.parent if folder is None else folder
    try:
        present = {item.name for item in folder.iterdir()}
    except OSError as error:
        raise SheetError(f"{folder}: {error.strerror}; give the folder of the files with --folder") from error
    paths = {item.accession: folder / _file_name(item, present) for item in files if item.layer}
    candidates = choose(files, paths, path)
    remarks = [remark]
    downloaded = [item for item in files if item.layer is None or paths[item.accession].name in present]
    if any(item.layer for item in downloaded):
        expected, candidates = candidates, choose(downloaded, paths, path)
        if absent := _count_layers(expected) - _count_layers(candidates):
            remarks.append(f"not in {folder} and left out: {_listed(absent)}")
    else:
        remarks.append(f"none of the files is in {folder} yet; they are named as the portal names downloads")
    if other_assays:
        remarks.append(f"experiments of other assays, left out: {_listed(other_assays)}")
    return Metadata(candidates, [_describe(candidates), *remarks, *_cautions(files, candidates)])


def _of_assembly(files: Sequence[PortalFile], assembly: str | None, path: Path) -> tuple[list[PortalFile], str]:
    """Return the files of one assembly (and those of none, such as FASTQ), and a line that tells which it is."""
    found = Counter(item["File assembly"] for item in files if item.layer)
    if not found:
        raise SheetError(
            f"{path}: Output type: no alignments (bam), signal p-value (bigWig) or peaks (bed) of ChIP-seq, ATAC-seq or"
            " DNase-seq; choose such files on the portal and download the table again"
        )
    if assembly is None:
        chosen = min(found, key=lambda name: (name != _PREFERRED_ASSEMBLY, -found[name], name))
    else:
        chosen = _UCSC_NAMES.get(assembly, assembly)
    if chosen not in found:
        raise SheetError(f"{path}: File assembly: no file of {chosen}; give one of {_listed(found)} with --assembly")
    others = Counter({name or "no assembly": n for name, n in found.items() if name != chosen})
    remark = f"assembly {chosen}" + (f"; left out files of others: {_listed(others)}" if others else "")
    return [item for item in files if item.layer is None or item["File assembly"] == chosen], remark


def _file_name(item: PortalFile, present: Collection[str]) -> str:
    names = [f"{item.accession}{suffix}" for suffix in _SUFFIXES[item.layer or ""]]
    return next((name for name in names if name in present), names[0])


def _describe(candidates: Sequence[Candidate]) -> str:
    """Return a line on what was chosen."""
    controls = {item.experiment for item in candidates if item.assay == CONTROL}
    counts = {
        "experiments": len({item.experiment for item in candidates} - controls),
        "controls": len(controls),
        "biosamples": len({item.biosample for item in candidates}),
        "terms": len({item.term for item in candidates}),
    }
    return f"chosen: {', '.join(f'{name} ({n:,})' for name, n in counts.items())}; {_listed(_count_layers(candidates))}"


def _cautions(files: Sequence[PortalFile], candidates: Sequence[Candidate]) -> list[str]:
    """Return lines on what a user may want to mend or to know."""
    unknown = Counter(
        name.replace("_", " ")
        for item in candidates
        for name in ("platform", "run_type", "read_length")
        if getattr(item.covariates, name) is None
    )
    treated = {item.experiment for item in files if item.layer and any(item[header] for header in TREATMENTS)}
    lines = []
    if unknown:
        lines.append(f"not known from the table: {_listed(unknown)}; binning measures what the reads show")
    if not any(item["Biosample accession"] for item in files):
        lines.append("the table has no biosample accessions; donor and biological replicate stand for them")
    if treated:
        lines.append(f"biosamples of experiments ({len(treated):,}) are treated or genetically modified; they are kept")
    return lines


def _count_layers(candidates: Iterable[Candidate]) -> Counter[str]:
    titles = {"file": "alignments", "signal": "signal p-value", "peaks": "peaks"}
    return Counter(titles[layer] for item in candidates for layer in item.files)


def _listed(counts: Mapping[str, int]) -> str:
    ordered = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    return ", ".join(f"{name} ({n:,})" for name, n in ordered)
