"""How the pictures of scores are drawn: readable with one curve and with a hundred, and by the colour-blind."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from candi_cli.report.letters import drawable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from candi_cli.report.pictures import Array, Bars, Density, Histogram, Lines

# Okabe & Ito (2008), less the yellow, which is too pale on white; after them once more, dashed
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
_GREY, _BAND, _IDEAL = "#9a9a9a", "#a6ceed", "#333333"
_MOST_CURVES, _MOST_PANELS, _MOST_BARS = 10, 12, 60  # that are told apart: by colour, side by side, in one column
_FARTHEST = 3  # curves of a crowd that are named
_CUT = 3.0  # interquartile ranges from the quartiles, where bars end: one outlier would hide all others
_LONGEST_NAME, _LONGEST_TITLE, _LONGEST_LABEL = 34, 76, 70  # letters
_DPI = 110

Handles = list[tuple[Any, str]]  # what a legend shows, and its name


def draw_lines(picture: "Lines") -> "Figure":
    """Return curves in colours, or many of them in grey with their median and the farthest from the ideal."""
    figure = _figure(picture.title, 7.6, 4.6)
    axes = figure.subplots()
    handles = _draw_ideal(axes) if picture.diagonal else []
    if len(picture.curves) > _MOST_CURVES:
        handles += _draw_crowd(axes, picture)
    else:
        handles += _draw_few(axes, picture)
    _draw_limits(axes, picture)
    _draw_labels(axes, picture.x_label, picture.y_label)
    _draw_legend(axes, handles)
    return figure


def _draw_few(axes: "Axes", picture: "Lines") -> Handles:
    handles: Handles = []
    styles = dict(zip(picture.curves, _styles(), strict=False))
    for name, (lower, upper) in picture.bands.items():
        colour = styles[name]["color"] if name in styles else _GREY
        band = axes.fill_between(picture.x_of(name), lower, upper, color=colour, alpha=0.2, linewidth=0)
        if name not in styles:
            handles.append((band, name))
    for name, values in picture.curves.items():
        x = picture.x_of(name)
        marker = "o" if len(x) <= 40 else None
        (line,) = axes.plot(x, values, linewidth=1.5, marker=marker, markersize=2.5, **styles[name])
        handles.append((line, name))
    return handles


def _draw_crowd(axes: "Axes", picture: "Lines") -> Handles:
    handles: Handles = []
    for name, (lower, upper) in picture.bands.items():
        if name not in picture.curves:
            band = axes.fill_between(picture.x_of(name), lower, upper, color=_BAND, linewidth=0, alpha=0.5, zorder=2.5)
            handles.append((band, name))
    for name, values in picture.curves.items():
        (line,) = axes.plot(picture.x_of(name), values, color=_GREY, linewidth=0.6, alpha=0.7)
    handles.append((line, f"each of {len(picture.curves)}"))
    shared = not set(picture.xs or {}) & set(picture.curves)
    median = _median(picture.curves.values()) if shared else None
    for name, style in zip(_farthest(picture, median), _styles()[1:], strict=False):
        (line,) = axes.plot(picture.x_of(name), picture.curves[name], linewidth=1.1, zorder=3, **style)
        handles.append((line, name))
    if median is not None:
        (line,) = axes.plot(picture.x, median, color=_COLOURS[0], linewidth=2.4, zorder=4)
        handles.append((line, "median"))
    return handles


def _farthest(picture: "Lines", median: NDArray[np.float64] | None) -> list[str]:
    """Return the names of the curves that are farthest from the diagonal or, without one, from the median."""
    distances = {}
    for name, values in picture.curves.items():
        ideal = picture.x_of(name) if picture.diagonal else median
        if ideal is not None and np.isfinite(values).any():
            distances[name] = float(np.nanmax(np.abs(values - ideal)))
    return sorted(distances, key=lambda name: -distances[name])[:_FARTHEST]


def _draw_limits(axes: "Axes", picture: "Lines") -> None:
    if not picture.diagonal:
        axes.margins(x=0.02)
        return
    drawn = np.concatenate([picture.x, *picture.curves.values(), *(picture.xs or {}).values()])
    drawn = drawn[np.isfinite(drawn)]
    low, high = float(drawn.min(initial=0)), float(drawn.max(initial=1))
    margin = 0.02 * (high - low)
    axes.set_xlim(low - margin, high + margin)
    axes.set_ylim(low - margin, high + margin)
    axes.set_aspect("equal", anchor="NW")


def draw_histogram(picture: "Histogram") -> "Figure":
    """Return histograms side by side, or many of them in grey over each other with their median."""
    if len(picture.densities) > _MOST_PANELS:
        return _overlaid(picture)
    n_columns = min(4, max(1, len(picture.densities)))
    n_rows = max(1, -(-len(picture.densities) // n_columns))
    figure = _figure(picture.title, max(5.0, 2.4 * n_columns), 0.9 + 1.7 * n_rows)
    panels = figure.subplots(n_rows, n_columns, sharex=True, sharey=True, squeeze=False).ravel()
    for axes, (name, density) in zip(panels, picture.densities.items(), strict=False):
        _draw_steps(axes, picture.edges, density, fill=True, color=_COLOURS[0], alpha=0.75)
        axes.set_title(drawable(name, 30), fontsize=8, loc="left", parse_math=False)
        _draw_expected(axes, picture)
    for axes in panels[len(picture.densities) :]:
        axes.set_visible(False)
    for axes in panels[max(0, len(picture.densities) - n_columns) :]:
        axes.tick_params(labelbottom=True)  # nothing is drawn below
    _finish(list(panels), picture)
    figure.supxlabel(drawable(picture.x_label, _LONGEST_LABEL), fontsize=9, parse_math=False)
    figure.supylabel("density", fontsize=9)
    return figure


def _overlaid(picture: "Histogram") -> "Figure":
    figure = _figure(picture.title, 7.6, 4.0)
    axes = figure.subplots()
    for density in picture.densities.values():
        each = _draw_steps(axes, picture.edges, density, fill=False, edgecolor=_GREY, linewidth=0.6, alpha=0.7)
    handles: Handles = [(each, f"each of {len(picture.densities)}")]
    median = _draw_steps(
        axes, picture.edges, _median(picture.densities.values()), fill=False, edgecolor=_COLOURS[0], linewidth=2.4
    )
    handles.append((median, "median"))
    handles += _draw_expected(axes, picture)
    _finish([axes], picture)
    _draw_labels(axes, picture.x_label, "density")
    _draw_legend(axes, handles)
    return figure


def _draw_steps(axes: "Axes", edges: "Array", heights: "Array", **style: Any) -> Any:
    from matplotlib.patches import StepPatch

    return axes.add_artist(StepPatch(np.nan_to_num(np.asarray(heights, dtype=np.float64)), edges, **style))


def _draw_expected(axes: "Axes", picture: "Histogram") -> Handles:
    if picture.expected is None:
        return []
    return [(axes.axhline(picture.expected, color=_IDEAL, linewidth=1, linestyle="--"), "ideal")]


def _finish(panels: Sequence["Axes"], picture: "Histogram") -> None:
    drawn = np.concatenate([[picture.expected or 0], *picture.densities.values()])
    top = float(drawn[np.isfinite(drawn)].max(initial=0))
    for axes in panels:
        axes.set_xlim(picture.edges[0], picture.edges[-1])
        axes.set_ylim(0, 1.05 * top if top > 0 else 1)
        _draw_frame(axes)


def draw_bars(picture: "Bars") -> "Figure":
    """Return bars from the left to the right, one group below the other, in two columns where there are many."""
    n_groups, n_names = len(picture.groups), max(1, len(picture.values))
    n_columns = 1 if n_groups * n_names <= _MOST_BARS else 2
    n_rows = max(1, -(-n_groups // n_columns))
    width = max(5.0, 3.0 * n_columns) + n_columns * _room(picture.groups) + _room(picture.values) + 0.5
    figure = _figure(picture.title, width, 1.3 + n_rows * max(0.2, 0.09 * n_names + 0.08))
    columns = figure.subplots(1, n_columns, sharex=True, squeeze=False)[0]
    low, high = _bar_limits(picture)
    handles: Handles = []
    for number, axes in enumerate(columns):
        part = slice(number * n_rows, (number + 1) * n_rows)
        axes.set_xlim(low, high)
        handles = _draw_bars(axes, picture, part)
        names = [drawable(name, _LONGEST_NAME) for name in picture.groups[part]]
        axes.set_yticks(range(len(names)), labels=names, fontsize=8, parse_math=False)
        axes.set_ylim(n_rows - 0.5, -0.5)
        axes.tick_params(axis="y", length=0)
        axes.axvline(0, color=_IDEAL, linewidth=0.8)
        axes.grid(axis="x", color="#e2e2e2", linewidth=0.6)
        axes.set_axisbelow(True)
        _draw_labels(axes, picture.y_label, "")
    if len(picture.values) > 1:
        _draw_legend(columns[-1], handles)
    return figure


def _room(names: Iterable[str]) -> float:
    """Return how much room the longest of names may need, in inches."""
    return 0.08 * max((min(len(name), _LONGEST_NAME) for name in names), default=0)


def _draw_bars(axes: "Axes", picture: "Bars", part: slice) -> Handles:
    from matplotlib.patches import Patch

    handles: Handles = []
    height = 0.84 / max(1, len(picture.values))
    for number, (name, style) in enumerate(zip(picture.values, _styles(len(picture.values)), strict=True)):
        values = np.asarray(picture.values[name], dtype=np.float64)[part]
        rows = np.arange(len(values)) + (number - (len(picture.values) - 1) / 2) * height
        drawn = np.isfinite(values)
        hatch = None if style["linestyle"] == "-" else "////"
        look: dict[str, Any] = {"facecolor": style["color"], "edgecolor": "white", "linewidth": 0, "hatch": hatch}
        axes.barh(rows[drawn], values[drawn], height=0.92 * height, **look)
        errors = np.asarray(picture.errors.get(name, np.full(len(picture.groups), np.nan)), dtype=np.float64)[part]
        known = drawn & np.isfinite(errors)
        axes.errorbar(
            values[known], rows[known], xerr=errors[known], fmt="none", ecolor="black", elinewidth=0.8, capsize=1.5
        )
        _write_cut(axes, values, rows)
        handles.append((Patch(**look), name))
    return handles


def _bar_limits(picture: "Bars") -> tuple[float, float]:
    """Return where the axis of bars starts and ends: at 0 or beyond, and not far beyond most bars."""
    parts = [np.zeros(0)]
    for name, values in picture.values.items():
        errors = np.nan_to_num(np.asarray(picture.errors.get(name, np.zeros(len(values))), dtype=np.float64))
        parts += [values - errors, values + errors]
    ends = np.concatenate(parts)
    ends = ends[np.isfinite(ends)]
    if not len(ends):
        return 0, 1
    quarter, three_quarters = np.quantile(ends, [0.25, 0.75])
    reach = _CUT * (three_quarters - quarter) or np.inf
    kept = ends[(ends >= quarter - reach) & (ends <= three_quarters + reach)]
    low, high = float(kept.min(initial=0)), float(kept.max(initial=0))
    margin = 0.04 * (high - low) or 1.0
    return (low - margin if ends.min() < 0 else 0), (high + margin if ends.max() > 0 else margin)


def _write_cut(axes: "Axes", values: "Array", rows: "Array") -> None:
    """Write the value of each bar that reaches beyond the axis at its end."""
    low, high = axes.get_xlim()
    for value, row in zip(values, rows, strict=True):
        if value > high:
            end, side, words = high, "right", f"{value:.3g} \N{RIGHTWARDS ARROW}"
        elif value < low:
            end, side, words = low, "left", f"\N{LEFTWARDS ARROW} {value:.3g}"
        else:
            continue
        box = {"facecolor": "white", "edgecolor": "none", "pad": 0.6, "alpha": 0.85}
        axes.text(end, row, words, ha=side, va="center_baseline", fontsize=6, bbox=box, zorder=5)


def draw_density(picture: "Density") -> "Figure":
    """Return how often two values occur together."""
    from matplotlib.colors import LogNorm

    figure = _figure(picture.title, 6.4, 5.2)
    axes = figure.subplots()
    counts = np.ma.masked_less_equal(np.asarray(picture.counts, dtype=np.float64), 0)
    counts = np.ma.masked_invalid(counts)
    if counts.count():
        low, high = float(counts.min()), float(counts.max())
        mesh = axes.pcolormesh(
            picture.x_edges, picture.y_edges, counts.T, rasterized=True,
            cmap="viridis_r", norm=LogNorm(low, high if high > low else 10 * low),
        )  # fmt: skip
        bar = figure.colorbar(mesh, ax=axes)
        bar.set_label("number", fontsize=9)
        bar.ax.tick_params(labelsize=8)
    axes.set_xlim(picture.x_edges[0], picture.x_edges[-1])
    axes.set_ylim(picture.y_edges[0], picture.y_edges[-1])
    if picture.diagonal:
        _draw_ideal(axes)
    _draw_labels(axes, picture.x_label, picture.y_label)
    return figure


def _figure(title: str, width: float, height: float) -> "Figure":
    """Return an empty figure of a size in inches, which makes room for whatever is written beside its axes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=_DPI, facecolor="white", layout="constrained")
    words = drawable(title, _LONGEST_TITLE)
    size = _largest_size(words, width)
    figure.suptitle(words, x=0.01, ha="left", fontsize=min(11, size), fontweight="bold", parse_math=False)
    return figure


