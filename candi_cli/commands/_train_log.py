"""The log of a training: a table with a row for each report."""

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from candi_cli.commands._output import replacing
from candi_cli.errors import OutputError

Row = dict[str, str]
_ABSENT = "NA"


class Log:
    """A TSV of reports, one row a step, complete after each.

    Parameters
    ----------
    keep_until : rows after this step are dropped from a log that is there, as the training does these steps again
    """

    def __init__(self, path: Path, *, keep_until: int) -> None:
        self.path = path
        rows = [row for row in _read(path) if int(row["step"]) <= keep_until] if keep_until and path.exists() else []
        self.columns = list(rows[0]) if rows else []
        self._rewrite(rows)

    def write(self, values: Mapping[str, Any]) -> None:
        """Append one row; new columns are added to those before."""
        new = [name for name in values if name not in self.columns]
        if new:
            rows = _read(self.path)
            self.columns += new
            self._rewrite(rows)
        with self.path.open("a", newline="", encoding="utf-8") as file:
            self._writer(file).writerow({name: _text(value) for name, value in values.items()})

    def _rewrite(self, rows: list[Row]) -> None:
        with replacing(self.path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            writer = self._writer(file)
            if self.columns:
                writer.writeheader()
            writer.writerows(rows)

    def _writer(self, file: Any) -> "csv.DictWriter[str]":
        return csv.DictWriter(file, self.columns, restval=_ABSENT, delimiter="\t", lineterminator="\n")


def _read(path: Path) -> list[Row]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file, delimiter="\t"))
        if any(not row["step"].isdigit() or None in row.values() for row in rows):
            raise ValueError
    except (KeyError, ValueError, AttributeError) as error:
        raise OutputError(f"{path}: not a log of 'candi train'; give another --log") from error
    return rows


def _text(value: Any) -> str:
    if value is None:
        return _ABSENT
    return f"{value:.9g}" if isinstance(value, float) else str(value)  # all digits of a float32
