"""A predicted track beside what was observed, in memory: from files of predictions and a store."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from candi_cli.errors import StoreError
from candi_cli.evaluation.levels import Levels
from candi_cli.evaluation.tracks import coefficient_of_variation, negative_binomial_sd
from candi_cli.genome import Region
from candi_cli.judging.grid import Grid, common_regions
from candi_cli.judging.table import Row
from candi_cli.store import Store
from candi_cli.store.predictions import PARAMETERS, Predictions

IMPUTED, DENOISED, GIVEN = "imputed", "denoised", "given"
POOLS = (IMPUTED, DENOISED)
KINDS = ("counts", "signal", "peaks")
_PIECE_BINS = 1 << 18
Float = NDArray[np.float32]


@dataclass(frozen=True)
class JudgedTrack:
    """One predicted track and what it predicts.

    Attributes
    ----------
    pool : `imputed`, the assay was hidden from the model; `denoised`, the model read other reads of the experiment
        than those that are observed here; `given`, tracks of which that is not known
    kind : `counts`, `signal` or `peaks`
    observed : shape (L,), over the bins of the grid: reads per bin, arcsinh(-log10 p), or 0 and 1; NaN where not
        measured
    parameters : shape (P, L), of the predicted distribution, as in `store.predictions.PARAMETERS`
    levels : what the levels of central intervals are replaced by before they are written; None where they are not
    """

    biosample: str
    assay: str
    pool: str
    kind: str
    grid: Grid
    observed: Float
    parameters: Float
    levels: Levels | None = None

    @property
    def name(self) -> str:
        """The track, for messages."""
        return f"{self.kind} of {self.biosample}/{self.assay} ({self.pool})"

    @cached_property
    def known(self) -> NDArray[np.bool_]:
        """Which bins were both measured and predicted: shape (L,)."""
        return np.isfinite(self.observed) & np.isfinite(self.parameters).all(axis=0)

    def only(self, kept: NDArray[np.bool_]) -> "JudgedTrack":
        """Return the track as if nothing had been measured outside of some bins.

        Parameters
        ----------
        kept : shape (L,)
        """
        return self if kept.all() else replace(self, observed=np.where(kept, self.observed, np.float32(np.nan)))

    def row(
        self, region: str, predictor: str, score: str, value: float, error: float = math.nan, n: int = 0, note: str = ""
    ) -> Row:
        """Return a row of one score of the track."""
        where = (self.biosample, self.assay, self.pool, self.kind)
        return Row(*where, region, predictor, score, float(value), float(error), int(n), note)

    @cached_property
    def cv(self) -> NDArray[np.float64]:
        """Return sd / mean of the predicted distribution, as the paper's: of counts, and of arcsinh(-log10 p)."""
        if self.kind == "counts":
            return coefficient_of_variation(self.expected, negative_binomial_sd(*self.parameters))
        return coefficient_of_variation(*self.parameters)

    @cached_property
    def expected(self) -> NDArray[np.float64]:
        """The prediction as one number a bin, in the units of what is observed: shape (L,).

        Expected reads, the mean of arcsinh(-log10 p), or the probability of a peak.
        """
        first = self.parameters[0].astype(np.float64)
        if self.kind == "counts":
            return np.exp(first)
        return first if self.kind == "signal" else 1 / (1 + np.exp(-first))


