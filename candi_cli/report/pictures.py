"""What figures of scores show, and the figures: curves, histograms, bars and densities, as SVG and PNG."""

from dataclasses import dataclass, field
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from candi_cli.report.settings import own_settings

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Array = NDArray[np.floating] | NDArray[np.integer]


@dataclass(frozen=True)
class Lines:
    """Curves in one pair of axes, such as the coverage of intervals over their level.

    Attributes
    ----------
    key : names the files of the picture
    x : shape (C,), shared by all curves that have none of their own in `xs`
    curves : each of shape (C,), or as long as its own x; NaN is a gap
    diagonal : the ideal is y = x; both axes have one scale
    bands : lower and upper ends around the curve of the same name, or of something else with its own name
    """

    key: str
    title: str
    caption: str
    x_label: str
    y_label: str
    x: Array
    curves: dict[str, Array]
    diagonal: bool = False
    bands: dict[str, tuple[Array, Array]] = field(default_factory=dict)
    xs: dict[str, Array] | None = None

    def x_of(self, name: str) -> Array:
        """Return the x of a curve or band."""
        return (self.xs or {}).get(name, self.x)


@dataclass(frozen=True)
class Histogram:
    """Histograms over the same bins, such as those of probability integral transforms.

    Attributes
    ----------
    edges : shape (B + 1,)
    densities : each of shape (B,)
    expected : the height of an ideal, flat histogram
    """

    key: str
    title: str
    caption: str
    x_label: str
    edges: Array
    densities: dict[str, Array]
    expected: float | None = None


@dataclass(frozen=True)
class Bars:
    """One bar for each group and name, such as a score of each assay by a model and by its baselines.

    Attributes
    ----------
    groups : G names
    values : each of shape (G,), the first the most important; there is no bar for NaN
    errors : each of shape (G,), standard errors of the values of the same name; NaN where there is none
    """

    key: str
    title: str
    caption: str
    y_label: str
    groups: list[str]
    values: dict[str, Array]
    errors: dict[str, Array] = field(default_factory=dict)


@dataclass(frozen=True)
class Density:
    """How often two values occur together, in colours on a logarithmic scale.

    Attributes
    ----------
    x_edges, y_edges : shape (X + 1,) and (Y + 1,)
    counts : shape (X, Y), as `numpy.histogram2d` returns them
    diagonal : the ideal is y = x
    """

    key: str
    title: str
    caption: str
    x_label: str
    y_label: str
    x_edges: Array
    y_edges: Array
    counts: Array
    diagonal: bool = False


Picture = Lines | Histogram | Bars | Density


def draw(picture: Picture) -> "Figure":
    """Return the figure of a picture, whatever the user's own settings of the drawing library are."""
    from candi_cli.report import drawing

    with own_settings():
        if isinstance(picture, Lines):
            return drawing.draw_lines(picture)
        if isinstance(picture, Histogram):
            return drawing.draw_histogram(picture)
        if isinstance(picture, Bars):
            return drawing.draw_bars(picture)
        return drawing.draw_density(picture)


def svg(picture: Picture) -> bytes:
    """Return a picture as SVG; the same picture gives the same bytes."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    image = BytesIO()
    with own_settings():
        FigureCanvasSVG(draw(picture)).print_svg(image, metadata={"Creator": None, "Date": None})
    return image.getvalue()


def png(picture: Picture) -> bytes:
    """Return a picture as PNG; the same picture gives the same bytes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    image = BytesIO()
    with own_settings():
        FigureCanvasAgg(draw(picture)).print_png(image, metadata={"Software": None})
    return image.getvalue()
