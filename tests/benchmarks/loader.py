"""Time the loader of training windows: windows a second by the number of workers, and where the time goes.

Run it as `python tests/benchmarks/loader.py [--batch 90] [--seconds 8] [--folder DIR]`. It simulates two cohorts of 35
assays with controls, 8 folds of the reads, signal, peaks and 30 kb of DNA a window: one with as few assays a biosample
as the ENCODE Imputation Challenge has (median 5), one in which every biosample has all 35. Each is read from the
compressed store and from unpacked layers, by 0, 1, 2, ... workers in order. To keep up with the network on one H200, 8
workers on 16 cores must deliver 6,200 windows a second, so one worker 800.

Beside it stands the cost of the parts of a batch in one process, and the bytes that cross to the device.
"""

import argparse
import cProfile
import os
import pstats
import tempfile
import time
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from candi_cli.counting import CountingRule
from candi_cli.covariates import CONTROL, Covariates
from candi_cli.loci import allowed_bins, apart
from candi_cli.model.candi import Lanes, TrainingDataset, preset
from candi_cli.model.candi.masking import PAPER
from candi_cli.store import Store

ASSAYS = tuple(f"M{number:02}" for number in range(1, 36))
N_FOLDS, RESOLUTION = 8, 25
NEEDED = 6_200 / 8


class Genome:
    """Random DNA in memory, as `io.sequence.Sequence` gives it."""

    def __init__(self, length: int) -> None:
        self._codes = np.random.default_rng(0).integers(0, 4, length, dtype=np.uint8)

    def codes(self, chrom: str, start: int, end: int) -> NDArray[np.uint8]:
        """Return base codes of [start, end)."""
        return self._codes[start:end]


