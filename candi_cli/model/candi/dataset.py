"""Windows of stores as the batches that the network reads, for training and for prediction."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from candi_cli.covariates import CONTROL, UNKNOWN, Covariates, encode
from candi_cli.genome import Window
from candi_cli.loci import Loci
from candi_cli.model.candi.masking import Thinned, draw_masked_assays, draw_masked_loci, thin_counts, thin_folds
from candi_cli.model.candi.network import MASKED, MISSING, NO_SEQUENCE, OBSERVED, CandiBatch, Config
from candi_cli.store import Store, StoredExperiment


class Bases(Protocol):
    """Where DNA comes from; `io.sequence.Sequence` is one."""

    def codes(self, chrom: str, start: int, end: int) -> NDArray[np.uint8]:
        """Return base codes of [start, end)."""


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


@dataclass(frozen=True)
class Corruption:
    """Probabilities, each drawn anew for every window, of what is done to it in training."""

    mask_assays: float = 0.5
    mask_loci: float = 0.5
    thin: float = 0.9
    drop_sequence: float = 0.5
    drop_covariate: float = 0.1
    reverse_complement: float = 0.5


class Lanes:
    """The experiments of one biosample in the order of a model's lanes; the last lane is the control.

    Parameters
    ----------
    assays : of the lanes
    shown : the assays of the biosample that there are to be seen; default: all that the store has
    """

    def __init__(
        self, store: Store, biosample: str, assays: Sequence[str], *, shown: Collection[str] | None = None
    ) -> None:
        self.store, self.biosample = store, biosample
        present = set(store.assays(biosample) if shown is None else shown)
        self.experiments: list[StoredExperiment | None] = [
            store.experiment(biosample, assay) if assay in present else None for assay in (*assays, CONTROL)
        ]

    def lanes_with(self, layer: str) -> list[int]:
        """Return the numbers of the lanes that have a layer."""
        return [int(lane) for lane in np.flatnonzero(self.available(layer))]

    def available(self, layer: str) -> NDArray[np.bool_]:
        """Return which lanes have a layer: shape (T,)."""
        return np.array([experiment is not None and layer in experiment.layers for experiment in self.experiments])

    def read(self, lane: int, layer: str, chrom: str, start: int, end: int) -> NDArray[Any]:
        """Return bins of one lane's layer."""
        experiment = self.experiments[lane]
        if experiment is None:
            raise KeyError(f"{self.biosample} has no lane {lane}")
        return self.store.read(self.biosample, experiment.assay, layer, chrom, start, end)

    def has(self, lane: int, layer: str, chrom: str) -> bool:
        """Return whether one lane has a layer on a chromosome."""
        experiment = self.experiments[lane]
        return experiment is not None and self.store.has(self.biosample, experiment.assay, layer, chrom)

    def covariates(self) -> list[Covariates | None]:
        """Return the covariates of each lane, None where it is missing."""
        return [experiment.covariates if experiment else None for experiment in self.experiments]


