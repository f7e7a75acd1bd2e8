"""Figures of predicted tracks, as PNG."""

from collections.abc import Sequence
from io import BytesIO
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from candi_cli.report.appearance import colour, made_by
from candi_cli.report.letters import drawable
from candi_cli.report.settings import own_settings

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

Array = NDArray[np.floating] | NDArray[np.integer]

_DPI = 110
_WIDTH, _TOP, _BOTTOM, _RIGHT = 9.5, 0.75, 0.5, 0.3  # inches
_EDGE = 0.12  # inches between text and the edge of the picture
_NUMBERS = 42  # points between an axis and its label, for numbers up to 100,000
_LONGEST_LABEL, _LONGEST_TITLE = 34, 80  # letters
_KB_UP_TO_BP = 2_000_000
_RAW = "#777777"


class FigureRow(NamedTuple):
    """One track of a figure.

    Attributes
    ----------
    values : shape (L,), the centre of each bin's distribution
    lower, upper : shape (L,), the ends of its interval, if there is one
    raw : shape (L,), what was observed, in the unit of the values, if anything was
    observed : the assay was among the input and is denoised; otherwise it is imputed, in another colour
    """

    label: str
    values: Array
    lower: Array | None = None
    upper: Array | None = None
    raw: Array | None = None
    observed: bool = True


class Legend(NamedTuple):
    """What the parts of a figure are called."""

    centre: str = "mean"
    interval: str = "interval"
    raw: str = "observed"


def locus_figure(
    title: str, start_bp: int, resolution: int, rows: Sequence[FigureRow], legend: Legend | None = None
) -> bytes:
    """Return a PNG of tracks below each other over one stretch of a chromosome; the same input gives the same bytes.

    Parameters
    ----------
    start_bp : where the first bin starts, 0-based
    rows : at least one, all of as many bins
    """
    with own_settings():
        return _png(title, start_bp, resolution, rows, legend or Legend())


def _png(title: str, start_bp: int, resolution: int, rows: Sequence[FigureRow], legend: Legend) -> bytes:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure = _empty_figure(len(rows))
    canvas = FigureCanvasAgg(figure)
    _draw_labels(figure, canvas, [drawable(row.label, _LONGEST_LABEL) for row in rows])
    n_bins = len(rows[0].values)
    span_bp = n_bins * resolution
    unit, unit_bp = ("kb", 1_000) if span_bp <= _KB_UP_TO_BP else ("Mb", 1_000_000)
    edges = (start_bp + resolution * np.arange(n_bins + 1)) / unit_bp
    for axes, row in zip(figure.axes, rows, strict=True):
        _draw_row(axes, row, edges)
    _draw_frame(figure, canvas, drawable(title, _LONGEST_TITLE), f"position ({unit})")
    _draw_legend(figure, rows, legend)
    image = BytesIO()
    canvas.print_png(image, metadata={"Software": None})  # the version of matplotlib is not part of the picture
    return image.getvalue()


def _empty_figure(n_rows: int) -> "Figure":
    """Return a figure with an axes for each row, which are lower the more there are."""
    from matplotlib.figure import Figure

    row_height = min(1.3, max(0.45, 14 / n_rows))
    rows_height = min(n_rows * row_height, 20)  # inches: 35 rows have 0.45 each, and nothing makes a picture taller
    height = _TOP + rows_height + _BOTTOM
    figure = Figure(figsize=(_WIDTH, height), dpi=_DPI, facecolor="white")
    figure.subplots(n_rows, 1, sharex=True)
    figure.subplots_adjust(right=1 - _RIGHT / _WIDTH, top=1 - _TOP / height, bottom=_BOTTOM / height, hspace=0.2)
    return figure


