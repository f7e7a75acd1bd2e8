"""How many cell types do our merging rules make of the published table, beside the paper's 361 and 6?

Run it as `python tests/benchmarks/merged_cell_types.py [--data FOLDER]`.
"""

import argparse
import csv
import re
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from candi_cli.biosamples import Candidate, CellType, Summary, merge, summarise
from candi_cli.covariates import Covariates, parse_platform

ROOT = Path(__file__).parents[2]
PAPER = (361, 6)
NOT_BINNED = frozenset({"RNA-seq", "CAGE"})
_SUFFIX = re.compile(r"_(grp\d+_rep\d+|nonrep)$")
_REPLICATE = re.compile(r"_rep\d+$")
LIMITS = """
What the table can show and what it cannot:
- It is the outcome of a merging, not its input: candidates that were not chosen, and cell types that were dropped for
  having fewer than 4 assays, are not in it. Terms without such a cell type cannot come back.
- It has no donors. Biosamples that one experiment was done on are taken for isogenic replicates, and the 'nonrep' cell
  types are chosen by biosample accession and lab alone. Term names are the names less _grpN_repM and _nonrep.
- It holds files in more than one cell type: {repeated} of its {rows:,} rows repeat a file. In {twins} of its {groups}
  groups the replicates hold the very same files of some assays. Our rules give a file to one cell type only, so they
  make fewer replicates of it.
- It has no control experiments, so the choice of controls cannot be compared."""


class Table(NamedTuple):
    """A table of merged cell types: its candidates, each once, and the candidates of each cell type in it."""

    candidates: list[Candidate]
    cell_types: dict[str, list[Candidate]]


def read_table(path: Path) -> Table:
    """Read a table of merged cell types."""
    candidates: dict[tuple[str, str], Candidate] = {}
    cell_types: dict[str, list[Candidate]] = {}
    with path.open(encoding="utf-8", newline="") as handle:
        for row in csv.DictReader(handle):
            covariates = Covariates(
                depth=float(row["depth"]) if row["depth"] else None,
                read_length=float(row["read_length"]) if row["read_length"] else None,
                run_type=row["run_type"] or None,
                platform=parse_platform(row["sequencing_platform"]),
            )
            candidate = Candidate(
                term=_SUFFIX.sub("", row["biosample_name"]),
                assay=row["assay_name"],
                experiment=row["exp_accession"],
                biosample=row["bios_accession"],
                files={"file": Path(f"{row['file_accession']}.bam")},
                covariates=covariates,
                lab=row["lab"] or None,
            )
            candidates[candidate.experiment, candidate.biosample] = candidate
            cell_types.setdefault(row["biosample_name"], []).append(candidate)
    return Table(list(candidates.values()), cell_types)


def published_summary(table: Table) -> Summary:
    """Summarise the table as it stands."""
    return summarise([CellType(name, rows, None, "_grp" in name) for name, rows in table.cell_types.items()])


def twin_groups(table: Table) -> tuple[int, int]:
    """Return how many groups have replicates that hold the same file, and how many groups there are."""
    groups: dict[str, list[Candidate]] = {}
    for name, rows in table.cell_types.items():
        if "_grp" in name:
            groups.setdefault(_REPLICATE.sub("", name), []).extend(rows)
    twins = [rows for rows in groups.values() if len({row.files["file"] for row in rows}) < len(rows)]
    return len(twins), len(groups)


def merged_summary(candidates: Collection[Candidate], *, min_assays: int) -> Summary:
    """Summarise what our rules make of the candidates."""
    return summarise(merge(candidates, min_assays=min_assays))


def report(path: Path) -> str:
    """Return the table of counts, and what it can and cannot show."""
    table = read_table(path)
    candidates = table.candidates
    binned = [item for item in candidates if item.assay not in NOT_BINNED]
    n_rows = sum(map(len, table.cell_types.values()))
    n_twins, n_groups = twin_groups(table)
    rows = [
        ("the published table as it stands", published_summary(table)),
        ("our rules on its candidates, all kept", merged_summary(candidates, min_assays=1)),
        ("  with at least 3 assays", merged_summary(candidates, min_assays=3)),
        ("  with at least 4 assays", merged_summary(candidates, min_assays=4)),
        ("  with at least 3, without RNA-seq, CAGE", merged_summary(binned, min_assays=3)),
    ]
    lines = [f"{path.name}: {n_rows:,} rows, {len(candidates):,} different experiments on biosamples"]
    lines.append(f"{'':<42} cell types  grp/rep  nonrep  experiments  median  min  max")
    lines.append(f"{'the paper':<42} {PAPER[0]:>10} {'':>8} {'':>7} {'':>12} {PAPER[1]:>7}")
    for name, found in rows:
        lines.append(
            f"{name:<42} {found.n_cell_types:>10} {found.n_replicates:>8} {found.n_cell_types - found.n_replicates:>7}"
            f" {found.n_experiments:>12} {found.median_assays:>7g} {found.min_assays:>4} {found.max_assays:>4}"
        )
    limits = LIMITS.format(repeated=n_rows - len(candidates), rows=n_rows, twins=n_twins, groups=n_groups)
    return "\n".join(lines) + limits


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data", metavar="FOLDER")
    print(report(parser.parse_args().data / "encode_metadata" / "merged_metadata.csv"))
