"""Windows of stores as the corrupted batches that the network learns from."""

import os
import shutil
import tempfile
import weakref
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset

from candi_cli.covariates import UNKNOWN
from candi_cli.loci import Loci
from candi_cli.model.candi.batch import BatchArrays, CandiTargets, TrainingBatch
from candi_cli.model.candi.config import MASKED, MISSING, NO_SEQUENCE, OBSERVED, Config
from candi_cli.model.candi.decoding import DecodedBases, DecodedLanes, Spans, n_bytes, union_of
from candi_cli.model.candi.folds import sum_folds
from candi_cli.model.candi.masking import (
    SEEN,
    TARGET,
    Corruption,
    draw_masked_assays,
    draw_masked_loci,
    thin_counts,
)
from candi_cli.model.candi.members import Member, shares_of
from candi_cli.model.candi.reading import Bases, Lanes
from candi_cli.model.candi.reference import ReferenceAverage
from candi_cli.model.candi.stream import stream
from candi_cli.model.candi.windows import PredictionDataset

__all__ = ["CandiTargets", "Corruption", "Lanes", "PredictionDataset", "TrainingBatch", "TrainingDataset", "shares_of"]

_COMPLEMENT = np.array([3, 2, 1, 0, 4, NO_SEQUENCE], dtype=np.uint8)


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
        self.members = [Member.of(lanes, loci, config) for lanes, loci in ordered]
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
                self.sequences[name] = DecodedBases(
                    bases, union_of(here, context), self.config.resolution, folder, name
                )
        if self.reference is not None:
            lanes = [member.lanes for member in self.members]
            self.reference.decode(union_of([member.loci for member in self.members], context), lanes)
        return size

    def batches(self, first_step: int = 0, *, workers: int = 0, pin: bool = False) -> Iterator[TrainingBatch]:
        """Yield the batch of one step after the other, without end.

        Parameters
        ----------
        workers : processes that prepare batches ahead; 0 for none
        pin : in memory from which a GPU copies without waiting
        """
        return stream(self, first_step, workers=workers, pin=pin)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_remove"}

    def __getitem__(self, step: int) -> TrainingBatch:
        return self.batch(step)

    def batch(self, step: int) -> TrainingBatch:
        """Return this process's rows of the batch of one step."""
        batch = BatchArrays(self.config, len(self.rows))
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

    def _draw(self, rng: np.random.Generator) -> tuple[Member, str, int]:
        pick = int(np.searchsorted(self._up_to, rng.random() * self._up_to[-1], side="right"))
        member = self.members[pick]
        return (member, *member.loci.draw(rng))

    def _fill(self, batch: BatchArrays, row: int, rng: np.random.Generator) -> None:
        """Draw a window and write it into a row of the batch."""
        corruption, length = self.corruption, self.config.context_bins
        member, chrom, start = self._draw(rng)
        span = (chrom, start, start + length)
        available = self._available(member, span)
        hidden, hidden_bins = np.zeros(len(available), dtype=np.bool_), np.zeros(length, dtype=np.bool_)
        if rng.random() < corruption.mask_assays:
            hidden[:-1] = draw_masked_assays(rng, available[:-1], corruption.mask_most)
        if rng.random() < corruption.mask_loci:
            hidden_bins = draw_masked_loci(rng, length)
        along = slice(None, None, -1 if rng.random() < corruption.reverse_complement else 1)
        window = _Window(row, member, span, hidden, hidden_bins, along)

        state = np.where(available, np.where(hidden, MASKED, OBSERVED), MISSING).astype(np.uint8)
        availability = batch.availability[row]
        availability[:] = state[:, None]
        bins_state = np.where(hidden_bins[along], np.uint8(MASKED), np.uint8(OBSERVED))
        np.minimum(availability[:-1], bins_state, out=availability[:-1])  # the control is never hidden
        np.equal(availability[:-1], MASKED, out=batch.masked[row])
        self._put_signal(batch, window)
        self._put_peaks(batch, window)
        shares = self._put_counts(batch, window, rng) if self.config.input == "counts" else None
        self._put_covariates(batch, window, rng, shares)
        self._put_bases(batch, window, rng)
        self._put_reference(batch, window, rng)  # the last to draw, so that it changes nothing else of a seed

    def _available(self, member: Member, span: tuple[str, int, int]) -> NDArray[np.bool_]:
        """Return which lanes have data in a window: shape (T,)."""
        available = np.zeros(len(self.config.assays) + 1, dtype=np.bool_)
        if self.config.input == "signal":
            available[list(member.signal)] = member.lanes.whole(member.signal, *span)
        else:
            for lanes, _ in member.folded:
                available[list(lanes)] = True
            available[list(member.plain)] = True
        return available

    def _put_counts(self, batch: BatchArrays, window: "_Window", rng: np.random.Generator) -> NDArray[np.float64]:
        """Write what is seen of the reads, and the target; return the share of all reads in each: shape (2, T)."""
        row, member, span, hidden, hidden_bins, along = window
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
        batch.valid[row, 0] = shares[1, :-1] > 0
        return shares

    def _put_signal(self, batch: BatchArrays, window: "_Window") -> None:
        row, member, span, _, _, along = window
        if not member.signal:
            return
        here, whole = np.array(member.signal), member.lanes.whole(member.signal, *span)
        values = member.lanes.block(member.signal, "signal", *span).window(self.config.context_bins)[:, along]
        outputs = whole & (here < len(self.config.assays))  # a control is never an output
        batch.signal[row, here[outputs]] = values[outputs]
        batch.valid[row, 1, here[outputs]] = True
        if batch.signal_in is not None:
            batch.signal_in[row, here[whole]] = values[whole]
            batch.signal_in[row] *= batch.availability[row] == OBSERVED

    def _put_peaks(self, batch: BatchArrays, window: "_Window") -> None:
        row, member, span, _, _, along = window
        if member.peaks:
            here = np.array(member.peaks)
            values = member.lanes.block(member.peaks, "peaks", *span).window(self.config.context_bins)
            batch.peaks[row, here] = values[:, along]
            batch.valid[row, 2, here] = member.lanes.on_chrom(member.peaks, "peaks", span[0])

    def _put_covariates(
        self, batch: BatchArrays, window: "_Window", rng: np.random.Generator, shares: NDArray[np.float64] | None
    ) -> None:
        known = window.member.covariates
        covariates_in, covariates_out = known.copy(), known[:, :-1].copy()
        if shares is not None:
            _deepen(covariates_in[0], shares[0])
            _deepen(covariates_out[0], np.where(shares[1] > 0, shares[1], 1)[:-1])
        batch.covariates_in[window.row] = self._forget(rng, covariates_in)
        batch.covariates_out[window.row] = self._forget(rng, covariates_out)

    def _forget(self, rng: np.random.Generator, covariates: NDArray[np.float32]) -> NDArray[np.float32]:
        """Make single covariates not known, so that a model also works where they are not."""
        dropped = rng.random(covariates.shape) < self.corruption.drop_covariate
        covariates[:2][dropped[:2]] = np.nan
        covariates[2:][dropped[2:]] = UNKNOWN
        return covariates

    def _put_bases(self, batch: BatchArrays, window: "_Window", rng: np.random.Generator) -> None:
        if batch.sequence is None:
            return
        chrom, start, end = window.span
        dropped = rng.random() < self.corruption.drop_sequence
        bases = self.sequences.get(window.member.lanes.store.name)
        if bases is None or dropped:
            batch.sequence[window.row] = NO_SEQUENCE
            return
        codes = bases.codes(chrom, start * self.config.resolution, end * self.config.resolution)
        batch.sequence[window.row] = codes if window.along.step == 1 else _COMPLEMENT[codes[::-1]]

    def _put_reference(self, batch: BatchArrays, window: "_Window", rng: np.random.Generator) -> None:
        if batch.reference is None:
            return
        dropped = rng.random() < self.corruption.drop_reference
        if self.reference is None or dropped:
            batch.reference[window.row] = np.nan
            return
        name = window.member.lanes.biosample
        mean = self.reference.read(self.config.assays, *window.span, without=name)
        batch.reference[window.row] = mean.T[:, window.along]


class _Window(NamedTuple):
    """A window that was drawn, and what is done to it.

    span : chromosome, start and end in bins
    hidden : (T,) lanes that show nothing; hidden_bins : (L,), of all lanes but the control, along the genome
    along : forwards, or backwards for the other strand
    """

    row: int
    member: Member
    span: tuple[str, int, int]
    hidden: NDArray[np.bool_]
    hidden_bins: NDArray[np.bool_]
    along: slice


def _remove_folder(folder: Path, process: int) -> None:
    if os.getpid() == process:  # not when a worker ends
        shutil.rmtree(folder, ignore_errors=True)


def _deepen(log_depth: NDArray[np.float32], share: NDArray[np.float64]) -> None:
    """Turn depths of all reads into those of a share; a share of 0 has no depth."""
    known = share > 0
    log_depth[known] += np.log2(share[known]).astype(np.float32)
    log_depth[~known] = np.nan
