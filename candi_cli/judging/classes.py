"""Classes of bins that scores are given of: all, promoters, gene bodies, enhancers, a user's regions, and strata.

Strata are by what was predicted, never by what was observed: bins chosen by their observed value are no fair test of a
predicted distribution, since even a perfect one is exceeded where the highest observations are picked out.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from candi_cli.genome import Chromsizes
from candi_cli.judging.grid import Grid, Intervals
from candi_cli.judging.tracks import JudgedTrack

PROMOTER_BP = 1_000  # to either side of a transcription start
STRATA = ("lowest half", "50-90 %", "90-99 %", "top 1 %")
_STRATA_UP_TO = (0.5, 0.9, 0.99)
GENOME = "genome"
Mask = NDArray[np.bool_]


class Annotation(NamedTuple):
    """Intervals of the genome by the name of their class, in the order in which they are shown."""

    classes: dict[str, Intervals]
    excluded: Intervals

    def masks(self, grid: Grid) -> dict[str, Mask]:
        """Return which bins of a grid are of each class, beginning with all: shape (L,) each.

        Bins that are excluded are of no class.
        """
        kept = ~grid.within(self.excluded) if self.excluded else np.ones(grid.n_bins, dtype=np.bool_)
        return {GENOME: kept} | {name: grid.within(spans) & kept for name, spans in self.classes.items()}


def promoters(starts: Intervals, chromsizes: Chromsizes, width_bp: int = PROMOTER_BP) -> Intervals:
    """Return intervals around transcription starts.

    Parameters
    ----------
    starts : positions (bp) of each chromosome as intervals of 1 bp
    width_bp : to either side
    """
    return {
        chrom: np.stack(
            [
                np.maximum(spans[:, 0] - width_bp, 0),
                np.minimum(spans[:, 0] + width_bp, chromsizes.get(chrom, np.iinfo(np.int64).max)),
            ],
            axis=1,
        )
        for chrom, spans in starts.items()
    }


def strata(track: JudgedTrack, kept: Mask) -> NDArray[np.int8]:
    """Return the stratum of each bin by the expected value: shape (L,), a number of `STRATA`, -1 outside of `kept`.

    Ties at a quantile go to the lower stratum.
    """
    expected = track.expected
    labels = np.full(track.grid.n_bins, -1, dtype=np.int8)
    if kept.any():
        edges = np.quantile(expected[kept], _STRATA_UP_TO)
        labels[kept] = np.searchsorted(edges, expected[kept], side="left")
    return labels