def _draw_labels(figure: "Figure", canvas: "FigureCanvasAgg", labels: Sequence[str]) -> None:
    """Write a name on the left of each row, and leave as much room for them as the widest needs."""
    widest = 0.0
    for axes, label in zip(figure.axes, labels, strict=True):
        text = axes.annotate(
            label, (0, 0.5), (-_NUMBERS, 0), xycoords="axes fraction", textcoords="offset points",
            ha="right", va="center", fontsize=9, parse_math=False,
        )  # fmt: skip
        widest = max(widest, text.get_window_extent(canvas.get_renderer()).width)
    figure.subplots_adjust(left=(widest / _DPI + _NUMBERS / 72 + _EDGE) / _WIDTH)


def _draw_row(axes: "Axes", row: FigureRow, edges: NDArray[np.float64]) -> None:
    from matplotlib.patches import StepPatch

    line, band = _rgb("mean", row.observed), _rgb("upper", row.observed)
    if row.lower is not None and row.upper is not None:
        lower, upper = (np.append(end, end[-1]) for end in (row.lower, row.upper))  # the last bin has a right edge too
        axes.fill_between(edges, lower, upper, step="post", color=band, linewidth=0, zorder=1)
    # as artists: `axes.stairs` looks for the extent of every step in Python, half a second a row
    if row.raw is not None:
        axes.add_artist(StepPatch(row.raw, edges, fill=False, color=_RAW, linewidth=0.6, zorder=2))
    axes.add_artist(StepPatch(row.values, edges, fill=False, color=line, linewidth=1.0, zorder=3))
    drawn = np.concatenate([part for part in (row.values, row.lower, row.upper, row.raw) if part is not None])
    drawn = drawn[np.isfinite(drawn)]
    top = float(drawn.max(initial=0))
    axes.set_ylim(float(drawn.min(initial=0)), 1.05 * top if top > 0 else 1)
    axes.set_xlim(edges[0], edges[-1])


def _draw_frame(figure: "Figure", canvas: "FigureCanvasAgg", title: str, x_label: str) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
        axes.yaxis.set_major_locator(MaxNLocator(nbins=2, min_n_ticks=2))
        axes.tick_params(labelsize=8, bottom=axes is figure.axes[-1])
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}"))
    last = figure.axes[-1]
    last.xaxis.set_major_locator(MaxNLocator(nbins=6))
    last.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    last.set_xlabel(x_label, fontsize=9)
    text = figure.text(
        _EDGE / _WIDTH, 1 - _EDGE / figure.get_figheight(), title,
        ha="left", va="top", fontsize=11, fontweight="bold", parse_math=False,
    )  # fmt: skip
    room, needed = (_WIDTH - 2 * _EDGE) * _DPI, text.get_window_extent(canvas.get_renderer()).width
    text.set_fontsize(11 * room / max(room, needed))


def _draw_legend(figure: "Figure", rows: Sequence[FigureRow], legend: Legend) -> None:
    """Name what is drawn, above the first row."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles: list[Line2D | Patch] = []
    ways = [way for way in (True, False) if any(row.observed is way for row in rows)]
    for way in ways:
        handles.append(Line2D([], [], color=_rgb("mean", way), linewidth=1.5, label=f"{made_by(way)}: {legend.centre}"))
        if any(row.observed is way and row.lower is not None and row.upper is not None for row in rows):
            handles.append(Patch(color=_rgb("upper", way), label=legend.interval))
    if any(row.raw is not None for row in rows):
        handles.append(Line2D([], [], color=_RAW, linewidth=0.8, label=legend.raw))
    anchor = (1 - _RIGHT / _WIDTH, 1 - 0.34 / figure.get_figheight())
    figure.legend(
        handles=handles, loc="upper right", bbox_to_anchor=anchor, ncols=len(handles),
        frameon=False, fontsize=8, borderaxespad=0, borderpad=0,
    )  # fmt: skip


def _rgb(quantity: str, observed: bool) -> str:
    """Return the colour of a track as it is in genome browsers, as `#rrggbb`."""
    return "#" + "".join(f"{int(part):02x}" for part in colour(quantity, observed).split(","))
