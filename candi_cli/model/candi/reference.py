"""The mean signal of other biosamples at a locus: what an imputed track has to beat, as a start for the network.

It never holds the signal of the biosample that a window is of: neither in training, where that is the target, nor in
prediction.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from candi_cli.model.candi.decoding import Decoded, Spans
from candi_cli.model.candi.reading import Lanes
from candi_cli.model.candi.transform import signal_transform

_STEP = 2.0**-16  # transformed values are added up as whole multiples, so that one can be taken out exactly


class ReferenceAverage:
    """The mean over biosamples of arcsinh(-log10 p) of each assay.

    Parameters
    ----------
    assays : of the lanes
    members : the biosamples that it is made of; those of one name count as one biosample
    """

    def __init__(self, assays: Sequence[str], members: Sequence[Lanes]) -> None:
        self.assays = tuple(assays)
        self.members: dict[str, list[Lanes]] = {}
        for lanes in members:
            self.members.setdefault(lanes.biosample, []).append(lanes)
        self._sums: Decoded | None = None
        self._counts: Decoded | None = None

    def others(self, biosample: str) -> list[str]:
        """Return the names of the members but one."""
        return [name for name in self.members if name != biosample]

    def read(self, assays: Sequence[str], chrom: str, start: int, end: int, *, without: str) -> NDArray[np.float32]:
        """Return the mean over all biosamples but one: shape (L, A), NaN where no other has the assay measured.

        Parameters
        ----------
        start, end : bins
        without : the biosample that is left out
        """
        total, count = self._everyone(chrom, start, end, without)
        mean = np.full(total.shape, np.nan, dtype=np.float32)
        np.divide(total * _STEP, count, out=mean, where=count > 0, casting="same_kind")
        if tuple(assays) != self.assays:
            mean = mean[[self.assays.index(assay) for assay in assays]]
        return mean.T

    def decode(self, spans: Spans, unpacked: Sequence[Lanes] = ()) -> None:
        """Keep the sums over all biosamples in memory for the bins that training looks at.

        Parameters
        ----------
        unpacked : lanes of members, which are read faster than those given at first
        """
        faster = {(lanes.store.name, lanes.biosample): lanes for lanes in unpacked}
        for name, members in self.members.items():
            self.members[name] = [faster.get((lanes.store.name, name), lanes) for lanes in members]
        sums, counts = (np.zeros((len(self.assays), spans.n_bins), dtype=kind) for kind in (np.int32, np.int16))
        for chrom, start, end, at in spans.pieces():
            total, count = self._sum(chrom, start, end, list(self.members))
            sums[:, at : at + end - start], counts[:, at : at + end - start] = total, count
        self._sums, self._counts = Decoded(sums, spans), Decoded(counts, spans)

    def _everyone(self, chrom: str, start: int, end: int, without: str) -> tuple[NDArray, NDArray]:
        if self._sums is None or self._counts is None or not self._sums.spans.hold(chrom, start, end):
            return self._sum(chrom, start, end, [name for name in self.members if name != without])
        length = end - start
        own, n_own = self._sum(chrom, start, end, [without] if without in self.members else [])
        total = self._sums.block(chrom, start).window(length) - own
        return total, self._counts.block(chrom, start).window(length) - n_own

    def _sum(self, chrom: str, start: int, end: int, names: Sequence[str]) -> tuple[NDArray[np.int32], NDArray]:
        """Return the sum of biosamples' values in steps, and how many biosamples have each bin: shape (A, L) each."""
        total = np.zeros((len(self.assays), end - start), dtype=np.int32)
        count = np.zeros(total.shape, dtype=np.int16)
        for name in names:
            for lanes in self.members[name]:
                here = lanes.signals(len(self.assays), chrom)
                if not here:
                    continue
                values = lanes.block(here, "signal", chrom, start, end).window(end - start)
                steps = np.rint(signal_transform(values) * np.float32(1 / _STEP)).astype(np.int32)
                if not lanes.whole(here, chrom, start, end).all():
                    measured = lanes.measured(here, chrom, start, end)
                    total[list(here)] += steps * measured
                    count[list(here)] += measured
                else:
                    total[list(here)] += steps
                    count[list(here)] += 1
        return total, count
