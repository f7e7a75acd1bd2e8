"""Which experiments and chromosomes a model is trained, validated and tested on, and what must not lie on two sides.

A model that has met a donor, a cell type or a chromosome in training may recall it instead of predicting it: its test
scores then say little about new samples.
"""

import csv
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from candi_cli.covariates import SPLITS, Experiment
from candi_cli.errors import GenomeError, RequestError, SheetError

Split = dict[tuple[str, str], str]
"""(biosample, assay) -> one of `SPLITS`."""

LINKS = ("term", "donor", "tissue")
CHALLENGE_TABLE = "EIC_experiments.csv"
_CHALLENGE_COLUMNS = ("data_type", "cell_type_id", "cell_type", "mark/assay")
_CHALLENGE_SPLITS = {"training_data": "train", "validation_data": "validation", "blind_data": "test"}
_CHALLENGE_PREFIXES = {"train": "T_", "validation": "V_", "test": "B_"}
_MERGED = re.compile(r"_(?:grp\d+_rep\d+|nonrep)$")


class ChallengeCell(NamedTuple):
    """The biosamples of one cell type: the inputs, and the targets of validation and of the blind test, if any."""

    training: str
    validation: str | None
    test: str | None


class Challenge(NamedTuple):
    """The split of the ENCODE Imputation Challenge: assays of one cell type lie on different sides by design.

    Attributes
    ----------
    splits : (biosample, assay) -> split; biosamples are named `T_`, `V_` or `B_` and the cell type
    cells : cell type, as its training data name it -> its biosamples
    """

    splits: Split
    cells: dict[str, ChallengeCell]


def read_challenge_split(path: Path) -> Challenge:
    """Read the official split of the ENCODE Imputation Challenge and the pairing of its T_, V_ and B_ biosamples.

    Cell types are paired by `cell_type_id` and not by name, which guards against a target that loses its inputs: the
    blind data of `BMEC` belong to the training data of `brain_microvascular_endothelial_cell`.

    Parameters
    ----------
    path : `EIC_experiments.csv` of the challenge, or the folder that it is in

    Raises
    ------
    SheetError
        With one line for each row that does not fit and each cell type without training data.
    """
    path = path / CHALLENGE_TABLE if path.is_dir() else path
    splits: Split = {}
    biosamples: dict[str, dict[str, str]] = defaultdict(dict)  # cell type id -> split -> biosample
    first_line: dict[tuple[str, str], int] = {}
    problems = []
    for number, row in _read_rows(path):
        cell, assay, split = row["cell_type_id"], row["mark/assay"], _CHALLENGE_SPLITS.get(row["data_type"])
        if split is None or not all(row.values()):
            problems.append(f"{path}:{number}: not a data type, a cell type and an assay; mend the row")
        elif (cell, assay) in first_line:
            problems.append(f"{path}:{number}: {assay} of {cell} was on line {first_line[cell, assay]}; keep one row")
        else:
            first_line[cell, assay] = number
            biosample = _CHALLENGE_PREFIXES[split] + row["cell_type"]
            splits[biosample, assay] = split
            if biosamples[cell].setdefault(split, biosample) != biosample:
                problems.append(f"{path}:{number}: {cell} is {biosamples[cell][split]} and {biosample}; keep one name")
    for cell, sides in biosamples.items():
        if "train" not in sides:
            problems.append(f"{path}: {cell} has no training data, so that its targets have no inputs; add their rows")
    if not splits and not problems:
        problems.append(f"{path}: lists no experiment; give {CHALLENGE_TABLE} of the challenge")
    if problems:
        raise SheetError("\n".join(problems))
    trios = [ChallengeCell(sides["train"], sides.get("validation"), sides.get("test")) for sides in biosamples.values()]
    return Challenge(splits, {trio.training.removeprefix(_CHALLENGE_PREFIXES["train"]): trio for trio in trios})


