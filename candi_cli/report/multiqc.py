"""Sections of a report of MultiQC, which finds the files `*_mqc.json` without any configuration."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from candi_cli.judging.table import ALL, MODEL, Row
from candi_cli.report.appearance import one_line
from candi_cli.report.pictures import Bars, Lines, Picture

_GENOME = "genome"
_MOST_VISIBLE = 8  # columns of scores; the others are there, but hidden at first
_PARENT = {
    "parent_id": "candi",
    "parent_name": "candi",
    "parent_description": "Denoised and imputed epigenomic tracks: how good they are, and how well they know it.",
}
_LIKE_A_FILE = re.compile(r"[._](?=[a-zA-Z]*[a-z])|[/|\\]")
_LIKE_MARKUP = str.maketrans({"<": "\u2039", ">": "\u203a", '"': "\u201d", "'": "\u2019"})
_IDEAL = {"name": "ideal", "pairs": [[0, 0], [1, 1]], "dash": "dash", "color": "#333333"}


def multiqc_files(
    command: str, rows: Sequence[Row], pictures: Sequence[Picture], stems: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """Return the custom content of each file: a table of the model's scores, and curves and bars of the pictures.

    Parameters
    ----------
    stems : one for each picture, in the name of its file; none is `scores`, which is the table
    """
    sections = {"scores": _scores(command, rows)}
    for picture, stem in zip(pictures, stems, strict=True):
        if isinstance(picture, Lines):
            sections[stem] = _line_graph(command, stem, picture)
        elif isinstance(picture, Bars):
            sections[stem] = _bar_graph(command, stem, picture)
    return {f"candi_{command}_{name}_mqc.json": section for name, section in sections.items() if section["data"]}


def _scores(command: str, rows: Sequence[Row]) -> dict[str, Any]:
    """Return a table with a row for each track of a biosample, and a column for each score of the whole genome."""
    shown = [row for row in rows if row.predictor == MODEL and ALL not in (row.biosample, row.assay)]
    regions = list(dict.fromkeys(row.region for row in shown))
    region = _GENOME if _GENOME in regions else regions[0] if regions else ""
    shown = [row for row in shown if row.region == region]
    names = _samples(f"{row.biosample} {row.assay} {row.pool}" for row in shown)
    data: dict[str, dict[str, float]] = {}
    headers: dict[str, dict[str, Any]] = {}
    for row in shown:
        column = re.sub(r"\W+", "_", f"{row.track} {row.score}")
        headers.setdefault(column, _header(row, hidden=len(headers) >= _MOST_VISIBLE))
        if math.isfinite(row.value):
            data.setdefault(names[f"{row.biosample} {row.assay} {row.pool}"], {})[column] = float(row.value)
    where = "" if region in (_GENOME, "") else f", in {region}"
    return _section(
        command, "scores", f"All scores, by candi {command}", f"Scores of the model{where}.", "table", data,
        {"col1_header": "track", "namespace": f"candi {command}"}, headers=headers,
    )  # fmt: skip


def _header(row: Row, *, hidden: bool) -> dict[str, Any]:
    title = f"{row.score} ({row.track})"
    return {"title": _text(title), "description": _text(title), "format": "{:,.4g}", "hidden": hidden}


def _line_graph(command: str, stem: str, picture: Lines) -> dict[str, Any]:
    names = _samples(picture.curves)
    data = {names[name]: _points(picture.x_of(name), values) for name, values in picture.curves.items()}
    settings: dict[str, Any] = {"xlab": _text(picture.x_label), "ylab": _text(picture.y_label)}
    if picture.diagonal:
        settings["extra_series"] = [_IDEAL]
    data = {name: points for name, points in data.items() if points}
    return _section(command, stem, picture.title, picture.caption, "linegraph", data, settings)


def _points(x: Iterable[float], y: Iterable[float]) -> dict[str, float]:
    pairs = zip(np.asarray(x, dtype=np.float64).tolist(), np.asarray(y, dtype=np.float64).tolist(), strict=True)
    return {repr(at): value for at, value in pairs if math.isfinite(at) and math.isfinite(value)}


def _bar_graph(command: str, stem: str, picture: Bars) -> dict[str, Any]:
    names = _samples(picture.groups)
    data: dict[str, dict[str, float]] = {}
    for name, values in picture.values.items():
        for group, value in zip(picture.groups, np.asarray(values, dtype=np.float64).tolist(), strict=True):
            if math.isfinite(value):
                data.setdefault(names[group], {})[_text(name)] = value
    settings = {"ylab": _text(picture.y_label), "stacking": "group", "cpswitch": False, "sort_samples": False}
    return _section(command, stem, picture.title, picture.caption, "bargraph", data, settings)


def _section(
    command: str, stem: str, title: str, caption: str, plot_type: str,
    data: Mapping[str, Any], settings: Mapping[str, Any], **more: Any,
) -> dict[str, Any]:  # fmt: skip
    identity = f"candi_{command}_{stem}"
    title = _text(title)
    return {
        "id": identity,
        **_PARENT,
        "section_name": title,
        "description": _text(caption),
        "plot_type": plot_type,
        "pconfig": {"id": f"{identity}_plot", "title": f"candi: {title}", **settings},
        "data": data,
        **more,
    }


def _samples(names: Iterable[str]) -> dict[str, str]:
    """Return a name of a sample for each name.

    MultiQC cuts what looks like the end of a file's name (`.sorted`, `_counts`, all up to a slash), so that different
    samples would become one; spaces stand for the letters that it looks for.
    """
    samples: dict[str, str] = {}
    for name in dict.fromkeys(names):
        plain = sample = _text(_LIKE_A_FILE.sub(" ", name)) or "-"
        number = 1
        while sample in samples.values():
            number += 1
            sample = f"{plain} ({number})"
        samples[name] = sample
    return samples


def _text(text: str) -> str:
    """Return a text without the letters of markup: MultiQC escapes them in some places and not in others."""
    return re.sub("&(?! |$)", "& ", one_line(text).translate(_LIKE_MARKUP))
