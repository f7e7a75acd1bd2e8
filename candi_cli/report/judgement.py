"""The report of a judgement: scores as TSV and JSON, figures, and one page that opens without a network."""

import json
import math
import re
from base64 import b64encode
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from candi_cli.judging.table import Row, tsv
from candi_cli.report.appearance import one_line
from candi_cli.report.multiqc import multiqc_files
from candi_cli.report.pictures import Picture, png, svg
from candi_cli.report.templates import readable, templates

SCHEMA = "candi-judgement/1"
_LARGEST_SVG = 400_000  # bytes: a larger one is in the page as PNG
_LONGEST_HEADING = 120


class Estimate(NamedTuple):
    """A number of a table with its standard error, if it has one."""

    value: float
    standard_error: float = math.nan


@dataclass(frozen=True)
class Table:
    """A table of the page.

    Attributes
    ----------
    columns : in their order
    rows : from column to text, number or Estimate; what is left out is an empty cell, and NaN is NA
    """

    title: str
    caption: str
    columns: Sequence[str]
    rows: Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class JudgementReport:
    """What a command found out about predictions.

    Attributes
    ----------
    command : its name, such as `calibrate`
    subject : what was judged, for people
    rows : all scores
    tables, pictures : what the page shows
    facts : of the model, the regions and the versions; `command` is as it was typed
    notes : what a reader must know first, one sentence or more each
    how_to_read : one paragraph each
    """

    command: str
    title: str
    subject: str
    rows: list[Row]
    tables: list[Table] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    how_to_read: list[str] = field(default_factory=list)


class _Drawn(NamedTuple):
    """A picture in both formats, and what its files are called."""

    picture: Picture
    stem: str
    svg: bytes
    png: bytes


def write_report(folder: Path, report: JudgementReport) -> list[Path]:
    """Write the page, the scores, the figures and what MultiQC reads into a folder; return the paths of all files."""
    contents: dict[str, bytes] = {
        "scores.tsv": to_tsv(report).encode(),
        "scores.json": to_json(report).encode(),
    }
    stems = _stems(["scores", *(picture.key for picture in report.pictures)])[1:]
    drawn = [
        _Drawn(picture, stem, svg(picture), png(picture)) for picture, stem in zip(report.pictures, stems, strict=True)
    ]
    for each in drawn:
        contents |= {f"figures/{each.stem}.svg": each.svg, f"figures/{each.stem}.png": each.png}
    for name, section in multiqc_files(report.command, report.rows, report.pictures, stems).items():
        contents[name] = _json(section).encode()
    contents["index.html"] = _page(report, drawn).encode()
    for name, content in contents.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return [folder / name for name in contents]


def to_tsv(report: JudgementReport) -> str:
    """Return all scores as TSV."""
    return tsv(report.rows)


def to_json(report: JudgementReport) -> str:
    """Return all scores, and what the pictures are drawn from, as JSON; NaN, which it lacks, is null."""
    return _json(
        {
            "schema": SCHEMA,
            "command": report.command,
            "subject": report.subject,
            "facts": report.facts,
            "notes": report.notes,
            "rows": [row.to_json() for row in report.rows],
            "curves": {picture.key: _curves(picture) for picture in report.pictures},
        }
    )


def _curves(picture: Picture) -> dict[str, Any]:
    parts = {part.name: getattr(picture, part.name) for part in fields(picture) if part.name != "key"}
    return {"kind": type(picture).__name__.lower()} | parts


def _json(value: Any) -> str:
    return json.dumps(_plain(value), indent=1, allow_nan=False) + "\n"


def _plain(value: Any) -> Any:
    """Return a value of what JSON has; numbers that are not finite are null."""
    if isinstance(value, Mapping):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist())
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(part) for part in (sorted(value) if isinstance(value, set | frozenset) else value)]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, str | int) else str(value)


def _stems(keys: Sequence[str]) -> list[str]:
    """Return names of files for the keys of pictures: of plain letters, and different even where case is not."""
    stems: list[str] = []
    for key in keys:
        stem = plain = re.sub(r"[^A-Za-z0-9-]+", "-", key).strip("-") or "figure"
        number = 1
        while stem.lower() in {other.lower() for other in stems}:
            number += 1
            stem = f"{plain}-{number}"
        stems.append(stem)
    return stems


def _page(report: JudgementReport, drawn: Sequence[_Drawn]) -> str:
    environment = templates()
    environment.filters |= {"cell": _cell, "fact": _fact, "data_uri": _data_uri}
    environment.tests["numeric"] = _is_number
    missing = Counter(row.note or "no reason is known" for row in report.rows if not math.isfinite(row.value))
    return environment.get_template("judgement.html").render(
        heading=one_line(report.title, _LONGEST_HEADING),
        report=report,
        tables=[(table, _numeric_columns(table)) for table in report.tables],
        drawn=drawn,
        missing=missing.most_common(),
        facts={name: value for name, value in report.facts.items() if name != "command"},
    )


def _data_uri(drawn: _Drawn) -> str:
    """Return a picture as an address that holds all of it: sharp at any size unless that is very large."""
    kind, image = ("svg+xml", drawn.svg) if len(drawn.svg) <= _LARGEST_SVG else ("png", drawn.png)
    return f"data:image/{kind};base64,{b64encode(image).decode()}"


def _numeric_columns(table: Table) -> set[str]:
    return {column for column in table.columns if any(_is_number(row.get(column)) for row in table.rows)}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.number | Estimate) and not isinstance(value, bool)


def _cell(value: Any) -> str:
    """Return a cell of a table in words."""
    value = value.item() if isinstance(value, np.generic) else value
    if value is None:
        return ""
    if isinstance(value, Estimate):
        return _with_error(float(value.value), float(value.standard_error))
    if isinstance(value, float) and not math.isfinite(value):
        return "NA"
    return readable(value)


def _with_error(value: float, standard_error: float) -> str:
    """Return a value to as many places as two digits of its standard error have."""
    if not math.isfinite(value):
        return "NA"
    if not math.isfinite(standard_error) or standard_error <= 0:
        return readable(value)
    places = max(0, 1 - math.floor(math.log10(standard_error)))
    if places > 6:
        return f"{value:.4g} ± {standard_error:.2g}"
    return f"{value:,.{places}f} ± {standard_error:,.{places}f}"


def _fact(value: Any) -> str:
    """Return a fact in words, however it is made up."""
    if isinstance(value, Mapping):
        return "; ".join(f"{name}: {_fact(part)}" for name, part in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(_fact(part) for part in value)
    return _cell(value) if _is_number(value) else readable(value)
