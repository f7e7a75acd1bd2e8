"""The biosamples that training windows are drawn from, and how often each is."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from candi_cli.covariates import encode
from candi_cli.loci import Loci
from candi_cli.model.candi.config import Config
from candi_cli.model.candi.reading import Lanes


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
class Member:
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
    def of(cls, lanes: Lanes, loci: Loci, config: Config) -> "Member":
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
