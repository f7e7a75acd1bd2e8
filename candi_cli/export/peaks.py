"""Peak calls from predicted probabilities, as UCSC's narrowPeak."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from candi_cli.evaluation.tracks import PeakRuns, call_peaks
from candi_cli.export.source import Source
from candi_cli.genome import Region

MAX_GAP_BP, MIN_LENGTH_BP = 100, 150  # less than the DNA around a nucleosome, 147 bp, and all of it
NOT_GIVEN = "-1"  # narrowPeak's own convention


def narrowpeak_lines(source: Source, biosample: str, assay: str, threshold: float) -> Iterator[bytes]:
    """Yield the lines of each region's peaks: runs of bins whose probability is at least the threshold.

    Runs that are at most `MAX_GAP_BP` apart are one peak; peaks shorter than `MIN_LENGTH_BP` are left out. Both are
    taken as whole bins, so that a short bin at a chromosome's end counts as one. Names are numbered over all that is
    predicted. The summit is the middle of the most probable bin, score and signalValue its probability (times 1000, and
    as it is), pValue the predicted median of -log10 p there, where the model predicts one. There is no q-value.
    """
    parameters = ["peak_logit"]
    if "signal_mean" in source.described.tracks[biosample, assay]["parameters"]:
        parameters.append("signal_mean")
    resolution, name, number = source.described.resolution, _name(biosample, assay), 0
    max_gap, min_length = MAX_GAP_BP // resolution, -(-MIN_LENGTH_BP // resolution)
    for region, values in source.whole_regions(biosample, assay, parameters):
        probability = expit(values[0].astype(np.float64))
        runs = call_peaks(probability, threshold, max_gap=max_gap, min_length=min_length)
        p_values = np.sinh(values[1][runs.summit].astype(np.float64)) if len(parameters) > 1 else None
        yield "".join(_lines(runs, p_values, region, resolution, name, number)).encode()
        number += len(runs.start)


def _name(biosample: str, assay: str) -> str:
    """Return what a peak's name starts with; some programs split the lines of a BED at any space."""
    return "_".join(f"{biosample}.{assay}.peak".split())


def _lines(
    runs: PeakRuns, p_values: NDArray[np.float64] | None, region: Region, resolution: int, name: str, number: int
) -> Iterator[str]:
    columns = (runs.start, runs.end, runs.summit, runs.height)
    for row, (start, end, summit, height) in enumerate(zip(*(column.tolist() for column in columns), strict=True)):
        first, last = region.start + start * resolution, min(region.start + end * resolution, region.end)
        middle = min(region.start + summit * resolution + resolution // 2, last - 1) - first
        p_value = f"{max(p_values[row], 0):.3g}" if p_values is not None else NOT_GIVEN
        fields = (
            region.chrom, first, last, f"{name}{number + row + 1}", round(1000 * height), ".", f"{height:.3g}",
            p_value, NOT_GIVEN, middle,
        )  # fmt: skip
        yield "\t".join(map(str, fields)) + "\n"