class Observed:
    """The experiments of a store as the truth of predictions.

    Parameters
    ----------
    store : open
    folds : of each (biosample, assay), the folds whose reads are the truth; all reads where there are none
    """

    def __init__(self, store: Store, folds: dict[tuple[str, str], Sequence[int]] | None = None) -> None:
        self.store, self.folds = store, dict(folds or {})

    def kinds(self, biosample: str, assay: str) -> list[str]:
        """Return the kinds of tracks that there is a truth of; none where the store lacks the experiment."""
        if biosample not in self.store.biosamples or assay not in self.store.assays(biosample):
            return []
        if (biosample, assay) in self.folds:
            return ["counts"]  # signal and peaks were made from all reads
        return [kind for kind in KINDS if kind in self.store.experiment(biosample, assay).layers]

    def read(self, biosample: str, assay: str, kind: str, grid: Grid) -> Float:
        """Return what was observed in the bins of a grid: shape (L,), NaN where it was not measured."""
        values = np.full(grid.n_bins, np.nan, dtype=np.float32)
        for piece in grid.pieces(_PIECE_BINS):
            values[piece.place] = self._piece(biosample, assay, kind, piece.region.chrom, piece.first, piece.last)
        return values

    def _piece(self, biosample: str, assay: str, kind: str, chrom: str, first: int, last: int) -> Float:
        store = self.store
        if chrom not in store.chromsizes:  # not 0, which is what a store holds of a chromosome without reads
            return np.full(last - first, np.nan, dtype=np.float32)
        if kind != "signal" and not self._is_sequenced(biosample, chrom):
            return np.full(last - first, np.nan, dtype=np.float32)
        if kind == "counts":
            folds = self.folds.get((biosample, assay))
            if folds is not None:
                return read_folds(store, biosample, assay, folds, chrom, first, last)
            return np.asarray(store.read(biosample, assay, "counts", chrom, first, last), dtype=np.float32)
        measured = np.zeros(last - first, dtype=np.bool_)
        if kind == "peaks":
            measured[:] = store.has(biosample, assay, "peaks", chrom)
        else:
            resolution = store.rule.resolution
            for start, end in store.signal_spans(biosample, assay, chrom):
                measured[max(start // resolution - first, 0) : max(-(-end // resolution) - first, 0)] = True
        values = np.asarray(store.read(biosample, assay, kind, chrom, first, last), dtype=np.float32)
        return np.where(measured, np.arcsinh(values) if kind == "signal" else values, np.float32(np.nan))

    def _is_sequenced(self, biosample: str, chrom: str) -> bool:
        """Return whether a biosample has a read on a chromosome, or no reads are kept of it at all.

        Reads that were cut down to some chromosomes say nothing of the others, nor do peaks that were called from them.
        """
        store = self.store
        counted = [name for name in store.assays(biosample) if "counts" in store.experiment(biosample, name).layers]
        return not counted or any(store.has(biosample, name, "counts", chrom) for name in counted)


def read_folds(
    store: Store, biosample: str, assay: str, folds: Sequence[int], chrom: str, first: int, last: int
) -> Float:
    """Return the reads of some folds in the bins [first, last): shape (last - first,)."""
    values = store.read(biosample, assay, "folds", chrom, first, last)
    return np.asarray(values[:, list(folds)].sum(axis=1, dtype=np.uint32), dtype=np.float32)


def check_grids(predictions: Predictions, store: Store) -> None:
    """Raise StoreError unless predictions and truth have the same bins."""
    described = predictions.described
    if described.resolution != store.rule.resolution:
        raise StoreError(
            f"{predictions.path}: bins of {described.resolution} bp, but of {store.rule.resolution} bp in "
            f"{store.name}; predict from, and compare with, stores of one resolution"
        )
    for chrom, length in described.chromsizes.items():
        if store.chromsizes.get(chrom, length) != length:
            raise StoreError(
                f"{predictions.path}: {chrom} is {length:,} bp, but {store.chromsizes[chrom]:,} bp in {store.name}; "
                "use the same genome build for both"
            )


def judged_regions(predictions: Predictions, biosample: str, wanted: Sequence[Region]) -> list[Region]:
    """Return what was predicted of a biosample, of what is wanted (everything when that is empty)."""
    found = predictions.regions(biosample)
    return common_regions(found, wanted, predictions.described.chromsizes) if wanted else found


def read_track(
    predictions: Predictions, observed: Observed, key: tuple[str, str], kind: str, pool: str, grid: Grid
) -> JudgedTrack:
    """Return one track of a file of predictions beside what was observed.

    Parameters
    ----------
    key : biosample and assay
    """
    parameters = np.empty((len(PARAMETERS[kind]), grid.n_bins), dtype=np.float32)
    for piece in grid.pieces(_PIECE_BINS):
        values = predictions.read(*key, PARAMETERS[kind], piece.region.chrom, piece.first, piece.last)
        parameters[:, piece.place] = values
    fits = predictions.described.tracks[key].get("recalibration") or {}
    found = fits.get("levels", {}).get(kind)
    levels = Levels.from_json(kind, found) if found else None
    return JudgedTrack(*key, pool, kind, grid, observed.read(*key, kind, grid), parameters, levels)
