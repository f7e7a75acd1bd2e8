"""From experiments on biosamples to cell types: which assays belong together, and which control goes with them.

The merging is that of the paper ("Extended ENCODE Dataset"). Candidates are grouped by biosample term name. Biosamples
of one donor that at least `MIN_SHARED` assays were done on side by side (isogenic replicates) become
`<term>_grpN_repM`, with the shared assays only. What remains of the term becomes one `<term>_nonrep`, which takes for
each assay the candidate that agrees best with the others in biosample, donor and lab.
"""

import os
import re
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import NamedTuple, TextIO

from candi_cli.covariates import COLUMNS, CONTROL, FIELDS, Covariates, Experiment
from candi_cli.errors import SheetError

MIN_SHARED = 3
WEIGHTS = {"biosample": 20, "donor": 10, "lab": 5}
WITHOUT_CONTROL = frozenset({"ATAC-seq", "DNase-seq"})
_NOT_IN_NAMES = re.compile(r"[\s/-]")
_MD5_COLUMNS = {"md5": "file", "signal_md5": "signal", "peaks_md5": "peaks"}


@dataclass(frozen=True)
class Candidate:
    """One experiment on one biosample, with its files: what may become a row of the sheet.

    Attributes
    ----------
    term : the biosample term name, such as `K562` or `cardiac muscle cell`
    assay : the assay's name, or `CONTROL`
    experiment, biosample : accessions; together they name the candidate
    files, md5sums : paths and MD5 sums by column of the sheet (`file`, `signal`, `peaks`)
    controls : accessions of the control experiments that it names as its own
    remark : something about it that a user should be told
    """

    term: str
    assay: str
    experiment: str
    biosample: str
    files: Mapping[str, Path] = field(default_factory=dict)
    md5sums: Mapping[str, str] = field(default_factory=dict)
    covariates: Covariates = field(default_factory=Covariates)
    donor: str | None = None
    lab: str | None = None
    controls: frozenset[str] = frozenset()
    remark: str | None = None


class CellType(NamedTuple):
    """The experiments that go under one biosample name of the sheet, one for each assay, and their control."""

    name: str
    members: list[Candidate]
    control: Candidate | None
    is_replicate: bool


class Summary(NamedTuple):
    """How many cell types there are, and how many assays (controls are none) each has."""

    n_cell_types: int
    n_replicates: int
    n_experiments: int
    n_with_control: int
    min_assays: int
    median_assays: float
    max_assays: int

    def __str__(self) -> str:
        return (
            f"{self.n_cell_types:,} biosamples ({self.n_replicates:,} replicates in groups,"
            f" {self.n_with_control:,} with a control) of {self.n_experiments:,} experiments;"
            f" assays in each: median {self.median_assays:g}, {self.min_assays} to {self.max_assays}"
        )


@cache
def clean_name(term: str) -> str:
    """Return a term name as it stands in names of cell types: spaces, hyphens and slashes are underscores."""
    return _NOT_IN_NAMES.sub("_", term.strip()).lstrip(".")


def merge(candidates: Iterable[Candidate], *, min_assays: int = 1) -> list[CellType]:
    """Merge candidates into cell types by the rules above, leaving out those with fewer than `min_assays` assays.

    The result does not depend on the order of the candidates.
    """
    assays, controls = _sorted(candidates)
    terms = defaultdict(list)
    for candidate in assays:
        terms[clean_name(candidate.term)].append(candidate)
    merged = []
    for term, pool in sorted(terms.items()):
        groups = replicate_groups(pool)
        for number, group in enumerate(groups, start=1):
            for replicate, members in enumerate(group, start=1):
                name = f"{term}_grp{number}_rep{replicate}"
                merged.append(CellType(name, members, choose_control(members, controls), True))
        grouped = {(member.experiment, member.biosample) for group in groups for members in group for member in members}
        rest = most_consistent(item for item in pool if (item.experiment, item.biosample) not in grouped)
        if rest:
            merged.append(CellType(f"{term}_nonrep", rest, choose_control(rest, controls), False))
    return [cell_type for cell_type in merged if len(cell_type.members) >= min_assays]


def separate(candidates: Iterable[Candidate], *, min_assays: int = 1) -> list[CellType]:
    """Keep every biosample by itself, as `<term>_<biosample>`, with one candidate for each of its assays."""
    assays, controls = _sorted(candidates)
    pools = defaultdict(list)
    for candidate in assays:
        pools[f"{clean_name(candidate.term)}_{candidate.biosample}"].append(candidate)
    chosen = {name: most_consistent(pool) for name, pool in sorted(pools.items())}
    return [
        CellType(name, members, choose_control(members, controls), False)
        for name, members in chosen.items()
        if len(members) >= min_assays
    ]


def _sorted(candidates: Iterable[Candidate]) -> tuple[list[Candidate], list[Candidate]]:
    """Return assays and controls, each in an order of their own."""
    ordered = sorted(candidates, key=lambda item: (item.experiment, item.biosample, item.term, item.assay))
    return [item for item in ordered if item.assay != CONTROL], [item for item in ordered if item.assay == CONTROL]


