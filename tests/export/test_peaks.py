"""Peak calls as narrowPeak, against a loop over the bins and the rules of the format."""

import itertools
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from candi_cli.export.peaks import narrowpeak_lines
from candi_cli.export.source import Source
from candi_cli.genome import Region
from candi_cli.store.predictions import Described, PredictionWriter

STEP = 25


class Peak(NamedTuple):
    """The columns of a narrowPeak line, by UCSC's names."""

    chrom: str
    start: int
    end: int
    name: str
    score: int
    strand: str
    signal_value: float
    p_value: float
    q_value: float
    peak: int


def parsed(content: bytes) -> list[Peak]:
    rows = [line.split("\t") for line in content.decode().splitlines()]
    assert content.endswith(b"\n") or not content
    types = Peak.__annotations__.values()
    return [Peak(*(kind(field) for kind, field in zip(types, row, strict=True))) for row in rows]


def called(source: Source, biosample: str, assay: str, threshold: float = 0.5) -> list[Peak]:
    with source:
        return parsed(b"".join(narrowpeak_lines(source, biosample, assay, threshold)))


def of_probabilities(path: Path, *regions: tuple[Region, list[float]], length: int = 1_010) -> Source:
    """Write regions of one track of probabilities."""
    described = Described(STEP, {"chr1": length, "chr2": length}, {}, {("a", "x"): {"parameters": ["peak_logit"]}})
    with PredictionWriter(path, described) as writer:
        for region, values in regions:
            probability = np.array(values)
            with np.errstate(divide="ignore"):
                logit = np.log(probability / (1 - probability)).astype(np.float32)
            writer.add("a", region, logit[:, None])
    return Source(described, {"a": [(region, path) for region, _ in regions]})


def looped(probability: np.ndarray, threshold: float) -> list[tuple[int, int]]:
    """Runs of bins from the threshold on, those at most 4 bins (100 bp) apart as one, of at least 6 bins (150 bp)."""
    runs: list[tuple[int, int]] = []
    at = 0
    for inside, bins in itertools.groupby(probability >= threshold):
        n = len(list(bins))
        if inside and runs and at - runs[-1][1] <= 4:
            runs[-1] = runs[-1][0], at + n
        elif inside:
            runs.append((at, at + n))
        at += n
    return [(start, end) for start, end in runs if end - start >= 6]


def test_peaks_are_the_runs_of_a_loop_over_the_bins(known, tmp_path):
    for biosample, assay in known.described.tracks:
        expected, n_bridged = [], 0
        for region in known.described.wanted[biosample]:
            (logit,) = known.of(biosample, assay, ["peak_logit"], region)
            probability = 1 / (1 + np.exp(-logit.astype(np.float64)))
            for first, last in looped(probability, 0.3):
                n_bridged += (probability[first:last] < 0.3).any()
                start, end = region.start + first * STEP, min(region.start + last * STEP, region.end)
                expected.append((region.chrom, start, end, probability[first:last].max()))
        found = called(known.source(tmp_path / f"{biosample}.{assay}.h5"), biosample, assay, 0.3)
        assert [peak[:3] for peak in found] == [each[:3] for each in expected]
        heights = [height for *_, height in expected]
        assert [peak.signal_value for peak in found] == [float(f"{height:.3g}") for height in heights]
        assert [peak.score for peak in found] == [round(1000 * height) for height in heights]
        assert [peak.name for peak in found] == [
            f"{biosample}.{assay}.peak{number + 1}" for number in range(len(found))
        ]
        assert len(found) >= 5
        assert n_bridged > 0
        for peak in found:
            assert 0 <= peak.start < peak.end <= known.described.chromsizes[peak.chrom]
            assert 0 <= peak.score <= 1000
            assert 0 <= peak.peak < peak.end - peak.start
            assert (peak.strand, peak.q_value) == (".", -1)


