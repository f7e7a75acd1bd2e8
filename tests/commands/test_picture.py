"""What the page of a folder shows: numbers and a stretch of all that was predicted, reads at the depth asked for."""

from pathlib import Path

import numpy as np
import pytest

from candi_cli.commands import _picture as picture_module
from candi_cli.commands._picture import draw_picture
from candi_cli.export.overview import WINDOW_BINS
from candi_cli.export.source import Source
from candi_cli.genome import Region
from candi_cli.report.figures import FigureRow, Legend
from candi_cli.store.predictions import Described, PredictionWriter

STEP = 25
WIDTH = STEP * WINDOW_BINS
N_BINS = 40 * WINDOW_BINS + 700
PARAMETERS = ["count_log_mean", "count_log_dispersion", "signal_mean", "signal_sd"]
ASKED = {"depth": 20e6}


class Reads:
    """As much of a store as a picture looks at: one read in every bin of x of biosample a."""

    def assays(self, biosample):
        return ["x"] if biosample == "a" else []

    def experiment(self, biosample, assay):
        return type("Experiment", (), {"layers": {"counts", "signal"}})

    def read(self, biosample, assay, layer, chrom, start, end):
        return np.ones(end - start, dtype=np.uint8)


@pytest.fixture
def source(tmp_path: Path) -> Source:
    """Tracks that are flat but for a peak: of x and y of biosample a in window 35, of x of b in window 2."""
    tracks = {
        (biosample, assay): {"parameters": PARAMETERS, "observed": assay == "x"}
        for biosample, assay in (("a", "x"), ("a", "y"), ("b", "x"))
    }
    described = Described(STEP, {"chr1": STEP * N_BINS}, {}, tracks)
    region, path = Region("chr1", 0, STEP * N_BINS), tmp_path / "p.h5"
    with PredictionWriter(path, described) as writer:
        for biosample, n_tracks, at in (("a", 2, 35), ("b", 1, 2)):
            values = np.zeros((N_BINS, 4 * n_tracks), dtype=np.float32)
            values[at * WINDOW_BINS + 100 :][:200] = 3
            writer.add(biosample, region, values)
    return Source(described, {biosample: [(region, path)] for biosample in "ab"})


def experiments(**own: float | None) -> list[dict]:
    return [
        {
            "biosample": biosample,
            "assay": assay,
            "asked": ASKED,
            "covariates": {"depth": own[assay]} if own[assay] else None,
        }
        for biosample, assay in (("a", "x"), ("a", "y"), ("b", "x"))
    ]


@pytest.fixture
def drawn(monkeypatch):
    """Collect what is drawn."""
    calls: list[tuple] = []

    def noted(*arguments):
        calls.append(arguments)
        return b"picture"

    monkeypatch.setattr(picture_module, "locus_figure", noted)
    return calls


def test_the_stretch_and_the_table_are_of_all_that_was_predicted(source, drawn):
    picture = draw_picture(source, "counts", experiments(x=5e6, y=None), interval=None, store=None)
    assert picture.locus == Region("chr1", 35 * WIDTH, 36 * WIDTH)
    assert "chr1:1,792,001-1,843,200" in picture.caption
    assert [(row["biosample"], row["assay"], row["made by"]) for row in picture.summary] == [
        ("a", "x", "denoised"), ("a", "y", "imputed"), ("b", "x", "denoised"),
    ]  # fmt: skip
    mean = (N_BINS - 200 + 200 * np.exp(3)) / N_BINS
    for row in picture.summary:
        assert row["bins"] == N_BINS
        assert (row["mean"], row["median"], row["highest"]) == (float(f"{mean:.3g}"), 1, 20.1)


def test_reads_are_drawn_at_the_depth_that_was_asked_for_and_the_legend_says_so(source, drawn):
    picture = draw_picture(source, "counts", experiments(x=5e6, y=None), interval=0.8, store=Reads())
    ((title, start, resolution, rows, legend),) = drawn
    assert (title, start, resolution) == ("a chr1:1,792,001-1,843,200", 35 * WIDTH, STEP)
    assert legend == Legend("mean", "80 % interval", "observed reads, scaled to 20 M")
    assert [(row.label, row.observed) for row in rows] == [("x (denoised)", True), ("y (imputed)", False)]
    assert rows[0].raw.tolist() == [4.0] * WINDOW_BINS
    assert rows[1].raw is None
    assert all(row.lower is not None and (row.lower <= row.upper).all() for row in rows)
    assert "those of x by 4," in picture.caption


@pytest.mark.parametrize(("depth", "words"), [(20e6, "observed reads"), (None, "observed reads")])
def test_reads_as_deep_as_asked_for_or_of_unknown_depth_are_drawn_as_they_are(source, drawn, depth, words):
    picture = draw_picture(source, "counts", experiments(x=depth, y=None), interval=None, store=Reads())
    (row, _), legend = drawn[0][3:]
    assert isinstance(row, FigureRow)
    assert row.raw.tolist() == [1.0] * WINDOW_BINS
    assert legend.raw == words
    assert "multiplied" not in picture.caption


def test_observed_signal_is_not_scaled_and_its_track_is_a_median(source, drawn):
    picture = draw_picture(source, "signal", experiments(x=5e6, y=None), interval=None, store=Reads())
    (row, _), legend = drawn[0][3:]
    assert row.raw.tolist() == [1.0] * WINDOW_BINS
    assert (legend.centre, legend.raw) == ("median", "observed")
    assert "median of -log10 p" in picture.caption
    assert "median of -log10 p" in picture.summary_caption


def test_the_last_stretch_is_as_long_as_the_others(source, drawn):
    region = Region("chr1", 30 * WIDTH, 35 * WIDTH + 12_500)  # the peak is in the last 500 bins
    path = source.laid["a"][0][1]
    part = Source(source.described, {"a": [(region, path)], "b": []})
    picture = draw_picture(part, "counts", experiments(x=5e6, y=None), interval=None, store=None)
    assert picture.locus == Region("chr1", region.end - WIDTH, region.end)
    assert len(drawn[0][3][0].values) == WINDOW_BINS


def test_where_nothing_was_predicted_there_is_no_figure(source, drawn):
    nothing = Source(source.described, {"a": [], "b": []})
    picture = draw_picture(nothing, "counts", experiments(x=5e6, y=None), interval=None, store=None)
    assert (picture.figure, picture.locus, drawn) == (None, None, [])
    assert [row["bins"] for row in picture.summary] == [0, 0, 0]