class PredictionDataset:
    """Uncorrupted windows of one biosample, and the covariates that are asked for.

    Parameters
    ----------
    lanes : the biosample
    covariates : of each lane, None where it is missing
    requested : of each assay's output
    sequence : DNA, or None
    """

    def __init__(
        self,
        config: Config,
        lanes: Lanes,
        covariates: Sequence[Covariates | None],
        requested: Sequence[Covariates],
        sequence: Bases | None,
    ) -> None:
        self.config, self.lanes = config, lanes
        self.sequence = sequence if config.reads_sequence else None
        self._lanes = lanes.lanes_with("counts")
        self._covariates_in = encode(covariates)
        self._covariates_out = encode(requested)

    def batch(self, windows: Sequence[Window]) -> CandiBatch:
        """Return windows of equal context as one batch; bins outside of the chromosome are missing."""
        n, length, n_lanes = len(windows), self.config.context_bins, len(self.lanes.experiments)
        counts = np.zeros((n, length, n_lanes), dtype=np.float32)
        availability = np.full((n, length, n_lanes), MISSING, dtype=np.uint8)
        for row, (chrom, start, end, _, _) in enumerate(windows):
            inside = slice(max(0, -start), length - max(0, end - self.lanes.store.n_bins(chrom)))
            for lane in self._lanes:
                counts[row, :, lane] = self.lanes.read(lane, "counts", chrom, start, end)
                availability[row, inside, lane] = OBSERVED
        sequence = None
        if self.sequence is not None:
            resolution = self.config.resolution
            codes = [
                self.sequence.codes(w.chrom, w.context_start * resolution, w.context_end * resolution) for w in windows
            ]
            sequence = torch.from_numpy(np.stack(codes))
        return CandiBatch(
            torch.from_numpy(counts),
            torch.from_numpy(availability),
            torch.from_numpy(self._covariates_in).expand(n, -1, -1),
            torch.from_numpy(self._covariates_out).expand(n, -1, -1),
            sequence,
        )

    def signature(self, window: Window) -> object | None:
        """Return a value that windows with the same input share, None for a window that stands alone.

        Without DNA, all windows inside a chromosome that hold no read are the same input.
        """
        chrom, start, end, _, _ = window
        if self.sequence is not None or start < 0 or end > self.lanes.store.n_bins(chrom):
            return None
        for lane in self._lanes:
            if self.lanes.read(lane, "counts", chrom, start, end).any():
                return None
        return "no reads"


