"""The lanes of a biosample as half of their reads: what is left when the other half is to be judged."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from candi_cli.covariates import Covariates
from candi_cli.model.candi.reading import Lanes
from candi_cli.store import Store, StoredExperiment


def halves(n_folds: int) -> tuple[list[int], list[int]]:
    """Return the folds of the half that is read, and those of the half that is judged."""
    return list(range(n_folds // 2)), list(range(n_folds // 2, n_folds))


def share_of(experiment: StoredExperiment, folds: Sequence[int]) -> float:
    """Return the share of an experiment's reads that lies in some folds."""
    depths = experiment.fold_depths
    return float(depths[list(folds)].sum() / max(1, int(depths.sum())))


def of_share(covariates: Covariates, share: float) -> Covariates:
    """Return the covariates of an experiment that has a share of its reads."""
    return replace(covariates, depth=covariates.depth * share) if covariates.depth else covariates


class HalfLanes(Lanes):
    """The experiments of one biosample, each that has folds as the half of its reads; the control is whole.

    Parameters
    ----------
    assays : of the lanes
    """

    def __init__(self, store: Store, biosample: str, assays: Sequence[str]) -> None:
        super().__init__(store, biosample, assays)
        self._read: dict[int, list[int]] = {
            lane: halves(len(experiment.fold_depths))[0]
            for lane, experiment in enumerate(self.experiments[:-1])
            if experiment is not None and "folds" in experiment.layers
        }

    def read(self, lane: int, layer: str, chrom: str, start: int, end: int) -> NDArray[Any]:
        """Return bins of one lane's layer; of counts, those of the half that is read."""
        if layer != "counts" or lane not in self._read:
            return super().read(lane, layer, chrom, start, end)
        folds = super().read(lane, "folds", chrom, start, end)
        return folds[:, self._read[lane]].sum(axis=1, dtype=np.uint32)

    def covariates(self) -> list[Covariates | None]:
        """Return the covariates of each lane, None where it is missing; depths are those of the halves."""
        found = super().covariates()
        for lane, folds in self._read.items():
            experiment, own = self.experiments[lane], found[lane]
            if experiment is not None and own is not None:
                found[lane] = of_share(own, share_of(experiment, folds))
        return found
