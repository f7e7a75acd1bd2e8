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


def test_peaks_are_the_runs_of_a_loop_over_the_bins(known, tmp_path):
    for biosample, assay in known.described.tracks:
        expected = []
        for region in known.described.wanted[biosample]:
            (logit,) = known.of(biosample, assay, ["peak_logit"], region)
            probability = 1 / (1 + np.exp(-logit.astype(np.float64)))
            at = 0
            for inside, bins in itertools.groupby(probability >= 0.3):
                n = len(list(bins))
                if inside:
                    start, end = region.start + at * STEP, min(region.start + (at + n) * STEP, region.end)
                    expected.append((region.chrom, start, end, probability[at : at + n].max()))
                at += n
        found = called(known.source(tmp_path / f"{biosample}.{assay}.h5"), biosample, assay, 0.3)
        assert [peak[:3] for peak in found] == [each[:3] for each in expected]
        heights = [height for *_, height in expected]
        assert [peak.signal_value for peak in found] == [float(f"{height:.3g}") for height in heights]
        assert [peak.score for peak in found] == [round(1000 * height) for height in heights]
        assert [peak.name for peak in found] == [f"{assay}_peak_{number + 1}" for number in range(len(found))]
        assert len(found) > 5
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
    source = of_probabilities(tmp_path / "p.h5", (Region("chr1", 950, 1_010), [0.1, 0.1, 0.75]))
    (peak,) = called(source, "a", "x")
    assert peak[:3] == ("chr1", 1_000, 1_010)
    assert (peak.peak, peak.score, peak.signal_value) == (9, 750, 0.75)


def test_numbers_go_on_over_regions_and_peaks_do_not_cross_what_was_not_predicted(tmp_path):
    source = of_probabilities(
        tmp_path / "p.h5",
        (Region("chr1", 0, 75), [0.9, 0.1, 0.9]),
        (Region("chr1", 100, 150), [0.9, 0.9]),
        (Region("chr1", 150, 200), [0.9, 0.2]),
        (Region("chr2", 0, 25), [0.6]),
    )
    found = called(source, "a", "x")
    assert [(*peak[:3], peak.name) for peak in found] == [
        ("chr1", 0, 25, "x_peak_1"),
        ("chr1", 50, 75, "x_peak_2"),
        ("chr1", 100, 175, "x_peak_3"),
        ("chr2", 0, 25, "x_peak_4"),
    ]


@pytest.mark.parametrize(("threshold", "n_peaks"), [(0.5, 1), (0.51, 0), (0.01, 1), (1.0, 0)])
def test_a_bin_is_in_a_peak_from_the_threshold_on(tmp_path, threshold, n_peaks):
    source = of_probabilities(tmp_path / "p.h5", (Region("chr1", 0, 50), [0.0, 0.5]))
    assert len(called(source, "a", "x", threshold)) == n_peaks


def test_certain_peaks_have_the_highest_score_and_no_peaks_are_no_lines(tmp_path):
    certain = of_probabilities(tmp_path / "p.h5", (Region("chr1", 0, 50), [1.0, 1.0]))
    (peak,) = called(certain, "a", "x", 1.0)
    assert (peak.score, peak.signal_value) == (1000, 1)
    assert called(of_probabilities(tmp_path / "q.h5", (Region("chr1", 0, 50), [0.0, 0.0])), "a", "x") == []