def test_the_summit_is_the_middle_of_the_most_probable_bin_and_its_p_value_that_of_the_signal_there(known, tmp_path):
    found = called(known.source(tmp_path / "p.h5"), "a", "H3K4me3", 0.3)
    assert len(found) > 5
    for peak in found:
        region = Region(peak.chrom, peak.start, peak.end)
        logit, mean = known.of("a", "H3K4me3", ["peak_logit", "signal_mean"], region)
        top = int(np.argmax(logit))
        if np.count_nonzero(logit == logit[top]) == 1:
            assert peak.peak == min(top * STEP + STEP // 2, peak.end - peak.start - 1)
            assert peak.p_value == pytest.approx(max(np.sinh(float(mean[top])), 0), rel=6e-3)
    assert {peak.p_value for peak in called(known.source(tmp_path / "q.h5"), "a", "CTCF", 0.3)} == {-1}


def test_a_peak_in_the_last_bin_ends_with_its_chromosome_and_has_its_summit_inside(tmp_path):
    source = of_probabilities(tmp_path / "p.h5", (Region("chr1", 825, 1_010), [0.1, 0.1, *[0.6] * 5, 0.75]))
    (peak,) = called(source, "a", "x")
    assert peak[:3] == ("chr1", 875, 1_010)
    assert (peak.peak, peak.score, peak.signal_value) == (134, 750, 0.75)


def test_numbers_go_on_over_regions_and_peaks_do_not_cross_what_was_not_predicted(tmp_path):
    source = of_probabilities(
        tmp_path / "p.h5",
        (Region("chr1", 0, 425), [*[0.9] * 6, *[0.1] * 5, *[0.9] * 6]),
        (Region("chr1", 450, 600), [0.9] * 6),
        (Region("chr1", 600, 650), [0.9, 0.2]),
        (Region("chr2", 0, 150), [0.6] * 6),
    )
    found = called(source, "a", "x")
    assert [(*peak[:3], peak.name) for peak in found] == [
        ("chr1", 0, 150, "a.x.peak1"),
        ("chr1", 275, 425, "a.x.peak2"),
        ("chr1", 450, 625, "a.x.peak3"),
        ("chr2", 0, 150, "a.x.peak4"),
    ]


@pytest.mark.parametrize(
    ("values", "spans"),
    [
        ([0.9] * 5, []),
        ([0.9] * 6, [(0, 150)]),
        ([0.9, 0.1, 0.1, 0.1, 0.1, 0.9], [(0, 150)]),
        ([*[0.9] * 5, *[0.1] * 5, *[0.9] * 5], []),
    ],
    ids=["125 bp", "150 bp", "a gap of 100 bp", "a gap of 125 bp"],
)
def test_a_gap_of_100_bp_is_closed_and_a_peak_has_150_bp(tmp_path, values, spans):
    source = of_probabilities(tmp_path / "p.h5", (Region("chr1", 0, STEP * len(values)), values))
    assert [peak[1:3] for peak in called(source, "a", "x")] == spans


def test_a_peaks_name_has_no_space_whatever_its_biosample_has(tmp_path):
    described = Described(STEP, {"chr1": 150}, {}, {("CD4+ T  cell, naïve", "x y"): {"parameters": ["peak_logit"]}})
    with PredictionWriter(tmp_path / "p.h5", described) as writer:
        writer.add("CD4+ T  cell, naïve", Region("chr1", 0, 150), np.ones((6, 1), dtype=np.float32))
    source = Source(described, {"CD4+ T  cell, naïve": [(Region("chr1", 0, 150), tmp_path / "p.h5")]})
    (peak,) = called(source, "CD4+ T  cell, naïve", "x y")
    assert peak.name == "CD4+_T_cell,_naïve.x_y.peak1"


@pytest.mark.parametrize(("threshold", "n_peaks"), [(0.5, 1), (0.51, 0), (0.01, 1), (1.0, 0)])
def test_a_bin_is_in_a_peak_from_the_threshold_on(tmp_path, threshold, n_peaks):
    source = of_probabilities(tmp_path / "p.h5", (Region("chr1", 0, 200), [0.0, 0.0, *[0.5] * 6]))
    assert len(called(source, "a", "x", threshold)) == n_peaks


def test_certain_peaks_have_the_highest_score_and_no_peaks_are_no_lines(tmp_path):
    certain = of_probabilities(tmp_path / "p.h5", (Region("chr1", 0, 150), [1.0] * 6))
    (peak,) = called(certain, "a", "x", 1.0)
    assert (peak.score, peak.signal_value) == (1000, 1)
    assert called(of_probabilities(tmp_path / "q.h5", (Region("chr1", 0, 50), [0.0, 0.0])), "a", "x") == []