def _draw_ideal(axes: "Axes") -> Handles:
    return [(axes.axline((0, 0), slope=1, color=_IDEAL, linewidth=1, linestyle="--", zorder=1), "ideal")]


def _draw_labels(axes: "Axes", x_label: str, y_label: str) -> None:
    whole, part = axes.figure.bbox, axes.get_position()
    width, height = whole.width * part.width / _DPI, whole.height * part.height / _DPI
    x_words, y_words = drawable(x_label, _LONGEST_LABEL), drawable(y_label, _LONGEST_LABEL)
    axes.set_xlabel(x_words, fontsize=min(9, _largest_size(x_words, width)), parse_math=False)
    axes.set_ylabel(y_words, fontsize=min(9, _largest_size(y_words, height)), parse_math=False)
    _draw_frame(axes)


def _largest_size(words: str, room: float) -> float:
    """Return at what size of letters, in points, some words surely fit into as many inches."""
    return 72 * room / (0.7 * max(1, len(words)))  # a bold letter is 0.7 as wide as it is high


def _draw_frame(axes: "Axes") -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)


def _draw_legend(axes: "Axes", handles: Handles) -> None:
    """Name what is drawn, on the right of the axes."""
    if not handles:
        return
    legend = axes.legend(
        [handle for handle, _ in handles], ["-"] * len(handles), frameon=False, fontsize=8,
        loc="upper left", bbox_to_anchor=(1.01, 1), borderaxespad=0, alignment="left",
    )  # fmt: skip
    # written afterwards: names that start with _ would be left out, and $ would be mathematics
    for text, (_, name) in zip(legend.get_texts(), handles, strict=True):
        text.set_parse_math(False)
        text.set_text(drawable(name, _LONGEST_NAME))


def _styles(n_styles: int = _MOST_CURVES) -> list[dict[str, Any]]:
    dashes = ("-", "--", ":")
    return [
        {"color": _COLOURS[number % len(_COLOURS)], "linestyle": dashes[number // len(_COLOURS) % len(dashes)]}
        for number in range(n_styles)
    ]


def _median(curves: "Iterable[Array]") -> NDArray[np.float64]:
    """Return the median of curves at each place; NaN where all have a gap."""
    stack = np.array(list(curves), dtype=np.float64)
    known = np.isfinite(stack).any(axis=0)
    median = np.full(stack.shape[1], np.nan)
    median[known] = np.nanmedian(stack[:, known], axis=0)
    return median
