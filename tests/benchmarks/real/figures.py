"""Figures of the tables, as SVG."""

import math
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure
from tables import ALL, summarise
from units import Row, making

OURS, RIVAL = "#d55e00", "#7f7f7f"
_STYLE = {"svg.hashsalt": "candi", "svg.fonttype": "none"}


def save(figure: Figure, path: Path) -> None:
    """Write a figure as SVG, the same for the same figure."""
    import matplotlib as mpl

    with mpl.rc_context(_STYLE), making(path) as beside:
        figure.savefig(beside, format="svg", metadata={"Date": None}, bbox_inches="tight")


def bars(rows: Sequence[Row], path: Path, *, scores: Sequence[str], model: str, title: str) -> None:
    """Draw each score of each method, all tracks together, with its error."""
    cells = summarise(rows)
    methods = list(dict.fromkeys(row.method for row in rows))[::-1]
    figure = Figure(figsize=(3.2 * len(scores) + 2, 0.32 * len(methods) + 1.2))
    panels = figure.subplots(1, len(scores), squeeze=False, sharey=True)[0]
    for axes, score in zip(panels, scores, strict=True):
        found = [cells.get((ALL, method, score)) for method in methods]
        values = [cell.value if cell else math.nan for cell in found]
        errors = [cell.error if cell else math.nan for cell in found]
        colours = [OURS if method.startswith(model) else RIVAL for method in methods]
        axes.barh(methods, values, xerr=errors, color=colours, error_kw={"linewidth": 0.8})
        finite = [value for value in values if math.isfinite(value)]
        if finite and max(finite) > 0 and min(finite) / max(finite) > 0.5:
            axes.set_xlim(0.9 * min(finite), 1.05 * max(finite))
        axes.set_xlabel(score)
    figure.suptitle(title, fontsize=10)
    save(figure, path)


def pairs(before: Sequence[float], after: Sequence[float], path: Path, *, title: str, label: str) -> None:
    """Draw what each track was before and is after, with the diagonal."""
    figure = Figure(figsize=(3.6, 3.6))
    axes = figure.subplots()
    most = 1.05 * max(*before, *after)
    axes.plot([0, most], [0, most], color=RIVAL, linewidth=0.8)
    axes.scatter(before, after, s=14, color=OURS)
    axes.set(xlabel=f"{label} before", ylabel=f"{label} after", title=title, xlim=(0, most), ylim=(0, most))
    save(figure, path)