def simulate(path: Path, biosamples: Sequence[Sequence[str]], n_bins: int) -> None:
    """Write a store of biosamples that have the assays given: gamma-Poisson reads that deep experiments have."""
    rng = np.random.default_rng(1)
    rate = rng.gamma(0.3, 3.0, n_bins)
    with Store.create(path, rule=CountingRule(), chromsizes={"chr1": n_bins * RESOLUTION}) as store:
        for number, assays in enumerate(biosamples):
            for assay in (*assays, CONTROL):
                folds = rng.poisson(rate[:, None] / N_FOLDS, (n_bins, N_FOLDS)).astype(np.uint32)
                name = (f"cell{number:02}", assay)
                store.add_experiment(*name)
                store.write(*name, "counts", "chr1", folds.sum(axis=1, dtype=np.uint32))
                store.write(*name, "folds", "chr1", folds)
                blocks = np.ones(-(-n_bins * RESOLUTION // 100_000), dtype=np.uint32)
                store.write_blocks(*name, "chr1", blocks, 100_000)
                if assay != CONTROL:
                    signal = np.round(rate * rng.gamma(2.0, 0.5, n_bins), 2).astype(np.float32)
                    store.write(*name, "signal", "chr1", signal)
                    store.write_spans(*name, "chr1", np.array([[0, n_bins * RESOLUTION]]))
                    store.write(*name, "peaks", "chr1", (signal > 5).astype(np.uint8))
                span = float(n_bins * RESOLUTION)
                depths = folds.sum(axis=0).tolist()
                store.describe(*name, Covariates(float(sum(depths)), 50.0, span_bp=span), fold_depths=depths)


def dataset_of(store: Store, batch_size: int) -> TrainingDataset:
    """Return the windows of a store as the paper's preset trains on them."""
    config = preset("paper", ASSAYS, resolution=RESOLUTION, reads_sequence=True)
    n_bins = store.n_bins("chr1")
    covered = {"chr1": store.covered_blocks(store.biosamples[0], "chr1")}
    allowed = allowed_bins(
        store.chromsizes, resolution=RESOLUTION, regions=[], covered=covered, blacklist={}, test_chroms=()
    )
    loci = apart(allowed, config.context_bins, 5_000, seed=0)
    cohort = [(Lanes(store, biosample, ASSAYS), loci) for biosample in store.biosamples]
    return TrainingDataset(
        config, cohort, corruption=PAPER, batch_size=batch_size, seed=0,
        sequences={store.name: Genome(n_bins * RESOLUTION)},
    )  # fmt: skip


def cpu_time(dataset: TrainingDataset, n_batches: int = 10) -> float:
    """Return processor seconds a window in this process, which other programs on the machine hardly change."""
    start = time.process_time()
    for step in range(n_batches):
        dataset.batch(step)
    return (time.process_time() - start) / (n_batches * len(dataset.rows))


def rate(dataset: TrainingDataset, workers: int, seconds: float) -> float:
    """Return windows a second, after two batches to start with."""
    batches, n = dataset.batches(workers=workers), len(dataset.rows)
    for _ in islice(batches, 2 + workers * 2):
        pass
    start, taken = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        next(batches)
        taken += n
    return taken / (time.perf_counter() - start)


def parts(dataset: TrainingDataset, n_batches: int = 4) -> None:
    """Print what the functions of the loader cost, in microseconds a window; the profiler adds to small ones."""
    dataset.batch(0)
    profile = cProfile.Profile()
    profile.enable()
    for step in range(n_batches):
        dataset.batch(step)
    profile.disable()
    stats, n_windows = pstats.Stats(profile).stats, n_batches * len(dataset.rows)  # type: ignore[attr-defined]
    costs = sorted(((own, name[2]) for name, (_, _, own, _, _) in stats.items()), reverse=True)
    total = sum(own for own, _ in costs)
    shown = ", ".join(f"{name.strip('<>')} {own / n_windows * 1e6:.0f}" for own, name in costs[:9])
    print(f"    own time, us a window (total {total / n_windows * 1e6:.0f}): {shown}")


def main() -> None:
    """Simulate, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=90, help="windows in a batch (default 90)")
    parser.add_argument("--bins", type=int, default=400_000, help="of the simulated genome (default 400,000)")
    parser.add_argument("--seconds", type=float, default=8.0, help="of each measurement (default 8)")
    parser.add_argument("--folder", type=Path, help="where the stores are made and kept (default: a temporary folder)")
    options = parser.parse_args()
    rng, cores = np.random.default_rng(3), os.cpu_count() or 1
    n_assays = np.clip(np.rint(rng.lognormal(np.log(5), 0.5, 12)), 2, 20).astype(int)
    few = [sorted(rng.choice(ASSAYS, n, replace=False)) for n in n_assays]
    cohorts = {f"{len(few)} biosamples of {np.median(n_assays):.0f} assays (median)": few, "2 of 35": [ASSAYS] * 2}
    print(f"{cores} cores; {NEEDED:.0f} windows/s of a worker are needed")
    with tempfile.TemporaryDirectory() as scratch:
        for number, (name, biosamples) in enumerate(cohorts.items()):
            path = (options.folder or Path(scratch)) / f"cohort{number}.{options.bins}.h5"
            if not path.exists():
                simulate(path, biosamples, options.bins)
            with Store.open(path) as store:
                measure(name, store, options.batch, options.seconds, cores)


def measure(name: str, store: Store, batch_size: int, seconds: float, cores: int) -> None:
    """Print the rates of one cohort, packed and unpacked."""
    for unpacked in (False, True):
        dataset = dataset_of(store, batch_size)
        start = time.perf_counter()
        size = dataset.decode() if unpacked else 0
        made = f", {size / 1e6:,.0f} MB unpacked in {time.perf_counter() - start:.1f} s" if unpacked else ""
        batch = dataset.batch(0)
        crossing = sum(part.numel() * part.itemsize for half in batch for part in half if part is not None)
        print(f"{name}, {'unpacked layers' if unpacked else 'from the store'}{made}")
        print(f"    {crossing / batch_size / 1e3:.0f} kB a window cross; counts as {batch.inputs.values.dtype}")
        for workers in sorted({0, 1, 2, min(8, cores // 2)}):
            print(f"    {workers} workers: {rate(dataset, workers, seconds):,.0f} windows/s", flush=True)
        print(f"    {cpu_time(dataset) * 1e6:.0f} us of one core a window, without sending it")
        parts(dataset)


if __name__ == "__main__":
    main()
