"""Figures, decoded again."""

import subprocess
import sys
import warnings
from io import BytesIO

import numpy as np
import pytest
from matplotlib.image import imread

from candi_cli.report.figures import FigureRow, Legend, locus_figure

DPI = 110
MEAN, BAND, RAW = (0, 114, 178), (166, 206, 237), (119, 119, 119)
IMPUTED_MEAN, IMPUTED_BAND = (213, 94, 0), (250, 205, 170)


def row(rng, n_bins, label="K562 H3K4me3", **options):
    values = rng.gamma(2.0, 3.0, n_bins)
    return FigureRow(label, values, 0.5 * values, 2 * values + 1, rng.poisson(values))._replace(**options)


def pixels(image):
    """Return a picture as 8-bit colours: shape (height, width, 3)."""
    return np.round(255 * imread(BytesIO(image))[..., :3]).astype(int)


def like(picture, colour):
    """Return where a picture has a colour, or nearly so at the edge of a line: shape (height, width)."""
    return np.abs(picture - colour).max(axis=-1) <= 30


def plot_area(picture):
    """Return the right half of a picture between legend and numbers, where only tracks are drawn."""
    height, width, _ = picture.shape
    return picture[DPI * 3 // 4 : height - DPI * 55 // 100, width // 2 :]


def has(picture, colour):
    return bool(like(plot_area(picture), colour).any())


def test_it_is_a_png_and_the_same_one_twice(rng):
    rows = [row(rng, 200)]
    image = locus_figure("chr21:1-5,000", 0, 25, rows)
    assert image.startswith(b"\x89PNG\r\n\x1a\n")
    assert locus_figure("chr21:1-5,000", 0, 25, rows) == image
    assert b"matplotlib" not in image


def test_mean_interval_and_observed_counts_are_drawn_where_given(rng):
    whole = row(rng, 40)
    picture = pixels(locus_figure("t", 43_000_000, 25, [whole]))
    assert has(picture, MEAN)
    assert has(picture, BAND)
    assert has(picture, RAW)
    bare = pixels(locus_figure("t", 43_000_000, 25, [FigureRow("x", whole.values)]))
    assert has(bare, MEAN)
    assert not has(bare, BAND)
    assert not has(bare, RAW)


def test_a_bin_is_as_wide_and_an_interval_as_high_as_it_should_be():
    values = np.array([0.0, 0, 0, 0, 0, 0, 4, 0])
    picture = plot_area(pixels(locus_figure("t", 0, 25, [FigureRow("x", values, values, values + 4)])))
    band = like(picture, BAND)
    columns = np.flatnonzero(band.any(axis=0))
    raised = columns[band[:, columns].argmax(axis=0) < len(picture) // 3]
    per_bin = len(raised)
    assert np.ptp(raised) + 1 == per_bin, "one bin"
    assert columns[-1] - raised[-1] == pytest.approx(per_bin, abs=2), "the last bin is as wide"
    heights = band[:, columns].sum(axis=0)
    assert heights[columns < raised[0] - 2].mean() == pytest.approx(heights[np.isin(columns, raised)].mean(), rel=0.1)


@pytest.mark.parametrize("n_rows", [1, 2, 35, 90])
def test_the_picture_grows_with_its_rows_up_to_a_limit(rng, n_rows):
    picture = pixels(locus_figure("t", 0, 25, [row(rng, 100, label=f"assay {n}") for n in range(n_rows)]))
    height, width, _ = picture.shape
    assert width == pytest.approx(9.5 * DPI, abs=1)
    assert height <= 22 * DPI
    assert height >= DPI * min(1.2 + 0.45 * n_rows, 20)
    lines = like(plot_area(picture), MEAN).any(axis=1)
    assert (np.diff(lines.astype(int)) == 1).sum() >= n_rows - 1, "rows with gaps between them"
    assert lines.mean() > 0.3
    assert (picture[:, [0, -1]] == 255).all(), "nothing is cut off at the sides"


@pytest.mark.parametrize("label", ["W" * 60, "$x$ $ _^{", '<grp1>&"x"\nsecond line', ""])
def test_any_name_is_written_as_it_is_within_the_picture(rng, label):
    picture = pixels(locus_figure(label, 0, 25, [row(rng, 100, label=label)]))
    assert (picture[:, [0, -1]] == 255).all()


def test_bins_without_a_value_are_left_empty(rng):
    gap = row(rng, 100)
    for part in (gap.values, gap.lower, gap.upper):
        part[40:60] = np.nan
    assert has(pixels(locus_figure("t", 0, 25, [gap])), BAND)
    nothing = FigureRow("x", np.full(100, np.nan), np.full(100, np.nan), np.full(100, np.nan))
    assert not has(pixels(locus_figure("t", 0, 25, [nothing])), BAND)


def test_positions_are_in_kb_or_mb_with_thousands_separators(rng, monkeypatch):
    texts = drawn_texts(monkeypatch, 143_000_000, [row(rng, 400)])
    assert "position (kb)" in texts
    assert {"143,000", "143,010"} <= texts
    texts = drawn_texts(monkeypatch, 143_000_000, [row(rng, 100_000)])
    assert "position (Mb)" in texts
    assert {"143", "144"} <= texts


@pytest.mark.parametrize("name", ["肝臓", "emoji \U0001f9ec", "\U00010348 \u05d0\u0301", "\u304b\u3099"])
def test_a_letter_that_the_font_does_not_have_is_a_square_and_no_warning(rng, monkeypatch, name):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        texts = drawn_texts(monkeypatch, 0, [row(rng, 40, label=f"{name} H3K4me3 naïve β")], title=f"{name} chr1")
    (label,) = [text for text in texts if "H3K4me3" in text]
    assert label.endswith(" H3K4me3 naïve β")
    assert "\N{WHITE SQUARE}" in label
    assert any(text.endswith(" chr1") and "\N{WHITE SQUARE}" in text for text in texts)


def test_imputed_tracks_have_their_own_colours_and_the_legend_names_what_is_drawn(rng, monkeypatch):
    denoised, imputed = row(rng, 40), row(rng, 40, raw=None, observed=False)
    alone = pixels(locus_figure("t", 0, 25, [imputed]))
    assert has(alone, IMPUTED_MEAN)
    assert has(alone, IMPUTED_BAND)
    assert not has(alone, MEAN)
    legend = Legend("median", "80 % interval", "observed reads, scaled to 50 M")
    texts = drawn_texts(monkeypatch, 0, [denoised, imputed], legend=legend)
    assert {"denoised: median", "imputed: median", "80 % interval", "observed reads, scaled to 50 M"} <= texts
    texts = drawn_texts(monkeypatch, 0, [imputed], legend=legend)
    assert not {"denoised: median", "observed reads, scaled to 50 M"} & texts


def drawn_texts(monkeypatch, start_bp, rows, title="t", legend=None):
    """Return all texts that the renderer is given."""
    from matplotlib.backends.backend_agg import RendererAgg

    texts = set()
    draw = RendererAgg.draw_text

    def noted(self, gc, x, y, text, *rest, **options):
        texts.add(text)
        draw(self, gc, x, y, text, *rest, **options)

    with monkeypatch.context() as patch:
        patch.setattr(RendererAgg, "draw_text", noted)
        locus_figure(title, start_bp, 25, rows, legend)
    return texts


def test_importing_the_room_is_cheap_and_drawing_leaves_no_global_state():
    code = """
import sys
import numpy as np
from candi_cli.report import appearance, delivery, figures, files, hub, igv, manifest, page
assert not {"matplotlib", "jinja2", "torch", "click"} & set(sys.modules)
figures.locus_figure("t", 0, 25, [figures.FigureRow("x", np.ones(5))])
assert "matplotlib" in sys.modules and "matplotlib.pyplot" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)