def replicate_groups(pool: Sequence[Candidate]) -> list[list[list[Candidate]]]:
    """Return groups of isogenic replicates: for each group its replicates, for each replicate its candidates.

    Isogenic replicates are biosamples of one donor that one experiment was done on. The group with the most shared
    assays (then with the most replicates) is taken first, and its candidates leave the pool; and so on with the rest.
    """
    left: dict[str, dict[str, Candidate]] = defaultdict(dict)
    isogenic: dict[tuple[str, str | None], set[str]] = defaultdict(set)
    for item in pool:
        left[item.biosample][item.experiment] = item
        isogenic[item.experiment, item.donor].add(item.biosample)
    sets = {tuple(sorted(biosamples)) for biosamples in isogenic.values() if len(biosamples) > 1}
    groups: list[list[list[Candidate]]] = []
    while True:
        shared = {names: _shared(left, names) for names in sets}
        n_assays = {names: len({item.assay for item in items}) for names, items in shared.items()}
        sets = {names for names in sets if n_assays[names] >= MIN_SHARED}
        if not sets:
            return groups
        best = min(sets, key=lambda names: (-n_assays[names], -len(names), names))
        chosen = [item.experiment for item in most_consistent(shared[best])]
        groups.append([[left[name].pop(experiment) for experiment in chosen] for name in best])


def _shared(left: Mapping[str, Mapping[str, Candidate]], biosamples: Sequence[str]) -> list[Candidate]:
    """Return the first biosample's candidates of the experiments that are left for every one of the biosamples."""
    first, *others = (left[name] for name in biosamples)
    return [item for experiment, item in first.items() if all(experiment in other for other in others)]


def most_consistent(pool: Iterable[Candidate]) -> list[Candidate]:
    """Return one candidate for each assay: the one whose biosample, donor and lab serve the most assays of the pool.

    The score is 20 for each assay that its biosample has in the pool, 10 for each that its donor has and 5 for each
    that its lab has. Ties go to more files, then to the lower accession. An assay with one candidate keeps it.
    """
    pool = list(pool)
    n_assays = {
        name: Counter(value for value, _ in {(getattr(item, name), item.assay) for item in pool} if value is not None)
        for name in WEIGHTS
    }

    def order(item: Candidate) -> tuple[int, int, str, str]:
        score = sum(weight * n_assays[name][getattr(item, name)] for name, weight in WEIGHTS.items())
        return -score, -len(item.files), item.experiment, item.biosample

    best: dict[str, Candidate] = {}
    for item in sorted(pool, key=order):
        best.setdefault(item.assay, item)
    return [best[assay] for assay in sorted(best)]


def choose_control(members: Sequence[Candidate], controls: Iterable[Candidate]) -> Candidate | None:
    """Return the control of a cell type, or None where there is none or no ChIP-seq that needs one.

    The control that most ChIP-seq experiments name as theirs comes first, whatever its term. Else, and among equals, of
    the controls of the same term: that of the most experiments' biosample, then donor, then lab.
    """
    chip = [member for member in members if member.assay not in WITHOUT_CONTROL]
    terms = {clean_name(member.term) for member in chip}
    named = Counter(experiment for member in chip for experiment in member.controls)

    def order(control: Candidate) -> tuple[object, ...]:
        own = {name: getattr(control, name) for name in WEIGHTS}
        n_same = [sum(getattr(member, name) == value for member in chip) if value else 0 for name, value in own.items()]
        return (-named[control.experiment], *(-n for n in n_same), control.experiment, control.biosample)

    eligible = [item for item in controls if item.experiment in named or clean_name(item.term) in terms]
    return min(eligible, key=order, default=None)


def summarise(cell_types: Sequence[CellType]) -> Summary:
    """Count cell types, and the assays in each."""
    n_assays = [len(cell_type.members) for cell_type in cell_types] or [0]
    return Summary(
        len(cell_types),
        sum(cell_type.is_replicate for cell_type in cell_types),
        sum(n_assays),
        sum(cell_type.control is not None for cell_type in cell_types),
        min(n_assays),
        statistics.median(n_assays),
        max(n_assays),
    )


def to_experiments(cell_types: Iterable[CellType]) -> list[Experiment]:
    """Return the rows of the sheet: the experiments of every cell type, each followed by its control."""
    return [
        Experiment(
            cell_type.name,
            item.assay,
            file=item.files.get("file"),
            signal=item.files.get("signal"),
            peaks=item.files.get("peaks"),
            covariates=item.covariates,
            donor=item.donor,
            tissue=item.term,
            md5sums=item.md5sums,
            remark=item.remark,
        )
        for cell_type in cell_types
        for item in (*cell_type.members, cell_type.control)
        if item is not None
    ]


def write_sheet(experiments: Iterable[Experiment], handle: TextIO, *, folder: Path | None = None) -> None:
    """Write experiments as a sample sheet that `read_sheet` reads back.

    Relative paths are written as they are seen from `folder`, where the sheet will lie, or as they are.

    Raises
    ------
    SheetError
        A value holds a tab or a line break, which a sheet cannot hold.
    """
    handle.write("\t".join(COLUMNS) + "\n")
    for experiment in experiments:
        cells = [_cell(_value(experiment, column), folder) for column in COLUMNS]
        for column, cell in zip(COLUMNS, cells, strict=True):
            if any(character in cell for character in "\t\r\n"):
                raise SheetError(f"{experiment.name}: {column}: {cell!r} holds a tab or a line break; rename it")
        handle.write("\t".join(cells) + "\n")


def _value(experiment: Experiment, column: str) -> object:
    if column in _MD5_COLUMNS:
        return experiment.md5sums.get(_MD5_COLUMNS[column])
    return getattr(experiment.covariates if column in FIELDS else experiment, column, None)


def _cell(value: object, folder: Path | None) -> str:
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, Path) and folder is not None and not value.is_absolute():
        return os.path.relpath(value, folder)
    return "NA" if value is None else str(value)
