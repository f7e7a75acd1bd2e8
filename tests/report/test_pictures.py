"""Pictures of scores: what is in the figures is what was given, whoever draws them and however things are called."""

import os
import subprocess
import sys
import warnings
from dataclasses import replace
from io import BytesIO
from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import QuadMesh
from matplotlib.colors import LogNorm, to_hex
from matplotlib.image import imread
from matplotlib.patches import Rectangle
from matplotlib.text import Text

from candi_cli.report.pictures import Bars, Density, Histogram, Lines, draw, png, svg

BAD = ["_<a> & $x^2$", "細胞 $\\frac{1}{", "tab\tand\nline", "x" * 200, "%s {} \\"]
LEVELS = np.linspace(0.05, 0.95, 19)
BLUE = "#0072b2"


def lines(names, rng, **options):
    curves = {name: np.clip(LEVELS + rng.normal(0, 0.1, 19), 0, 1) for name in names}
    chosen = {"diagonal": True} | options
    return Lines("coverage", "Coverage", "Inside.", "level", "coverage", LEVELS, curves, **chosen)


def histogram(names, rng):
    return Histogram("pit", "PIT", "Flat.", "PIT", np.linspace(0, 1, 11), {n: rng.random(10) for n in names}, 1.0)


def bars(groups, names, rng, **options):
    return Bars("r2", "R2", "By assay.", "R2", groups, {name: rng.random(len(groups)) for name in names}, **options)


def density(rng, **options):
    edges = np.linspace(0, 4, 9)
    counts = rng.poisson(3.0, (8, 8)) * rng.integers(0, 2, (8, 8))
    return Density("seen", "Seen", "Bins.", "observed", "predicted", edges, 2 * edges, counts, **options)


@pytest.fixture
def pictures(rng):
    return [
        lines(["a", "b"], rng),
        lines([f"track {n}" for n in range(70)], rng),
        histogram(["a", "b", "c", "d", "e"], rng),
        histogram([f"track {n}" for n in range(70)], rng),
        bars(["CTCF", "H3K4me3"], ["model", "average"], rng),
        density(rng, diagonal=True),
    ]


def words(figure):
    return {text.get_text() for text in figure.findobj(Text)}


def legend_of(figure):
    return [text.get_text() for axes in figure.axes if axes.get_legend() for text in axes.get_legend().get_texts()]


def named_curves(figure):
    """Return the curves of a figure that are longer than those of legends: from colour to values."""
    found = [line for line in figure.axes[0].lines if len(line.get_xdata()) > 2]
    return [(to_hex(line.get_color()), line.get_linestyle(), np.asarray(line.get_ydata())) for line in found]


def test_the_same_picture_gives_the_same_bytes_in_both_formats(pictures):
    for picture in pictures:
        image, drawing = png(picture), svg(picture)
        assert png(picture) == image
        assert svg(picture) == drawing
        assert imread(BytesIO(image)).shape[1::-1] == pytest.approx(110 * draw(picture).get_size_inches(), abs=1)
        assert ElementTree.fromstring(drawing).tag == "{http://www.w3.org/2000/svg}svg"
        assert b"matplotlib" not in image
        assert b"<dc:date>" not in drawing


def test_settings_of_the_user_and_the_seed_of_hashes_change_nothing(tmp_path):
    script = (
        "import hashlib, sys, numpy as np\n"
        "from candi_cli.report.pictures import Lines, png, svg\n"
        "x = np.linspace(0, 1, 5)\n"
        "p = Lines('k', 't', 'c', 'x', 'y', x, {'a': x, 'b': x**2}, True)\n"
        "print(hashlib.sha256(svg(p) + png(p)).hexdigest(), 'matplotlib.pyplot' in sys.modules)"
    )
    (tmp_path / "matplotlibrc").write_text("text.usetex: True\nfont.size: 30\nlines.linewidth: 9\nsvg.fonttype: none\n")
    settings = [{"PYTHONHASHSEED": "1"}, {"PYTHONHASHSEED": "2", "MATPLOTLIBRC": str(tmp_path / "matplotlibrc")}]
    said = [
        subprocess.run(
            [sys.executable, "-c", script], env=os.environ | each, capture_output=True, text=True, check=True
        ).stdout
        for each in settings
    ]
    assert said[0] == said[1]
    assert said[0].endswith("False\n")


