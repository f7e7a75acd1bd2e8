"""Tables of scores: tidy rows, one score a row, as TSV and JSON show them."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

COLUMNS = (
    "biosample", "assay", "pool", "track", "region", "predictor", "score", "value", "standard_error", "n", "note",
)  # fmt: skip
MODEL = "model"
ALL = "all"  # biosamples, assays or tracks together


@dataclass(frozen=True)
class Row:
    """One score.

    Attributes
    ----------
    region : a class of bins
    predictor : `model`, or the name of a baseline
    value : NaN where the score does not exist; `note` says why
    standard_error : NaN where there is none
    n : bins, pairs, genes or tracks that the score is of
    """

    biosample: str
    assay: str
    pool: str
    track: str
    region: str
    predictor: str
    score: str
    value: float
    standard_error: float = math.nan
    n: int = 0
    note: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the row as JSON values; NaN, which JSON lacks, is null."""
        return {name: _plain(value) for name, value in asdict(self).items()}

    def to_tsv(self) -> str:
        """Return the row as a line of a TSV; NaN is NA."""
        cells = (getattr(self, name) for name in COLUMNS)
        return "\t".join(_cell(value) for value in cells)


def tsv(rows: Iterable[Row]) -> str:
    """Return rows as TSV with a header."""
    return "\n".join(["\t".join(COLUMNS), *(row.to_tsv() for row in rows)]) + "\n"


def chosen(rows: Sequence[Row], **wanted: str) -> list[Row]:
    """Return the rows whose columns have certain values."""
    return [row for row in rows if all(getattr(row, name) == value for name, value in wanted.items())]


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return "NA" if not math.isfinite(value) else f"{value:.6g}"
    return str(value).replace("\t", " ").replace("\n", " ")