def make_split(
    experiments: Sequence[Experiment],
    *,
    fractions: tuple[float, float],
    by: Sequence[str] = LINKS,
    seed: int = 0,
) -> Split:
    """Split experiments so that those linked by a biosample, a merged cell type, a donor or a tissue stay on one side.

    Links chain: two donors who gave one tissue go together, with all else that either gave. This guards against
    scoring a model on samples that it has met under another name. The order of the input does not matter. A group is
    never divided, so that no side exceeds its fraction by more than the largest group.

    Parameters
    ----------
    fractions : of the experiments (controls go with their biosample) for validation and for test
    by : which of `LINKS` to heed; a biosample is never divided

    Raises
    ------
    RequestError
        The fractions leave nothing to train on, or a link is unknown.
    SheetError
        The experiments hang together in fewer groups than there are sides to fill.
    """
    _check_links(by)
    if not (min(fractions) >= 0 and sum(fractions) < 1):
        raise RequestError(f"fractions {fractions[0]:g} and {fractions[1]:g}: give two from 0 on with a sum below 1")
    wished = dict(zip(SPLITS, (1 - sum(fractions), *fractions), strict=True))
    wished = {split: fraction for split, fraction in wished.items() if fraction > 0}
    sizes = {biosamples: n for biosamples, n in _group_sizes(experiments, by).items() if n}
    if len(sizes) < len(wished):
        raise SheetError(
            f"{sum(sizes.values())} experiments hang together in {len(sizes)} group(s) by "
            f"{', '.join(('biosample', *by))}, too few for {', '.join(wished)}; "
            "ask for one side only (such as 0.2,0), or add samples"
        )
    groups = sorted(sizes, key=lambda biosamples: (-sizes[biosamples], biosamples))
    sides = _fill([sizes[biosamples] for biosamples in groups], wished, np.random.default_rng(seed))
    side_of = {name: side for biosamples, side in zip(groups, sides, strict=True) for name in biosamples}
    return {(e.biosample, e.assay): side_of.get(e.biosample, SPLITS[0]) for e in experiments}


def chromosome_split(
    chromsizes: Mapping[str, int], *, test: Sequence[str], validation: Sequence[str] = ()
) -> dict[str, list[str]]:
    """Return the chromosomes of each split in genome order; those named for neither are trained on.

    Guards against a misspelt test chromosome, which would be trained on.

    Raises
    ------
    GenomeError
        A chromosome is unknown or named for both, or none is left to train on.
    """
    for chrom in (*validation, *test):
        if chrom not in chromsizes:
            raise GenomeError(f"chromosome {chrom}: not in this genome; write its name as the genome does")
        if chrom in validation and chrom in test:
            raise GenomeError(f"chromosome {chrom}: named for validation and for test; keep one of them")
    sides = {
        chrom: "test" if chrom in test else "validation" if chrom in validation else "train" for chrom in chromsizes
    }
    chroms = {split: [chrom for chrom, side in sides.items() if side == split] for split in SPLITS}
    if not chroms["train"]:
        raise GenomeError("no chromosome is left to train on; hold out fewer")
    return chroms


def check_split(
    experiments: Sequence[Experiment],
    splits: Mapping[tuple[str, str], str],
    *,
    by: Sequence[str] = LINKS,
    challenge: Challenge | None = None,
    chroms: Mapping[str, Sequence[str]] | None = None,
) -> None:
    """Refuse a split that lets a model be scored on what it was trained on.

    Guards against a donor, a tissue or a merged cell type (`<term>_grp1_rep1`, `<term>_grp1_rep2` and `<term>_nonrep`
    are one) on two sides, against a divided biosample, and against a chromosome on two sides. Controls are inputs
    only and may lie anywhere.

    Parameters
    ----------
    splits : (biosample, assay) -> one of `SPLITS`
    by : which of `LINKS` to heed
    challenge : its pairing is a declared design: the assays of one of its cell types may lie on different sides, but
        one assay may not lie on two
    chroms : the chromosomes of each split, where chromosomes are held out too

    Raises
    ------
    SheetError
        With one line for each leak and for each experiment without a split.
    """
    _check_links(by)
    cell_of = {name: cell for cell, trio in (challenge.cells if challenge else {}).items() for name in trio if name}
    problems = []
    members: dict[tuple[str, str], list[Experiment]] = defaultdict(list)
    for experiment in experiments:
        if experiment.is_control:
            continue
        if splits.get((experiment.biosample, experiment.assay)) not in SPLITS:
            problems.append(f"{experiment.name}: has no split; give it one of {', '.join(SPLITS)}")
            continue
        for key in _links(experiment, by):
            members[key].append(experiment)
        if experiment.biosample in cell_of:
            members["assay", f"{experiment.assay} of cell type {cell_of[experiment.biosample]}"].append(experiment)
    for (link, name), linked in sorted(members.items()):
        cells = {cell_of.get(experiment.biosample) for experiment in linked}
        if link == "assay" or len(cells) > 1 or None in cells:  # else it is the challenge's design
            examples = {splits[e.biosample, e.assay]: e.name for e in reversed(linked)}
            problems += _two_sides(f"{link} {name}", examples)
    for chrom in sorted({chrom for names in (chroms or {}).values() for chrom in names}):
        holding = {split: chrom for split, names in (chroms or {}).items() if chrom in names}
        problems += _two_sides("chromosome", holding)
    if problems:
        raise SheetError("\n".join(problems))


