"""A small genome, stores of known values on it, and tracks made of arrays."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

from candi_cli.counting import CountingRule
from candi_cli.covariates import Covariates
from candi_cli.genome import Region, bin_count
from candi_cli.judging.grid import Grid
from candi_cli.judging.tracks import JudgedTrack
from candi_cli.store import Store

SIZES = {"chrA": 100_010, "chrB": 60_000}  # the last bin of chrA has 10 bp
Layers = Mapping[str, np.ndarray]


def write_experiment(
    store: Store, key: tuple[str, str], layers: Layers, *, depth: float | None = 1e6, spans: Mapping | None = None
) -> None:
    """Write layers over all chromosomes, one after the other; spans are in bp, by chromosome."""
    store.add_experiment(*key)
    n_folds = layers["folds"].shape[1] if "folds" in layers else 0
    for layer, values in layers.items():
        at = 0
        for chrom, length in store.chromsizes.items():
            n = bin_count(length, store.rule.resolution)
            store.write(*key, layer, chrom, values[at : at + n])
            at += n
    for chrom, found in (spans or {}).items():
        store.write_spans(*key, chrom, np.array(found, dtype=np.int64).reshape(-1, 2))
    fold_depths = layers["folds"].sum(axis=0).tolist() if n_folds else ()
    store.describe(*key, Covariates(depth=depth), fold_depths=fold_depths)


@pytest.fixture
def make_store(tmp_path: Path) -> Callable[..., Path]:
    """Return what writes a store: experiments -> path."""

    def make(
        name: str, experiments: Mapping[tuple[str, str], Layers], *, sizes: Mapping[str, int] = SIZES,
        depths: Mapping[tuple[str, str], float | None] | None = None, spans: Mapping | None = None,
    ) -> Path:  # fmt: skip
        path = tmp_path / f"{name}.h5"
        with Store.create(path, rule=CountingRule(), chromsizes=sizes) as store:
            for key, layers in experiments.items():
                write_experiment(store, key, layers, depth=(depths or {}).get(key, 1e6), spans=(spans or {}).get(key))
        return path

    return make


@pytest.fixture
def sizes() -> dict[str, int]:
    return dict(SIZES)


@pytest.fixture
def grid() -> Grid:
    """All bins of the genome."""
    return Grid([Region(chrom, 0, length) for chrom, length in SIZES.items()], 25)


@pytest.fixture
def make_track(grid: Grid) -> Callable[..., JudgedTrack]:
    """Return what makes a track of arrays over a grid."""

    def make(kind: str, observed: np.ndarray, *parameters: np.ndarray, on: Grid = grid, **more: object) -> JudgedTrack:
        values = np.stack([np.broadcast_to(each, observed.shape) for each in parameters]).astype(np.float32)
        return JudgedTrack("cell", "H3K4me3", "imputed", kind, on, observed.astype(np.float32), values, **more)

    return make