class TrainingDataset:
    """Corrupted windows drawn from the loci of several biosamples, each biosample being equally likely.

    Every window is a function of (seed, step, its place in the batch): the order of stores' assays, the number of
    readers and what was drawn before do not change it.
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
    ) -> None:
        self.config, self.cohort, self.corruption = config, cohort, corruption
        self.batch_size, self.seed = batch_size, seed
        self.sequences = sequences or {}

    def batches(self, first_step: int = 0) -> Iterator[TrainingBatch]:
        """Yield one batch after the other, without end."""
        step = first_step
        while True:
            yield self.batch(step)
            step += 1

    def batch(self, step: int) -> TrainingBatch:
        """Return the batch of one step."""
        samples = [self._sample(np.random.default_rng((self.seed, step, row))) for row in range(self.batch_size)]
        columns = [np.stack(column) for column in zip(*samples, strict=True)]
        counts, availability, covariates_in, covariates_out, sequence, *targets = map(torch.from_numpy, columns)
        inputs = CandiBatch(
            counts, availability, covariates_in, covariates_out, sequence if self.config.reads_sequence else None
        )
        valid = torch.stack([layer.isfinite().all(dim=1) for layer in targets[:3]], dim=1)  # (N, 3, A)
        targets[:3] = [layer.nan_to_num(0.0) for layer in targets[:3]]
        counts_, signal, peaks, masked = targets
        return TrainingBatch(inputs, CandiTargets(counts_, signal, peaks, masked, valid))

    def _sample(self, rng: np.random.Generator) -> tuple[NDArray[Any], ...]:
        corruption, length = self.corruption, self.config.context_bins
        lanes, loci = self.cohort[int(rng.integers(len(self.cohort)))]
        chrom, start = loci.draw(rng)
        span = (chrom, start, start + length)
        available = lanes.available("counts")
        n_assays = len(available) - 1
        hidden = np.zeros(n_assays + 1, dtype=np.bool_)
        if rng.random() < corruption.mask_assays:
            hidden[:-1] = draw_masked_assays(rng, available[:-1])
        loci_hidden = np.zeros(length, dtype=np.bool_)
        if rng.random() < corruption.mask_loci:
            loci_hidden = draw_masked_loci(rng, length)
        thin = rng.random() < corruption.thin

        counts = np.zeros((length, n_assays + 1), dtype=np.float32)
        target = np.full((length, n_assays), np.nan, dtype=np.float32)
        covariates_in, covariates_out = lanes.covariates(), lanes.covariates()
        for lane in lanes.lanes_with("counts"):
            split = self._split(rng, lanes, lane, span, hidden=bool(hidden[lane]), thin=thin)
            counts[:, lane] = split.seen
            covariates_in[lane] = _thinned(covariates_in[lane], split.seen_share)
            if split.target_share and lane < n_assays:
                target[:, lane] = split.target
                covariates_out[lane] = _thinned(covariates_out[lane], split.target_share)

        availability = np.where(available, OBSERVED, MISSING).astype(np.uint8)[None].repeat(length, axis=0)
        availability[:, hidden] = MASKED
        availability[np.ix_(loci_hidden, np.append(available[:-1], False))] = MASKED  # the control is never hidden
        counts[availability == MASKED] = 0
        columns: tuple[NDArray[Any], ...] = (
            counts,
            availability,
            self._forget(rng, encode(covariates_in)),
            self._forget(rng, encode(covariates_out[:-1])),
            self._bases(rng, lanes.store.name, span),
            target,
            self._layer(lanes, "signal", span),
            self._layer(lanes, "peaks", span),
            availability[:, :-1] == MASKED,
        )
        if rng.random() < corruption.reverse_complement:
            columns = _reverse_complement(columns)
        return columns

    def _split(
        self, rng: np.random.Generator, lanes: Lanes, lane: int, span: tuple[str, int, int], *, hidden: bool, thin: bool
    ) -> Thinned:
        experiment = lanes.experiments[lane]
        assert experiment is not None
        if not (thin or hidden):  # all reads are seen, so none are left for an independent target
            counts = lanes.read(lane, "counts", *span).astype(np.int64)
            return Thinned(counts, counts, 1.0, 0.0)
        if "folds" in experiment.layers:
            return thin_folds(rng, lanes.read(lane, "folds", *span), experiment.fold_depths, hidden=hidden)
        return thin_counts(rng, lanes.read(lane, "counts", *span), hidden=hidden)

    def _layer(self, lanes: Lanes, layer: str, span: tuple[str, int, int]) -> NDArray[np.float32]:
        n_assays = len(lanes.experiments) - 1
        values = np.full((self.config.context_bins, n_assays), np.nan, dtype=np.float32)
        for lane in lanes.lanes_with(layer):
            if lane < n_assays and lanes.has(lane, layer, span[0]):  # a control is never an output
                values[:, lane] = lanes.read(lane, layer, *span)
        return values

    def _forget(self, rng: np.random.Generator, covariates: NDArray[np.float32]) -> NDArray[np.float32]:
        """Make single covariates not known, so that a model also works where they are not."""
        dropped = rng.random(covariates.shape) < self.corruption.drop_covariate
        covariates[:2][dropped[:2]] = np.nan
        covariates[2:][dropped[2:]] = UNKNOWN
        return covariates

    def _bases(self, rng: np.random.Generator, store: str, span: tuple[str, int, int]) -> NDArray[np.uint8]:
        chrom, start, end = span
        resolution = self.config.resolution
        dropped = rng.random() < self.corruption.drop_sequence
        bases = self.sequences.get(store)
        if not self.config.reads_sequence or bases is None or dropped:
            return np.full((end - start) * resolution, NO_SEQUENCE, dtype=np.uint8)
        return bases.codes(chrom, start * resolution, end * resolution)


def _thinned(covariates: Covariates | None, share: float) -> Covariates | None:
    if covariates is None or not covariates.depth:
        return covariates
    return replace(covariates, depth=covariates.depth * share or None)


def _reverse_complement(columns: tuple[NDArray[Any], ...]) -> tuple[NDArray[Any], ...]:
    """Flip a sample along the genome and complement its bases; covariates stay as they are."""
    counts, availability, covariates_in, covariates_out, sequence, *targets = columns
    complement = np.array([3, 2, 1, 0, 4, NO_SEQUENCE], dtype=np.uint8)
    flipped = [np.ascontiguousarray(track[::-1]) for track in (counts, availability, *targets)]
    bases = np.ascontiguousarray(complement[sequence[::-1]])
    return (*flipped[:2], covariates_in, covariates_out, bases, *flipped[2:])