def test_drawing_leaves_the_settings_of_others_alone(pictures):
    before = dict(mpl.rcParams)
    for picture in pictures:
        svg(picture)
    assert dict(mpl.rcParams) == before


def test_a_few_curves_are_told_apart_and_named(rng):
    picture = lines([f"track {n}" for n in range(10)], rng)
    figure = draw(picture)
    drawn = named_curves(figure)
    assert len({look[:2] for look in drawn}) == 10
    assert [values.tolist() for _, _, values in drawn] == [values.tolist() for values in picture.curves.values()]
    assert legend_of(figure) == ["ideal", *picture.curves]


def test_of_many_curves_the_median_and_the_farthest_from_the_diagonal_stand_out(rng):
    names = [f"track {n}" for n in range(70)]
    picture = lines(names, rng)
    far = {"track 7": 3.0, "track 20": 4.0, "track 66": -3.5}
    moved = {name: values + far.get(name, 0) for name, values in picture.curves.items()}
    moved["track 30"] = np.where(LEVELS < 0.5, np.nan, moved["track 30"])
    figure = draw(replace(picture, curves=moved))
    (median,) = [values for colour, _, values in named_curves(figure) if colour == BLUE]
    assert median == pytest.approx(np.nanmedian(list(moved.values()), axis=0))
    assert legend_of(figure) == ["ideal", "each of 70", "track 20", "track 66", "track 7", "median"]


def test_without_a_diagonal_the_farthest_are_those_from_the_median(rng):
    picture = lines([f"track {n}" for n in range(12)], rng, diagonal=False)
    curves = picture.curves | {"track 3": picture.curves["track 3"] + 50}
    assert legend_of(draw(replace(picture, curves=curves)))[:2] == ["each of 12", "track 3"]


def test_curves_may_have_their_own_x_and_then_have_no_median(rng):
    xs = {f"track {n}": np.sort(rng.random(5)) for n in range(11)}
    picture = Lines("r", "R", "", "x", "y", np.zeros(0), {name: x**2 for name, x in xs.items()}, True, {}, xs)
    figure = draw(picture)
    assert "median" not in legend_of(figure)
    found = {tuple(line.get_xdata()) for line in figure.axes[0].lines if len(line.get_xdata()) == 5}
    assert found == {tuple(x) for x in xs.values()}


def test_a_band_is_named_unless_it_is_that_of_a_curve(rng):
    picture = lines(["a", "b"], rng)
    bands = {"a": (picture.curves["a"] - 0.1, picture.curves["a"] + 0.1), "80 %": (LEVELS - 0.2, LEVELS + 0.2)}
    figure = draw(replace(picture, bands=bands))
    assert legend_of(figure) == ["ideal", "80 %", "a", "b"]
    ends = [band.get_paths()[0].get_extents() for band in figure.axes[0].collections]
    assert ends[1].y0 == pytest.approx((LEVELS - 0.2).min())
    assert ends[1].y1 == pytest.approx((LEVELS + 0.2).max())


def test_a_few_histograms_stand_side_by_side_and_many_over_each_other(rng):
    few, many = histogram(list("abcde"), rng), histogram([str(n) for n in range(13)], rng)
    figure = draw(few)
    shown = [axes for axes in figure.axes if axes.get_visible()]
    assert [axes.get_title(loc="left") for axes in shown] == list("abcde")
    for axes, values in zip(shown, few.densities.values(), strict=True):
        assert axes.patches[0].get_data().values.tolist() == values.tolist()
        assert axes.lines[0].get_ydata() == [1.0, 1.0]
    (axes,) = draw(many).axes
    assert len(axes.patches) == 14
    assert axes.patches[-1].get_data().values == pytest.approx(np.median(list(many.densities.values()), axis=0))


