"""Work that is done once: each result is a file, written beside and renamed, and read where it is there already."""

import csv
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Arrays = dict[str, NDArray]


class Row(NamedTuple):
    """One score.

    Attributes
    ----------
    track : what errors are clustered by, such as `E003/H3K4me3`
    group : tracks that are shown together, such as a mark
    seed : of the training, or of what is random in the method; `-` where nothing is
    error : standard error over blocks of the genome, NaN where none was taken
    """

    track: str
    group: str
    method: str
    seed: str
    score: str
    value: float
    error: float = float("nan")


@contextmanager
def making(path: Path) -> Iterator[Path]:
    """Yield a path beside one that is to be made, and rename it when it is complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f"making.{path.name}")
    yield beside
    beside.rename(path)


def kept_arrays(path: Path, compute: Callable[[], Arrays]) -> Arrays:
    """Return arrays from a .npz file, computed if it is not there."""
    if not path.exists():
        arrays = compute()
        with making(path) as beside:
            np.savez(beside, **arrays)
    with np.load(path) as found:
        return {name: found[name] for name in found.files}


def kept_rows(path: Path, compute: Callable[[], Iterable[Row]]) -> list[Row]:
    """Return scores from a TSV file, computed if it is not there."""
    if not path.exists():
        rows = list(compute())
        with making(path) as beside:
            write_rows(beside, rows)
    with path.open(newline="") as handle:
        return [
            Row(**{**row, "value": float(row["value"]), "error": float(row["error"])})
            for row in csv.DictReader(handle, delimiter="\t")
        ]


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    """Write scores, one on a line."""
    with path.open("w", newline="") as handle:
        writer = csv.writer(handle, delimiter="\t", lineterminator="\n")
        writer.writerow(Row._fields)
        writer.writerows((*row[:5], f"{row.value:.6g}", f"{row.error:.3g}") for row in rows)
