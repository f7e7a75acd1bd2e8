"""Uncorrupted windows of one biosample, as prediction reads them."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from candi_cli.covariates import Covariates, encode
from candi_cli.genome import Window
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

    def batch(self, windows: Sequence[Window]) -> CandiBatch:
        """Return windows of equal context as one batch; bins outside of the chromosome are missing."""
        n, length, n_lanes = len(windows), self.config.context_bins, len(self.lanes.experiments)
        values = np.zeros((n, length, n_lanes), dtype=np.float32)
        availability = np.full((n, length, n_lanes), MISSING, dtype=np.uint8)
        for row, window in enumerate(windows):
            chrom, start, end, _, _ = window
            known = self._known(window)
            for lane, where in zip(self._lanes, known, strict=True):
                values[row, where, lane] = self.lanes.read(lane, self.config.input, chrom, start, end)[where]
                availability[row, where, lane] = OBSERVED
        return CandiBatch(
            torch.from_numpy(values),
            torch.from_numpy(availability),
            torch.from_numpy(self._covariates_in).expand(n, -1, -1),
            torch.from_numpy(self._covariates_out).expand(n, -1, -1),
            self._bases(windows),
            self._references(windows),
        )

    def _known(self, window: Window) -> NDArray[np.bool_]:
        """Return in which bins of a window each lane that is read was measured: shape (n, L)."""
        chrom, start, end, _, _ = window
        if self.config.input == "signal":
            return self.lanes.measured(self._lanes, chrom, start, end)
        inside = np.zeros(end - start, dtype=np.bool_)
        inside[max(0, -start) : self.lanes.store.n_bins(chrom) - start] = True
        return np.broadcast_to(inside, (len(self._lanes), end - start))

    def _bases(self, windows: Sequence[Window]) -> Tensor | None:
        if self.sequence is None:
            return None
        resolution = self.config.resolution
        codes = [
            self.sequence.codes(w.chrom, w.context_start * resolution, w.context_end * resolution) for w in windows
        ]
        return torch.from_numpy(np.stack(codes))

    def _references(self, windows: Sequence[Window]) -> Tensor | None:
        if self.reference is None:
            return None
        means = [
            self.reference.read(
                self.config.assays, w.chrom, w.context_start, w.context_end, without=self.lanes.biosample
            )
            for w in windows
        ]
        return torch.from_numpy(np.stack(means))

    def signature(self, window: Window) -> object | None:
        """Return a value that windows with the same input share, None for a window that stands alone.

        Without DNA and reference, all windows inside a chromosome that hold no read are the same input, and so are all
        in which no signal was measured.
        """
        chrom, start, end, _, _ = window
        if self.sequence is not None or self.reference is not None:
            return None
        if self.config.input == "signal":
            return None if self._known(window).any() else "no signal"
        if start < 0 or end > self.lanes.store.n_bins(chrom):
            return None
        for lane in self._lanes:
            if self.lanes.read(lane, "counts", chrom, start, end).any():
                return None
        return "no reads"