def test_bars_are_as_long_as_their_values_and_there_is_none_for_nan(rng):
    picture = bars([f"assay {n}" for n in range(35)], ["model", "average", "input"], rng)
    picture.values["average"][[3, 30]] = np.nan
    figure = draw(picture)
    drawn = [patch.get_width() for axes in figure.axes for patch in axes.patches if isinstance(patch, Rectangle)]
    given = np.concatenate(list(picture.values.values()))
    assert sorted(drawn) == pytest.approx(sorted(given[np.isfinite(given)]))
    assert set(picture.groups) <= words(figure)


def test_error_bars_reach_one_standard_error_to_either_side(rng):
    picture = bars(["a", "b", "c"], ["model"], rng, errors={"model": np.array([0.1, np.nan, 0.2])})
    (axes,) = draw(picture).axes
    ends = [np.ptp(segment[:, 0]) for segments in axes.collections for segment in segments.get_segments()]
    assert sorted(ends) == pytest.approx([0.2, 0.4])


def test_a_bar_far_beyond_all_others_is_cut_and_its_value_written(rng):
    picture = bars([f"assay {n}" for n in range(20)], ["model"], rng)
    picture.values["model"][[4, 5]] = -123.4, 77.7
    figure = draw(picture)
    low, high = figure.axes[0].get_xlim()
    assert -2 < low < 0
    assert 0.9 < high < 3
    assert {"← -123", "77.7 →"} <= words(figure)


def test_a_density_shows_the_counts_on_a_logarithmic_scale(rng):
    picture = density(rng)
    (mesh,) = draw(picture).findobj(QuadMesh)[:1]
    shown = mesh.get_array()
    assert isinstance(mesh.norm, LogNorm)
    assert np.array_equal(shown.filled(0), picture.counts.T)
    assert np.array_equal(mesh.get_coordinates()[0, :, 0], picture.x_edges)
    assert np.array_equal(mesh.get_coordinates()[:, 0, 1], picture.y_edges)


def test_nothing_is_clipped_or_warned_of_however_things_are_called(rng):
    groups = [f"{name} {n}" for n in range(14) for name in BAD]
    title = BAD[3] + BAD[0]
    hostile = [
        replace(lines(BAD, rng), title=title, x_label=BAD[0], y_label=BAD[1]),
        replace(lines(groups, rng), title=title),
        replace(histogram(BAD, rng), title=title, x_label=BAD[1]),
        replace(bars(groups, BAD, rng), title=title, y_label=BAD[0]),
        replace(density(rng, diagonal=True), title=BAD[1], x_label=BAD[0], y_label=BAD[3]),
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for picture in hostile:
            png(picture)
            figure = draw(picture)
            FigureCanvasAgg(figure).draw()
            box = figure.get_tightbbox()
            width, height = figure.get_size_inches()
            assert box.x0 >= 0
            assert box.y0 >= 0
            assert box.x1 <= width
            assert box.y1 <= height
    assert BAD[0] in words(draw(hostile[0]))
    assert "□□ $\\frac{1}{" in words(draw(hostile[0]))


def test_what_has_nothing_to_show_is_drawn_all_the_same(rng):
    nothing = np.full(19, np.nan)
    empty = [
        lines([], rng),
        replace(lines(["a"], rng), curves={"a": nothing}),
        replace(lines(["a"], rng), curves={f"track {n}": nothing for n in range(11)}),
        histogram([], rng),
        replace(histogram(["a"], rng), densities={f"t {n}": np.full(10, np.nan) for n in range(13)}, expected=None),
        bars([], [], rng),
        Bars("k", "t", "c", "y", ["a"], {"model": np.array([np.nan])}, {"model": np.array([np.nan])}),
        replace(density(rng), counts=np.zeros((8, 8))),
        replace(density(rng), counts=np.ones((8, 8))),
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for picture in empty:
            assert png(picture).startswith(b"\x89PNG")
            assert b"</svg>" in svg(picture)
