"""Peak calls from predicted probabilities, as UCSC's narrowPeak."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from candi_cli.evaluation.tracks import PeakRuns, call_peaks
from candi_cli.export.source import Source
from candi_cli.genome import Region

NOT_GIVEN = "-1"  # narrowPeak's own convention


def narrowpeak_lines(source: Source, biosample: str, assay: str, threshold: float) -> Iterator[bytes]:
    """Yield the lines of each region's peaks: runs of bins whose probability is at least the threshold.

    The summit is the middle of the most probable bin, score and signalValue its probability (times 1000, and as it is),
    pValue the predicted median of -log10 p there, where the model predicts one. There is no q-value.
    """
    parameters = ["peak_logit"]
    if "signal_mean" in source.described.tracks[biosample, assay]["parameters"]:
        parameters.append("signal_mean")
    number = 0
    for region, values in source.whole_regions(biosample, assay, parameters):
        runs = call_peaks(expit(values[0].astype(np.float64)), threshold)
        p_values = np.sinh(values[1][runs.summit].astype(np.float64)) if len(parameters) > 1 else None
        yield "".join(_lines(runs, p_values, region, source.described.resolution, assay, number)).encode()
        number += len(runs.start)


def _lines(
    runs: PeakRuns, p_values: NDArray[np.float64] | None, region: Region, resolution: int, assay: str, number: int
) -> Iterator[str]:
    columns = (runs.start, runs.end, runs.summit, runs.height)
    for row, (start, end, summit, height) in enumerate(zip(*(column.tolist() for column in columns), strict=True)):
        first, last = region.start + start * resolution, min(region.start + end * resolution, region.end)
        middle = min(region.start + summit * resolution + resolution // 2, last - 1) - first
        p_value = f"{max(p_values[row], 0):.3g}" if p_values is not None else NOT_GIVEN
        name, score = f"{assay}_peak_{number + row + 1}", round(1000 * height)
        fields = (region.chrom, first, last, name, score, ".", f"{height:.3g}", p_value, NOT_GIVEN, middle)
        yield "\t".join(map(str, fields)) + "\n"
