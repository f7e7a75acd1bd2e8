"""The experiments of a biosample as lanes, and what a window of them holds."""

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from candi_cli.covariates import CONTROL, Covariates
from candi_cli.model.candi.config import N_LEVELS
from candi_cli.model.candi.matching import Quantiles, track_quantiles
from candi_cli.store import Store, StoredExperiment


class Bases(Protocol):
    """Where DNA comes from; `io.sequence.Sequence` is one."""

    def codes(self, chrom: str, start: int, end: int) -> NDArray[np.uint8]:
        """Return base codes of [start, end)."""


class Block(NamedTuple):
    """Values of several lanes; a window is `values[..., at : at + L]`, of shape (n, L), of folds (n, K, L)."""

    values: NDArray[Any]
    at: int

    def window(self, length: int) -> NDArray[Any]:
        """Return the values of a window."""
        return self.values[..., self.at : self.at + length]


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
        self._measured: dict[tuple[int, str], NDArray[np.int64]] = {}
        self._alike: dict[tuple[Sequence[int], str], list[tuple[NDArray[np.int64], list[int]]]] = {}
        self._on_chrom: dict[tuple[Sequence[int], str, str], NDArray[np.bool_]] = {}
        self._signals: dict[tuple[int, str], tuple[int, ...]] = {}
        self._typical: tuple[float, ...] = ()
        self._without: tuple[str, ...] = ()
        self._matches: dict[int, Quantiles | None] = {}

    def match(self, typical: Sequence[float], *, without: Collection[str] = ()) -> "Lanes":
        """Read signal as `matching` describes it from now on; return self.

        Parameters
        ----------
        typical : quantiles of each assay in turn, A * N_LEVELS of them; none to read signal as it is
        without : chromosomes that a track's own quantiles are not taken from
        """
        self._typical, self._without, self._matches = tuple(typical), tuple(without), {}
        return self

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
        values = self.store.read(self.biosample, experiment.assay, layer, chrom, start, end)
        found = self._matching(lane) if layer == "signal" and self._typical else None
        return values if found is None else found.match(values)

    def matched_by(self) -> list[Any]:
        """Return what tells signal that is matched from signal as it is: nothing of the latter."""
        return [list(self._typical), list(self._without)] if self._typical else []

    def _matching(self, lane: int) -> Quantiles | None:
        """Return how a lane's signal becomes typical of its assay; None where nothing was measured."""
        if lane not in self._matches:
            experiment, first = self.experiments[lane], lane * N_LEVELS
            typical = np.array(self._typical[first : first + N_LEVELS])
            own = None
            if experiment is not None and len(typical):
                own = track_quantiles(self.store, self.biosample, experiment.assay, without=self._without)
            self._matches[lane] = None if own is None else Quantiles.of(own, typical)
        return self._matches[lane]

    def block(self, lanes: Sequence[int], layer: str, chrom: str, start: int, end: int) -> Block:
        """Return bins of a layer of several lanes, at least one."""
        return Block(np.stack([self.read(lane, layer, chrom, start, end).T for lane in lanes]), 0)

    def has(self, lane: int, layer: str, chrom: str) -> bool:
        """Return whether one lane has a layer on a chromosome."""
        experiment = self.experiments[lane]
        return experiment is not None and self.store.has(self.biosample, experiment.assay, layer, chrom)

    def signal_bins(self, lane: int, chrom: str) -> NDArray[np.int64]:
        """Return the bins of a chromosome in which one lane's signal was measured: sorted runs, shape (K, 2)."""
        if (lane, chrom) not in self._measured:
            experiment = self.experiments[lane]
            spans = np.zeros((0, 2), dtype=np.int64)
            if experiment is not None:
                spans = self.store.signal_spans(self.biosample, experiment.assay, chrom)
            resolution = self.store.rule.resolution
            self._measured[lane, chrom] = np.stack([spans[:, 0] // resolution, -(-spans[:, 1] // resolution)], axis=1)
        return self._measured[lane, chrom]

    def measured(self, lanes: Sequence[int], chrom: str, start: int, end: int) -> NDArray[np.bool_]:
        """Return in which bins the signal of each lane was measured: shape (n, L)."""
        inside = np.zeros((len(lanes), end - start), dtype=np.bool_)
        for row, lane in enumerate(lanes):
            spans = self.signal_bins(lane, chrom)
            first = int(np.searchsorted(spans[:, 1], start, side="right"))
            for span_start, span_end in spans[first:]:
                if span_start >= end:
                    break
                inside[row, max(span_start - start, 0) : span_end - start] = True
        return inside

    def whole(self, lanes: tuple[int, ...], chrom: str, start: int, end: int) -> NDArray[np.bool_]:
        """Return of which lanes the signal was measured in all bins of a window: shape (n,)."""
        if (lanes, chrom) not in self._alike:  # most lanes were measured in the same places
            groups: dict[bytes, tuple[NDArray[np.int64], list[int]]] = {}
            for row, lane in enumerate(lanes):
                spans = self.signal_bins(lane, chrom)
                groups.setdefault(spans.tobytes(), (spans, []))[1].append(row)
            self._alike[lanes, chrom] = list(groups.values())
        found = np.zeros(len(lanes), dtype=np.bool_)
        for spans, rows in self._alike[lanes, chrom]:
            run = int(np.searchsorted(spans[:, 0], start, side="right")) - 1
            found[rows] = run >= 0 and end <= spans[run, 1]
        return found

    def on_chrom(self, lanes: tuple[int, ...], layer: str, chrom: str) -> NDArray[np.bool_]:
        """Return which lanes have a layer on a chromosome: shape (n,)."""
        key = (lanes, layer, chrom)
        if key not in self._on_chrom:
            self._on_chrom[key] = np.array([self.has(lane, layer, chrom) for lane in lanes])
        return self._on_chrom[key]

    def signals(self, n_lanes: int, chrom: str) -> tuple[int, ...]:
        """Return which of the first lanes have a signal on a chromosome."""
        key = (n_lanes, chrom)
        if key not in self._signals:
            here = tuple(lane for lane in self.lanes_with("signal") if lane < n_lanes)
            on_chrom = self.on_chrom(here, "signal", chrom)
            self._signals[key] = tuple(lane for lane, there in zip(here, on_chrom, strict=True) if there)
        return self._signals[key]

    def covariates(self) -> list[Covariates | None]:
        """Return the covariates of each lane, None where it is missing."""
        return [experiment.covariates if experiment else None for experiment in self.experiments]
