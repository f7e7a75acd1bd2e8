"""A training batch: what the network reads, what its outputs are held to, and the arrays that become both."""

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import get_worker_info

from candi_cli.model.candi.config import Config
from candi_cli.model.candi.network import CandiBatch

_WIDTHS = (np.dtype(np.uint8), np.dtype(np.uint16), np.dtype(np.int32))  # of counts on their way to the device


class CandiTargets(NamedTuple):
    """What the outputs are held to, each (N, L, A) but `valid`; where there is nothing to hold them to, they are 0.

    counts : reads per bin, any integer type; signal : -log10 p, float; peaks : 0 or 1, any type
    masked : bool, the entries whose own data were hidden (the paper's *imp*), not seen (*obs*)
    valid : (N, 3, A) bool, whether a window's lane has a target of counts, signal and peaks
    """

    counts: Tensor
    signal: Tensor
    peaks: Tensor
    masked: Tensor
    valid: Tensor


class TrainingBatch(NamedTuple):
    """A corrupted batch and its targets."""

    inputs: CandiBatch
    targets: CandiTargets


class Counts:
    """Counts of a batch, in the smallest width that holds them: shape (N, T, L)."""

    def __init__(self, *shape: int) -> None:
        self.values = _zeros(shape, _WIDTHS[0])

    def put(self, row: int, counts: NDArray[np.uint32]) -> None:
        """Set one window."""
        largest = int(counts.max(initial=0))
        width = next(width for width in _WIDTHS if largest <= np.iinfo(width).max)
        if width.itemsize > self.values.itemsize:
            wider = _zeros(self.values.shape, width)
            wider[:row] = self.values[:row]
            self.values = wider
        self.values[row] = counts


class BatchArrays:
    """Arrays of N windows that are being filled; lanes before bins, as stores hold them."""

    def __init__(self, config: Config, n: int) -> None:
        n_assays, length = len(config.assays), config.context_bins
        lanes, assays = (n, n_assays + 1, length), (n, n_assays, length)
        self.counts_in, self.counts = Counts(*lanes), Counts(*assays)
        self.signal_in = _zeros(lanes, np.float32) if config.input == "signal" else None
        self.availability = _zeros(lanes, np.uint8)
        self.covariates_in = np.zeros((n, 4, n_assays + 1), dtype=np.float32)
        self.covariates_out = np.zeros((n, 4, n_assays), dtype=np.float32)
        self.sequence = _zeros((n, length * config.resolution), np.uint8) if config.reads_sequence else None
        self.reference = _zeros(assays, np.float32) if config.reads_reference else None
        self.signal = _zeros(assays, np.float32)
        self.peaks, self.masked = _zeros(assays, np.uint8), _zeros(assays, np.bool_)
        self.valid = np.zeros((n, 3, n_assays), dtype=np.bool_)

    def finish(self) -> TrainingBatch:
        """Return the batch as tensors."""
        values = self.counts_in.values if self.signal_in is None else self.signal_in
        inputs = CandiBatch(
            _along_bins(values),
            _along_bins(self.availability),
            torch.from_numpy(self.covariates_in),
            torch.from_numpy(self.covariates_out),
            None if self.sequence is None else torch.from_numpy(self.sequence),
            None if self.reference is None else _along_bins(self.reference),
        )
        counts, signal_out, peaks, masked = map(_along_bins, (self.counts.values, self.signal, self.peaks, self.masked))
        return TrainingBatch(inputs, CandiTargets(counts, signal_out, peaks, masked, torch.from_numpy(self.valid)))


def _zeros(shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
    """Return zeros; in a worker, where other processes can read them too, so that no copy is sent."""
    if get_worker_info() is None:
        return np.zeros(shape, dtype=dtype)
    n_bytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
    storage = torch.UntypedStorage._new_shared(max(n_bytes, 1))  # new shared memory is zero
    return torch.tensor([], dtype=torch.uint8).set_(storage).numpy()[:n_bytes].view(dtype).reshape(shape)


def _along_bins(lanes_first: NDArray[Any]) -> Tensor:
    return torch.from_numpy(lanes_first).transpose(1, 2)  # (N, T, L) -> (N, L, T), without a copy
