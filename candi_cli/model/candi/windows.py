"""Uncorrupted windows of one biosample, as prediction reads them."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from candi_cli.covariates import Covariates, encode
from candi_cli.genome import Region, Window
from candi_cli.model.candi.config import NO_SEQUENCE, Config
from candi_cli.model.candi.network import MISSING, OBSERVED, CandiBatch
from candi_cli.model.candi.reading import Bases, Lanes
from candi_cli.model.candi.reference import ReferenceAverage


def empty_batch(config: Config, n: int) -> CandiBatch:
    """Return n windows of which nothing is known."""
    lanes, length = len(config.assays) + 1, config.context_bins
    bases = torch.full((n, length * config.resolution), NO_SEQUENCE, dtype=torch.uint8)
    return CandiBatch(
        torch.zeros(n, length, lanes),
        torch.full((n, length, lanes), MISSING, dtype=torch.uint8),
        torch.from_numpy(encode([None] * lanes)).expand(n, -1, -1),
        torch.from_numpy(encode([Covariates()] * (lanes - 1))).expand(n, -1, -1),
        bases if config.reads_sequence else None,
    )


class PredictionDataset:
    """Windows of one biosample, and the covariates that are asked for.

    Parameters
    ----------
    lanes : the biosample
    covariates : of each lane, None where it is missing
    requested : of each assay's output
    sequence : DNA, or None
    reference : the mean signal of other biosamples, or None; the biosample itself is left out of it
    """

    def __init__(
        self,
        config: Config,
        lanes: Lanes,
        covariates: Sequence[Covariates | None],
        requested: Sequence[Covariates],
        sequence: Bases | None,
        reference: ReferenceAverage | None = None,
    ) -> None:
        self.config, self.lanes = config, lanes
        self.sequence = sequence if config.reads_sequence else None
        self.reference = reference if config.reads_reference else None
        self._lanes = lanes.lanes_with(config.input)
        self._covariates_in = encode(covariates)
        self._covariates_out = encode(requested)
        self._kept: dict[int, tuple[Region, NDArray[Any]]] = {}

    def batch(self, windows: Sequence[Window]) -> CandiBatch:
        """Return windows of equal context as one batch; bins outside of the chromosome are missing."""
        n, length, n_lanes = len(windows), self.config.context_bins, len(self.lanes.experiments)
        values = np.zeros((n, length, n_lanes), dtype=np.float32)
        availability = np.full((n, length, n_lanes), MISSING, dtype=np.uint8)
        bases, references = [], []
        for rows, at, stretch in _stretches(windows):
            for lane, where in zip(self._lanes, self._known(stretch), strict=True):
                known = sliding_window_view(where, length)[at]
                values[rows, :, lane] = np.where(known, sliding_window_view(self._read(lane, stretch), length)[at], 0)
                availability[rows, :, lane] = np.where(known, np.uint8(OBSERVED), np.uint8(MISSING))
            if self.sequence is not None:
                resolution = self.config.resolution
                codes = self.sequence.codes(stretch.chrom, stretch.start * resolution, stretch.end * resolution)
                bases.append(sliding_window_view(codes, length * resolution)[at * resolution])
            if self.reference is not None:
                mean = self.reference.read(self.config.assays, *stretch, without=self.lanes.biosample)
                references.append(sliding_window_view(mean, length, axis=0)[at].transpose(0, 2, 1))
        return CandiBatch(
            torch.from_numpy(values),
            torch.from_numpy(availability),
            torch.from_numpy(self._covariates_in).expand(n, -1, -1),
            torch.from_numpy(self._covariates_out).expand(n, -1, -1),
            torch.from_numpy(np.concatenate(bases)) if bases else None,
            torch.from_numpy(np.concatenate(references)) if references else None,
        )

    def signatures(self, windows: Sequence[Window]) -> list[object | None]:
        """Return for each window a value that windows with the same input share, None where it stands alone.

        Without DNA and reference, all windows inside a chromosome that hold no read are the same input, and so are all
        in which no signal was measured.
        """
        found: list[object | None] = [None] * len(windows)
        if self.sequence is not None or self.reference is not None:
            return found
        length, by_signal = self.config.context_bins, self.config.input == "signal"
        for rows, at, stretch in _stretches(windows):
            anything = np.zeros(stretch.end - stretch.start, dtype=np.bool_)
            if by_signal:
                anything |= self._known(stretch).any(axis=0)
            else:
                anything[: max(-stretch.start, 0)] = True  # a window that reaches over an end stands alone
                anything[self.lanes.store.n_bins(stretch.chrom) - stretch.start :] = True
                for lane in self._lanes:
                    anything |= self._read(lane, stretch) != 0
            sums = np.concatenate([[0], np.cumsum(anything)])
            for row in np.flatnonzero(sums[at + length] == sums[at]).tolist():
                found[rows.start + row] = "no signal" if by_signal else "no reads"
        return found

    def _known(self, stretch: Region) -> NDArray[np.bool_]:
        """Return in which bins of a stretch each lane that is read was measured: shape (n, L)."""
        chrom, start, end = stretch
        if self.config.input == "signal":
            return self.lanes.measured(self._lanes, chrom, start, end)
        inside = np.zeros(end - start, dtype=np.bool_)
        inside[max(0, -start) : self.lanes.store.n_bins(chrom) - start] = True
        return np.broadcast_to(inside, (len(self._lanes), end - start))

    def _read(self, lane: int, stretch: Region) -> NDArray[Any]:
        """Return bins of a lane; those of the last stretch are kept, for it is read for signatures and batch."""
        chrom, start, end = stretch
        kept, values = self._kept.get(lane, (Region("", 0, 0), np.zeros(0)))
        if kept.chrom != chrom or start < kept.start or end > kept.end:
            values = self.lanes.read(lane, self.config.input, chrom, start, end)
            kept, self._kept[lane] = stretch, (stretch, values)
        return values[start - kept.start : end - kept.start]


def _stretches(windows: Sequence[Window]) -> Iterator[tuple[slice, NDArray[np.int64], Region]]:
    """Yield windows that overlap or abut together: their rows, where each begins, and the bins from first to last."""
    first = 0
    for row in range(1, len(windows) + 1):
        if row < len(windows):
            one, other = windows[row - 1], windows[row]
            if one.chrom == other.chrom and one.context_start <= other.context_start <= one.context_end:
                continue
        here = windows[first:row]
        start = here[0].context_start
        at = np.array([window.context_start - start for window in here])
        yield slice(first, row), at, Region(here[0].chrom, start, here[-1].context_end)
        first = row
