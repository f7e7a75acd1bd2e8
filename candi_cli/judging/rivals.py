"""Point predictions that a model must beat, read from the same stores: the average of other cell types, the input."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from candi_cli.judging.grid import Grid
from candi_cli.judging.tracks import Observed, read_folds
from candi_cli.store import Store

_PIECE_BINS = 1 << 18
Array = NDArray[np.float64]


def average_activity(stores: Sequence[Store], biosample: str, assay: str, kind: str, grid: Grid) -> Array | None:
    """Return the mean over all other biosamples that have the assay: shape (L,); None where none has.

    Counts are rates, reads per bin and million reads of the experiment; signal is arcsinh(-log10 p); peaks are the
    share of biosamples with a peak. Bins that no other biosample has measured are NaN.

    Parameters
    ----------
    stores : whose biosamples take part; those of one name count once
    """
    total, count = np.zeros(grid.n_bins), np.zeros(grid.n_bins)
    seen = {biosample}
    for store in stores:
        observed = Observed(store)
        for other in store.biosamples:
            if other in seen or kind not in observed.kinds(other, assay):
                continue
            depth = store.experiment(other, assay).covariates.depth
            if kind == "counts" and not depth:
                continue
            seen.add(other)
            values = observed.read(other, assay, kind, grid).astype(np.float64)
            measured = np.isfinite(values)
            total[measured] += values[measured] / (depth / 1e6 if kind == "counts" and depth else 1)
            count += measured
    if not count.any():
        return None
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def own_input(store: Store, biosample: str, assay: str, folds: Sequence[int] | None, grid: Grid) -> Array:
    """Return the reads that the model saw of an experiment: shape (L,).

    Parameters
    ----------
    folds : those that were the input; all reads where None
    """
    observed = np.empty(grid.n_bins)
    for piece in grid.pieces(_PIECE_BINS):
        place = (piece.region.chrom, piece.first, piece.last)
        if folds is None:
            observed[piece.place] = store.read(biosample, assay, "counts", *place)
        else:
            observed[piece.place] = read_folds(store, biosample, assay, folds, *place)
    return observed

