"""Windows of stores as the corrupted batches that the network learns from."""

import os
import shutil
import signal
import sys
import tempfile
import weakref
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, get_worker_info

from candi_cli.covariates import UNKNOWN, encode
from candi_cli.loci import Loci, merged
from candi_cli.model.candi.config import Config
from candi_cli.model.candi.decoding import DecodedBases, DecodedLanes, Spans, n_bytes
from candi_cli.model.candi.folds import sum_folds
from candi_cli.model.candi.masking import (
    SEEN,
    TARGET,
    Corruption,
    draw_masked_assays,
    draw_masked_loci,
    thin_counts,
)
from candi_cli.model.candi.network import MASKED, MISSING, NO_SEQUENCE, OBSERVED, CandiBatch
from candi_cli.model.candi.reading import Bases, Lanes
from candi_cli.model.candi.reference import ReferenceAverage
from candi_cli.model.candi.windows import PredictionDataset

__all__ = ["CandiTargets", "Corruption", "Lanes", "PredictionDataset", "TrainingBatch", "TrainingDataset", "shares_of"]

_COMPLEMENT = np.array([3, 2, 1, 0, 4, NO_SEQUENCE], dtype=np.uint8)
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


def shares_of(available: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return how often each biosample is drawn: half by biosamples, half by assays.

    Half of the windows are of each biosample alike; for the other half an assay is drawn, each alike, and then one of
    the biosamples that have it. So a biosample with rare assays is seen more often than one without.

    Parameters
    ----------
    available : shape (B, A), which assays each biosample has; one without any is not drawn
    """
    some = available.any(axis=1)
    n_having = np.maximum(available.sum(axis=0), 1)
    by_assay = (available / n_having).sum(axis=1) / max(1, int(available.any(axis=0).sum()))
    return 0.5 * some / max(1, int(some.sum())) + 0.5 * by_assay


@dataclass
class _Member:
    """A biosample that windows are drawn from, and what of it is the same for all windows.

    folded : lanes whose reads lie in folds, and the reads in each, by the number of folds
    """

    lanes: Lanes
    loci: Loci
    covariates: NDArray[np.float32]
    folded: list[tuple[tuple[int, ...], NDArray[np.float64]]] = field(default_factory=list)
    plain: tuple[int, ...] = ()
    signal: tuple[int, ...] = ()
    peaks: tuple[int, ...] = ()

    @classmethod
    def of(cls, lanes: Lanes, loci: Loci, config: Config) -> "_Member":
        """Look at the lanes of a biosample."""
        n_assays = len(config.assays)
        by_folds: dict[int, list[int]] = {}
        plain = []
        for lane in lanes.lanes_with("counts") if config.input == "counts" else ():
            experiment = lanes.experiments[lane]
            n_folds = len(experiment.fold_depths) if experiment and "folds" in experiment.layers else 0
            if n_folds > 1:
                by_folds.setdefault(n_folds, []).append(lane)
            else:
                plain.append(lane)
        folded = []
        for _, here in sorted(by_folds.items()):
            depths = np.stack([item.fold_depths for lane in here if (item := lanes.experiments[lane])])
            folded.append((tuple(here), depths / np.maximum(depths.sum(axis=1, keepdims=True), 1)))
        signal = [lane for lane in lanes.lanes_with("signal") if lane < n_assays or config.input == "signal"]
        peaks = tuple(lane for lane in lanes.lanes_with("peaks") if lane < n_assays)  # a control is never an output
        return cls(lanes, loci, encode(lanes.covariates()), folded, tuple(plain), tuple(signal), peaks)

    def wanted(self) -> list[tuple[tuple[int, ...], str]]:
        """Return the blocks that windows read."""
        blocks = [(lanes, "folds") for lanes, _ in self.folded]
        blocks += [(self.plain, "counts"), (self.signal, "signal"), (self.peaks, "peaks")]
        return [(lanes, layer) for lanes, layer in blocks if lanes]


class _Counts:
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


class _Batch:
    """Arrays of N windows that are being filled; lanes before bins, as stores hold them."""

    def __init__(self, config: Config, n: int) -> None:
        n_assays, length = len(config.assays), config.context_bins
        lanes, assays = (n, n_assays + 1, length), (n, n_assays, length)
        self.counts_in, self.counts = _Counts(*lanes), _Counts(*assays)
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


class TrainingDataset(Dataset[TrainingBatch]):
    """Corrupted windows drawn from the loci of several biosamples, as often as `shares_of` says.

    Every window is a function of (seed, step, its row in the global batch): the order of stores, biosamples and assays,
    the number of workers and processes, and what was drawn before do not change it.

    Parameters
    ----------
    batch_size : windows of a step, over all processes
    sequences : DNA by the name of the store
    reference : the mean signal of other biosamples, for a network that reads it
    rank, world_size : this process holds the rows `rank::world_size` of each batch
    """

    def __init__(
        self,
        config: Config,
        cohort: Sequence[tuple[Lanes, Loci]],
        *,
        corruption: Corruption,
        batch_size: int,
        seed: int,
        sequences: Mapping[str, Bases] | None = None,
        reference: ReferenceAverage | None = None,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.config, self.corruption = config, corruption
        self.seed, self.rows = seed, range(rank, batch_size, world_size)
        self.sequences: dict[str, Bases] = dict(sequences or {})
        self.reference = reference if config.reads_reference else None
        ordered = sorted(cohort, key=lambda member: (member[0].biosample, member[0].store.name))
        self.members = [_Member.of(lanes, loci, config) for lanes, loci in ordered]
        available = np.stack([member.lanes.available(config.input)[:-1] for member in self.members])
        self._up_to = np.cumsum(shares_of(available))
        self._scratch = np.zeros((2, len(config.assays) + 1, config.context_bins), dtype=np.uint32)

    def decode(self, folder: Path | None = None, *, limit_bytes: int | None = None) -> int:
        """Unpack what the windows will read into files, once, and return their size; 0 if that is above the limit.

        Without, each window is read from the compressed store. Call it before `batches`.

        Parameters
        ----------
        folder : kept, and used again by a later run; None for a temporary one that goes with this object
        limit_bytes : default: half of the room that the disk has
        """
        context = self.config.context_bins
        spans = [Spans(member.loci.spans(context)) for member in self.members]
        size = sum(
            n_bytes(member.lanes, each, member.wanted()) for member, each in zip(self.members, spans, strict=True)
        )
        place = folder or Path(tempfile.gettempdir())
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
        if size > (shutil.disk_usage(place).free // 2 if limit_bytes is None else limit_bytes):
            return 0
        if folder is None:
            folder = Path(tempfile.mkdtemp(prefix="candi-"))
            self._remove = weakref.finalize(self, _remove_folder, folder, os.getpid())
        for member, each in zip(self.members, spans, strict=True):
            member.lanes = DecodedLanes(member.lanes, each, folder, member.wanted())
        for name, bases in self.sequences.items() if self.config.reads_sequence else ():
            here = [member.loci for member in self.members if member.lanes.store.name == name]
            if here:
                self.sequences[name] = DecodedBases(bases, _union(here, context), self.config.resolution, folder, name)
        if self.reference is not None:
            lanes = [member.lanes for member in self.members]
            self.reference.decode(_union([member.loci for member in self.members], context), lanes)
        return size

    def batches(self, first_step: int = 0, *, workers: int = 0, pin: bool = False) -> Iterator[TrainingBatch]:
        """Yield the batch of one step after the other, without end.

        Parameters
        ----------
        workers : processes that prepare batches ahead; 0 for none
        pin : in memory from which a GPU copies without waiting
        """
        loader = DataLoader(
            self, batch_size=None, sampler=_Steps(first_step), num_workers=workers, pin_memory=pin,
            collate_fn=_as_it_is, worker_init_fn=_start_worker if workers else None,
            prefetch_factor=2 if workers else None,
            multiprocessing_context="fork" if workers and sys.platform == "linux" else None,
        )  # fmt: skip
        yield from loader

    def __getitem__(self, step: int) -> TrainingBatch:
        return self.batch(step)

    def batch(self, step: int) -> TrainingBatch:
        """Return this process's rows of the batch of one step."""
        batch = _Batch(self.config, len(self.rows))
        for row, global_row in enumerate(self.rows):
            self._fill(batch, row, np.random.default_rng((self.seed, step, global_row)))
        return batch.finish()

    def describe(self, step: int) -> str:
        """Name the biosample and the place of each window of a batch, in order."""
        names = []
        for row in self.rows:
            member, chrom, start = self._draw(np.random.default_rng((self.seed, step, row)))
            names.append(f"{member.lanes.biosample} {chrom}:{start * self.config.resolution + 1:,}")
        return "; ".join(names)

    def _draw(self, rng: np.random.Generator) -> tuple[_Member, str, int]:
        pick = int(np.searchsorted(self._up_to, rng.random() * self._up_to[-1], side="right"))
        member = self.members[pick]
        return (member, *member.loci.draw(rng))

    def _fill(self, batch: _Batch, row: int, rng: np.random.Generator) -> None:
        """Draw a window and write it into a row of the batch."""
        config, corruption, length = self.config, self.corruption, self.config.context_bins
        member, chrom, start = self._draw(rng)
        span = (chrom, start, start + length)
        available = self._available(member, span)
        hidden = np.zeros(len(available), dtype=np.bool_)
        if rng.random() < corruption.mask_assays:
            hidden[:-1] = draw_masked_assays(rng, available[:-1])
        hidden_bins = np.zeros(length, dtype=np.bool_)
        if rng.random() < corruption.mask_loci:
            hidden_bins = draw_masked_loci(rng, length)
        along = slice(None, None, -1 if rng.random() < corruption.reverse_complement else 1)

        state = np.where(available, np.where(hidden, MASKED, OBSERVED), MISSING).astype(np.uint8)
        availability = batch.availability[row]
        availability[:] = state[:, None]
        bins_state = np.where(hidden_bins[along], np.uint8(MASKED), np.uint8(OBSERVED))
        np.minimum(availability[:-1], bins_state, out=availability[:-1])  # the control is never hidden
        np.equal(availability[:-1], MASKED, out=batch.masked[row])
        self._put_layers(batch, row, member, span, along)
        covariates_in, covariates_out = member.covariates.copy(), member.covariates[:, :-1].copy()
        if config.input == "counts":
            shares = self._put_counts(batch, row, member, span, rng, hidden, hidden_bins, along)
            _deepen(covariates_in[0], shares[0])
            _deepen(covariates_out[0], np.where(shares[1] > 0, shares[1], 1)[:-1])
            batch.valid[row, 0] = shares[1, :-1] > 0
        batch.covariates_in[row] = self._forget(rng, covariates_in)
        batch.covariates_out[row] = self._forget(rng, covariates_out)
        if batch.sequence is not None:
            self._put_bases(batch.sequence[row], member.lanes.store.name, span, rng, along)
        if batch.reference is not None:
            batch.reference[row] = np.nan
            if self.reference is not None:
                mean = self.reference.read(config.assays, *span, without=member.lanes.biosample)
                batch.reference[row] = mean.T[:, along]

    def _available(self, member: _Member, span: tuple[str, int, int]) -> NDArray[np.bool_]:
        """Return which lanes have data in a window: shape (T,)."""
        available = np.zeros(len(self.config.assays) + 1, dtype=np.bool_)
        if self.config.input == "signal":
            available[list(member.signal)] = member.lanes.whole(member.signal, *span)
        else:
            for lanes, _ in member.folded:
                available[list(lanes)] = True
            available[list(member.plain)] = True
        return available

    def _put_counts(
        self,
        batch: _Batch,
        row: int,
        member: _Member,
        span: tuple[str, int, int],
        rng: np.random.Generator,
        hidden: NDArray[np.bool_],
        hidden_bins: NDArray[np.bool_],
        along: slice,
    ) -> NDArray[np.float64]:
        """Write what is seen of the reads, and the target; return the share of all reads in each: shape (2, T)."""
        thinning, into = self.corruption.draw_thinning(rng), self._scratch
        into[:] = 0
        shares = np.zeros(into.shape[:2])
        for lanes, depths in member.folded:
            here = np.array(lanes)
            sides = thinning.sides(rng, depths.shape[1], hidden[here])
            block = member.lanes.block(lanes, "folds", *span)
            sum_folds(block.values, block.at, sides, here, into)
            for side in (SEEN, TARGET):
                shares[side - 1, here] = (depths * (sides == side)).sum(axis=1)
        if member.plain:
            here = np.array(member.plain)
            seen, rest = thinning.shares(rng, hidden[here])
            counts = member.lanes.block(member.plain, "counts", *span).window(into.shape[2])
            into[:, here] = thin_counts(rng, counts, seen, rest)
            shares[:, here] = seen, (1 - seen) * rest
        into[0, :-1] *= ~hidden_bins
        batch.counts_in.put(row, into[0][:, along])
        batch.counts.put(row, into[1, :-1][:, along])
        return shares

    def _put_layers(self, batch: _Batch, row: int, member: _Member, span: tuple[str, int, int], along: slice) -> None:
        """Write signal and peaks, and where they are."""
        length, n_assays = self.config.context_bins, len(self.config.assays)
        if member.signal:
            here = np.array(member.signal)
            whole = member.lanes.whole(member.signal, *span)
            values = member.lanes.block(member.signal, "signal", *span).window(length)[:, along]
            outputs = whole & (here < n_assays)
            batch.signal[row, here[outputs]] = values[outputs]
            batch.valid[row, 1, here[outputs]] = True
            if batch.signal_in is not None:
                batch.signal_in[row, here[whole]] = values[whole]
                batch.signal_in[row] *= batch.availability[row] == OBSERVED
        if member.peaks:
            here = np.array(member.peaks)
            batch.peaks[row, here] = member.lanes.block(member.peaks, "peaks", *span).window(length)[:, along]
            batch.valid[row, 2, here] = member.lanes.on_chrom(member.peaks, "peaks", span[0])

    def _forget(self, rng: np.random.Generator, covariates: NDArray[np.float32]) -> NDArray[np.float32]:
        """Make single covariates not known, so that a model also works where they are not."""
        dropped = rng.random(covariates.shape) < self.corruption.drop_covariate
        covariates[:2][dropped[:2]] = np.nan
        covariates[2:][dropped[2:]] = UNKNOWN
        return covariates

    def _put_bases(
        self, into: NDArray[np.uint8], store: str, span: tuple[str, int, int], rng: np.random.Generator, along: slice
    ) -> None:
        chrom, start, end = span
        dropped = rng.random() < self.corruption.drop_sequence
        bases = self.sequences.get(store)
        if bases is None or dropped:
            into[:] = NO_SEQUENCE
            return
        codes = bases.codes(chrom, start * self.config.resolution, end * self.config.resolution)
        into[:] = codes if along.step == 1 else _COMPLEMENT[codes[::-1]]


class _Steps(Sampler[int]):
    """The numbers of the steps, from the first on."""

    def __init__(self, first_step: int) -> None:
        self.first_step = first_step

    def __iter__(self) -> Iterator[int]:
        return count(self.first_step)


def _as_it_is(batch: Any) -> Any:
    return batch


def _start_worker(_number: int) -> None:
    for number in (signal.SIGINT, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)  # the parent hears them too, and decides
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _remove_folder(folder: Path, process: int) -> None:
    if os.getpid() == process:  # not when a worker ends
        shutil.rmtree(folder, ignore_errors=True)


def _union(loci: Sequence[Loci], context: int) -> Spans:
    runs: dict[str, list[NDArray[np.int64]]] = {}
    for each in loci:
        for chrom, found in each.spans(context).items():
            runs.setdefault(chrom, []).append(found)
    return Spans({chrom: merged(np.concatenate(found)) for chrom, found in runs.items()})


def _deepen(log_depth: NDArray[np.float32], share: NDArray[np.float64]) -> None:
    """Turn depths of all reads into those of a share; a share of 0 has no depth."""
    known = share > 0
    log_depth[known] += np.log2(share[known]).astype(np.float32)
    log_depth[~known] = np.nan