def merged_term(biosample: str) -> str:
    """Return the term of a merged biosample: `HeLa_S3` for `HeLa_S3_grp1_rep2`, `HeLa_S3_nonrep` and `HeLa-S3`."""
    return re.sub(r"[\s-]", "_", _MERGED.sub("", biosample))


def _read_rows(path: Path) -> list[tuple[int, dict[str, str]]]:
    """Return the line number and the columns of interest of each row of the challenge's table."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as handle:
            reader = csv.DictReader(handle)
            header = reader.fieldnames or []
            missing = [name for name in _CHALLENGE_COLUMNS if name not in header]
            if missing:
                raise SheetError(f"{path}: no column {', '.join(missing)}; give {CHALLENGE_TABLE} of the challenge")
            rows = ((reader.line_num, row) for row in reader)
            return [(line, {name: (row[name] or "").strip() for name in _CHALLENGE_COLUMNS}) for line, row in rows]
    except OSError as error:
        raise SheetError(f"{path}: {error.strerror}; give {CHALLENGE_TABLE} of the challenge") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise SheetError(f"{path}: not a text file; give {CHALLENGE_TABLE} of the challenge") from error


def _check_links(by: Sequence[str]) -> None:
    for link in by:
        if link not in LINKS:
            raise RequestError(f"split by {link}: no such link; choose from {', '.join(LINKS)}")


def _links(experiment: Experiment, by: Sequence[str]) -> list[tuple[str, str]]:
    """Return what ties an experiment to others; capitals and outer spaces do not make another donor or tissue."""
    values = {"term": merged_term(experiment.biosample), "donor": experiment.donor, "tissue": experiment.tissue}
    named = [(link, value.strip().casefold()) for link, value in values.items() if link in by and value]
    return named if "term" in by else [("biosample", experiment.biosample), *named]


def _group_sizes(experiments: Sequence[Experiment], by: Sequence[str]) -> dict[tuple[str, ...], int]:
    """Return the biosamples of each group of linked experiments, and how many experiments it has besides controls."""
    parent: dict[tuple[str, str], tuple[str, str]] = {}

    def root(key: tuple[str, str]) -> tuple[str, str]:
        while parent.setdefault(key, key) != key:
            parent[key] = parent[parent[key]]
            key = parent[key]
        return key

    for experiment in experiments:
        first, *others = _links(experiment, by)
        for other in others:
            parent[root(other)] = root(first)
    groups: dict[tuple[str, str], list[Experiment]] = defaultdict(list)
    for experiment in experiments:
        groups[root(_links(experiment, by)[0])].append(experiment)
    return {
        tuple(sorted({experiment.biosample for experiment in group})): sum(not e.is_control for e in group)
        for group in groups.values()
    }


def _fill(sizes: Sequence[int], wished: Mapping[str, float], rng: np.random.Generator) -> list[str]:
    """Return a side for each group (the largest first), drawn by the room left; none of the sides stays empty."""
    room = {split: fraction * sum(sizes) for split, fraction in wished.items()}
    empty = list(wished)
    sides = []
    for place, size in enumerate(sizes):
        open_sides = empty if len(sizes) - place == len(empty) else list(wished)
        fitting = [split for split in open_sides if room[split] >= size]
        if fitting:
            weights = np.array([room[split] for split in fitting])
            side = fitting[int(rng.choice(len(fitting), p=weights / weights.sum()))]
        else:
            side = max(open_sides, key=lambda split: room[split])
        room[side] -= size
        empty = [split for split in empty if split != side]
        sides.append(side)
    return sides


def _two_sides(what: str, examples: Mapping[str, str]) -> list[str]:
    """Return a line if something lies in more than one split, with an example from each."""
    if len(examples) < 2:
        return []
    named = [f"{split} ({examples[split]})" for split in SPLITS if split in examples]
    return [f"{what}: lies on {len(named)} sides, {' and '.join(named)}; move it to one"]
